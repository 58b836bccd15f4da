// SPDX-License-Identifier: Apache-2.0
// consumer MODEL MAP: frames of a made-up camera (BGR, padded rows) through the installed library. Exit status 0 if
// every answer is as documented. The map is written to the file MAP: that of main.c has to be the same.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <defocus_fast/error.hpp>
#include <defocus_fast/estimator.hpp>
#include <defocus_fast/networks.hpp>
#include <defocus_fast/version.hpp>

namespace {

int run(const char* model, const char* map_file) {
  const int height = 120, width = 160, pitch = 512;
  std::vector<std::uint8_t> frame(static_cast<std::size_t>(height) * pitch);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) frame[y * pitch + 3 * x + c] = (x / 16 + y / 16) % 2 ? 220 : 40 + 10 * c;

  defocus_fast::Options options;
  options.model = model;
  options.num_threads = 2;
  defocus_fast::Estimator estimator(height, width, options);

  // What networks of its own for a GPU would be asked: the image and what the networks read around it, or a tile of
  // it.
  const defocus_fast::cuda::NetworkShapes shapes = defocus_fast::cuda::network_shapes(height, width, options);
  if (shapes.image_height <= height || shapes.image_width <= width || std::max(shapes.head_batch, shapes.cell_rows) < 1)
    return 6;

  // Blue comes first in memory; the view starts at red and steps backwards.
  const defocus_fast::ImageView image{frame.data() + 2, defocus_fast::PixelType::uint8, height, width, 3, pitch, 3, -1};
  std::vector<float> map(static_cast<std::size_t>(height) * width, -1.0f);
  const defocus_fast::MapView out{map.data(), height, width, width * static_cast<std::ptrdiff_t>(sizeof(float))};
  for (int i = 0; i < 3; ++i) estimator.estimate_into(image, out);
  for (const float radius : map)
    if (!(radius >= 0 && radius <= 6)) return 3;

  defocus_fast::BlurMap result;
  estimator.estimate(image, result);
  if (result.map != map || result.edges.position.size() != result.edges.size() || result.edges.size() == 0) return 4;

  try {
    estimator.estimate_into(image, {map.data(), height, width - 1, 4 * (width - 1)});
    return 5;
  } catch (const defocus_fast::InvalidArgument& error) {
    std::printf("defocus_fast %s, %s, %zu edges; as it should be: %s\n", DEFOCUS_FAST_VERSION, estimator.kernels(),
                result.edges.size(), error.what());
  }
  std::FILE* const file = std::fopen(map_file, "wb");
  if (!file || std::fwrite(map.data(), sizeof(float), map.size(), file) != map.size() || std::fclose(file)) return 7;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr,
                 "usage: consumer MODEL MAP: the name of a shipped model (tip22) or a model folder, a file to write\n");
    return 2;
  }
  try {
    return run(argv[1], argv[2]);
  } catch (const defocus_fast::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
