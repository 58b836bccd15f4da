// SPDX-License-Identifier: Apache-2.0
// answers MODEL KERNELS PRECISION HEIGHT WIDTH: of an RGB image at standard input, as numbers at standard output, for
// tests/arm64/compare.py and bench/instructions.py: how many edges; their octave, y and x; their radii and depth
// probabilities; the map and its expected error. Integers have 32 bits.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"

namespace {

template <class T>
void write(const std::vector<T>& values) {
  if (std::fwrite(values.data(), sizeof(T), values.size(), stdout) != values.size())
    throw defocus_fast::Error("output");
}

}  // namespace

int main(int argc, char** argv) try {
  using namespace defocus_fast;
  if (argc != 6) throw InvalidArgument("usage: answers MODEL KERNELS PRECISION HEIGHT WIDTH");
  const int height = std::atoi(argv[4]), width = std::atoi(argv[5]);
  std::vector<std::uint8_t> pixels(std::size_t(height) * std::size_t(width) * 3);
  if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) throw InvalidArgument("image: too short");
  Options options;
  options.model = argv[1];
  options.kernels = argv[2];
  set_option(options, "precision", std::string(argv[3]));
  Estimator estimator(height, width, options);
  BlurMap result;
  estimator.estimate(ImageView::interleaved(pixels.data(), PixelType::uint8, height, width, 3, width * 3), result);
  const Edges& edges = result.edges;
  std::vector<std::int32_t> positions{std::int32_t(edges.size())};
  for (std::size_t i = 0; i < edges.size(); ++i)
    positions.insert(positions.end(), {edges.octave[i], edges.position[i].y, edges.position[i].x});
  write(positions);
  write(edges.radius);
  write(edges.depth_probability);
  write(result.map);
  write(result.expected_error);
  return 0;
} catch (const defocus_fast::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
