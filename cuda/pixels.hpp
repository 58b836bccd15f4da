// SPDX-License-Identifier: Apache-2.0
// Reading the caller's pixels, as cpp/src/image.cpp does.
#pragma once

#include "../cpp/src/coding.hpp"
#include "launch.hpp"

namespace defocus_fast::cuda {

/// Row and column of the pixel that this thread stands for; false for threads beyond the last pixel.
__device__ inline bool pixel_of_thread(int height, int width, int& y, int& x) {
  const std::int64_t i = thread_index();
  if (i >= std::int64_t{height} * width) return false;
  y = int(i / width);
  x = int(i - std::int64_t{y} * width);
  return true;
}

/// What the numbers of a camera's frame stand for.
template <class Value>
__device__ Value decode(const ImageView& image, int y, int x, int c) {
  using Word = Coded<Value>;
  const Coding& coding = image.coding;
  const Chroma& chroma = image.chroma;
  const auto number = [&](const void* plane, std::ptrdiff_t offset, int zero) {
    return (*reinterpret_cast<const Word*>(static_cast<const unsigned char*>(plane) + offset) >> coding.shift) - zero;
  };
  const int luma = number(image.data, y * image.pitch_bytes + x * image.pixel_stride_bytes, coding.black);
  if (image.channels == 1) return decoded<Value>(coding, channel_sum(coding, 0, luma, 0, 0));
  const std::ptrdiff_t offset = y / chroma.rows * chroma.pitch_bytes + x / 2 * chroma.stride_bytes;
  const int u = number(chroma.u, offset, no_colour(coding)), v = number(chroma.v, offset, no_colour(coding));
  return decoded<Value>(coding, channel_sum(coding, c, luma, u, v));
}

/// All pixels are read here.
template <class Pixel>
__device__ Pixel value_at(const ImageView& image, int y, int x, int c) {
  if (image.coding.white != 0) return decode<Pixel>(image, y, x, c);
  const auto* bytes = static_cast<const unsigned char*>(image.data);
  return *reinterpret_cast<const Pixel*>(bytes + y * image.pitch_bytes + x * image.pixel_stride_bytes +
                                         c * image.channel_stride_bytes);
}

/// In [0, 1]: uint8 is divided by 255. The division is the rounded one, a product by 1 / 255 would differ.
__device__ inline float unit_value(float value) { return value; }
__device__ inline float unit_value(std::uint8_t value) { return float(value) / 255.0f; }

/// The index in [0, n) that i stands for under symmetric reflection (edge pixel repeated).
__device__ inline int reflect(int i, int n) {
  if (i >= 0 && i < n) return i;
  const std::int64_t period = 2 * std::int64_t{n};  // d c b a | a b c d | d c b a
  const std::int64_t folded = (i % period + period) % period;
  return int(folded < n ? folded : period - 1 - folded);
}

/// Calls use(Pixel{}) with the type of the image's values.
template <class Use>
void for_pixel_type(const ImageView& image, const Use& use) {
  if (image.type == PixelType::uint8)
    use(std::uint8_t{});
  else
    use(float{});
}

}  // namespace defocus_fast::cuda
