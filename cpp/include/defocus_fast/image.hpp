// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "defocus_fast/export.hpp"

namespace defocus_fast {

enum class PixelType : std::uint8_t { uint8, float32 };

/// An image in the caller's memory, top row first; nothing is copied or owned.
/// Strides are in bytes and may be negative (a flipped image, or a BGR frame seen as RGB).
struct ImageView {
  const void* data = nullptr;  // (height, width, channels), [0, 255] for uint8, [0, 1] for float32
  PixelType type = PixelType::uint8;
  int height = 0;
  int width = 0;
  int channels = 3;  // 1 (grey) or 3 (red, green, blue)
  std::ptrdiff_t pitch_bytes = 0;
  std::ptrdiff_t pixel_stride_bytes = 0;
  std::ptrdiff_t channel_stride_bytes = 0;

  /// Interleaved pixels without gaps between them; rows `pitch_bytes` apart.
  static ImageView interleaved(const void* data, PixelType type, int height, int width, int channels,
                               std::ptrdiff_t pitch_bytes) {
    const std::ptrdiff_t element = type == PixelType::uint8 ? 1 : 4;
    return {data, type, height, width, channels, pitch_bytes, channels * element, element};
  }

  /// The same memory.
  DEFOCUS_FAST_EQUALITY(ImageView);
};

/// One value per pixel in the caller's memory; strides are in bytes and may be negative.
template <class T>
struct View {
  T* data = nullptr;  // (height, width)
  int height = 0;
  int width = 0;
  std::ptrdiff_t pitch_bytes = 0;
  std::ptrdiff_t pixel_stride_bytes = sizeof(T);

  T* at(int y, int x) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(data) + y * pitch_bytes + x * pixel_stride_bytes);
  }

  /// The same memory.
  DEFOCUS_FAST_EQUALITY(View);
};

using MapView = View<float>;                // a blur map to be written, px
using RadiiView = View<const float>;        // radii to be read, px
using MaskView = View<const std::uint8_t>;  // 0 = no, anything else = yes

}  // namespace defocus_fast
