// SPDX-License-Identifier: Apache-2.0
#include "stages.hpp"

namespace defocus_fast::cpu {

namespace {

/// Rows of `n` pixels from (y0, x0), red, green, blue in every `stride` values.
template <class T>
void extract(const ImageView& image, int y0, int x0, int rows, int n, int stride, T* out) {
  std::array<float, 3 * (max_tile + 2 * margin)> scratch;
  float* const channels[]{scratch.data(), scratch.data() + n, scratch.data() + 2 * n};
  for (int i = 0; i < rows; ++i) {
    load_row(image, reflect(y0 + i, image.height), x0, n, channels);
    for (int x = 0; x < n; ++x, out += stride)
      for (int c = 0; c < 3; ++c) out[c] = stored<T>(channels[image.channels == 1 ? 0 : c][x]);
  }
}

}  // namespace

template <class T>
void extract_tile(const ImageView& image, int y0, int x0, int tile_height, int tile_width, T* tile, Workers& workers) {
  const int rows = tile_height + 2 * margin, n = tile_width + 2 * margin;
  workers.for_ranges(rows, 16, [&](int begin, int end, int) {
    extract(image, y0 - margin + begin, x0 - margin, end - begin, n, 4, tile + std::ptrdiff_t(begin) * n * 4);
  });
}
template void extract_tile(const ImageView&, int, int, int, int, float*, Workers&);
template void extract_tile(const ImageView&, int, int, int, int, std::uint16_t*, Workers&);

void extract_patches(const ImageView& image, int y, int x, int crop_offset, const std::array<float*, 3>& crops) {
  constexpr std::array<int, 3> sizes{41, 27, 15};
  for (std::size_t i = 0; i < 3; ++i) {
    const int first = -sizes[i] / 2 + (i > 0 ? crop_offset : 0);
    extract(image, y + first, x + first, sizes[i], sizes[i], 3, crops[i]);
  }
}

}  // namespace defocus_fast::cpu
