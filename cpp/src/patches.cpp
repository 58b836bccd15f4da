// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "stages.hpp"

namespace defocus_fast::cpu {

namespace {

/// Calls use(x, value of each channel) for `n` pixels of row y from column x0 on, a part of the row at a time.
template <class Use>
void for_pixels(const ImageView& image, int y, int x0, int n, const Use& use) {
  constexpr int part = 256;
  std::array<std::array<float, part>, 3> values;
  float* const channels[]{values[0].data(), values[1].data(), values[2].data()};
  const std::size_t green = image.channels == 1 ? 0 : 1, blue = image.channels == 1 ? 0 : 2;
  for (int begin = 0; begin < n; begin += part) {
    const int count = std::min(part, n - begin);
    load_row(image, reflect(y, image.height), x0 + begin, count, channels);
    for (int x = 0; x < count; ++x)
      use(begin + x,
          std::array{values[0][std::size_t(x)], values[green][std::size_t(x)], values[blue][std::size_t(x)]});
  }
}

}  // namespace

template <class T>
void extract_pixels(const ImageView& image, int y0, int x0, int rows, int n, int stride, T* out) {
  for (int y = 0; y < rows; ++y, out += std::ptrdiff_t(n) * stride)
    for_pixels(image, y0 + y, x0, n, [&](int x, const std::array<float, 3>& pixel) {
      for (std::size_t c = 0; c < 3; ++c) out[std::ptrdiff_t(x) * stride + std::ptrdiff_t(c)] = stored<T>(pixel[c]);
    });
}
template void extract_pixels(const ImageView&, int, int, int, int, int, float*);
template void extract_pixels(const ImageView&, int, int, int, int, int, std::uint16_t*);
template void extract_pixels(const ImageView&, int, int, int, int, int, std::uint8_t*);

template <class T>
void extract_cells(const ImageView& image, int y0, int x0, int n, int stride, T* out) {
  for (int y = 0; y < cell; ++y)
    for_pixels(image, y0 + y, x0, n * cell, [&](int x, const std::array<float, 3>& pixel) {
      T* to = out + std::ptrdiff_t(x / cell) * stride + (y * cell + x % cell) * 3;
      for (std::size_t c = 0; c < 3; ++c) to[c] = stored<T>(pixel[c]);
    });
}
template void extract_cells(const ImageView&, int, int, int, int, float*);
template void extract_cells(const ImageView&, int, int, int, int, std::uint16_t*);
template void extract_cells(const ImageView&, int, int, int, int, std::uint8_t*);

void extract_patches(const ImageView& image, int y, int x, int crop_offset, const std::array<float*, 3>& crops) {
  for (std::size_t i = 0; i < 3; ++i) {
    const int corner = crop_corner(i, crop_offset);
    extract_pixels(image, y + corner, x + corner, crop_sizes[i], crop_sizes[i], 3, crops[i]);
  }
}

}  // namespace defocus_fast::cpu
