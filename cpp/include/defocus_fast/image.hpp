// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "defocus_fast/export.hpp"

namespace defocus_fast {

enum class PixelType : std::uint8_t { uint8, float32 };

/// Frames as cameras and decoders give them. Words of 16 bits are in the machine's byte order.
enum class PixelFormat : std::uint8_t {
  gray8,
  gray10,  // the low 10 bits of 16
  gray16,
  rgb,
  bgr,
  rgba,  // what the fourth byte says does not count, here and in the next three
  bgra,
  rgbx,
  bgrx,
  nv12,  // Y, then U and V in turns for every 2 x 2 pixels
  nv21,  // the same with V first
  i420,  // Y, U, V; the latter for every 2 x 2 pixels
  yuyv,  // Y, U, Y, V for every 2 x 1 pixels
  p010,  // as nv12, the high 10 bits of 16
};

/// Whether black and white are the least and the largest number, or 16 and 235 of 255.
enum class ColourRange : std::uint8_t { full, limited };
enum class ColourMatrix : std::uint8_t { bt601, bt709 };
struct Colour {
  std::optional<ColourRange> range;  // default: limited for YUV, full for all others
  ColourMatrix matrix = ColourMatrix::bt601;
};

struct FramePlane {
  const void* data = nullptr;
  std::ptrdiff_t pitch_bytes = 0;  // from row to row; negative: the bottom row comes first
};
/// As many as the format has.
struct FramePlanes {
  FramePlane first, second, third;
};

/// Where the colours of a YUV image are, of which two columns of pixels share a number, and `rows` rows.
struct Chroma {
  const void *u = nullptr, *v = nullptr;
  std::ptrdiff_t pitch_bytes = 0;
  std::ptrdiff_t stride_bytes = 0;
  int rows = 2;

  /// The same memory.
  DEFOCUS_FAST_EQUALITY(Chroma);
};

/// How numbers of 8 or 16 bits stand for the image's values; ImageView::of makes it. Factors are in 2^-13.
struct Coding {
  std::int32_t white = 0;  // 2^bits - 1; 0: the values are stored as they are
  std::int32_t shift = 0;  // so many low bits of a word do not count
  std::int32_t black = 0;
  std::int32_t luma = 0, red_v = 0, green_u = 0, green_v = 0, blue_u = 0;

  DEFOCUS_FAST_EQUALITY(Coding);
};

/// An image in the caller's memory, top row first; nothing is copied or owned.
/// Strides are in bytes and may be negative (a flipped image, or a BGR frame seen as RGB).
struct ImageView {
  const void* data = nullptr;  // (height, width, channels), [0, 255] for uint8, [0, 1] for float32; or Y of YUV
  PixelType type = PixelType::uint8;
  int height = 0;
  int width = 0;
  int channels = 3;  // 1 (grey) or 3 (red, green, blue)
  std::ptrdiff_t pitch_bytes = 0;
  std::ptrdiff_t pixel_stride_bytes = 0;
  std::ptrdiff_t channel_stride_bytes = 0;
  Chroma chroma{};
  Coding coding{};

  /// A frame of a camera or a decoder, read where it is. It stands for a uint8 image, or for a float32 one where it has
  /// more than 8 bits: docs/frames.md has the formulas. Throws InvalidArgument for planes that are missing, overlap or
  /// have pitches shorter than their rows, and for odd sizes of a format that has none.
  DEFOCUS_FAST_API static ImageView of(PixelFormat format, int height, int width, const FramePlanes& planes,
                                       const Colour& colour = {});

  /// Interleaved pixels without gaps between them; rows `pitch_bytes` apart.
  static ImageView interleaved(const void* data, PixelType type, int height, int width, int channels,
                               std::ptrdiff_t pitch_bytes) {
    const std::ptrdiff_t element = type == PixelType::uint8 ? 1 : 4;
    return {data, type, height, width, channels, pitch_bytes, channels * element, element, {}, {}};
  }

  /// The same memory.
  DEFOCUS_FAST_EQUALITY(ImageView);
};

/// The names of the formats: "gray8" and so on. Throws InvalidArgument for any other.
DEFOCUS_FAST_API PixelFormat pixel_format(const char* name);
/// By names: "full" or "limited", "bt601" or "bt709"; null is the default. Throws InvalidArgument for any other.
DEFOCUS_FAST_API Colour colour(const char* range, const char* matrix);

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
