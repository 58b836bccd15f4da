// SPDX-License-Identifier: Apache-2.0
// What the numbers of a camera's frame stand for: the arithmetic of one pixel, for both devices. It is in integers, so
// that both, and whatever instructions they use, have the same values.
#pragma once

#include <type_traits>

#include "defocus_fast/image.hpp"
#include "formulas.hpp"

namespace defocus_fast {

/// Of the factors of Coding. 13: those of 8-bit numbers fit into 16 bits, whose products are fast.
inline constexpr int coding_bits = 13;

/// How the numbers of a camera's frame are stored that stand for values of this type.
template <class Value>
using Coded = std::conditional_t<std::is_same_v<Value, float>, std::uint16_t, std::uint8_t>;

inline std::ptrdiff_t word_size(const ImageView& image) {
  return image.type == PixelType::uint8 ? 1 : image.coding.white != 0 ? 2 : std::ptrdiff_t{sizeof(float)};
}

/// U and V of no colour.
DEFOCUS_FAST_HOST_DEVICE inline int no_colour(const Coding& coding) { return (coding.white + 1) / 2; }

/// A channel of the pixel with these numbers less those of black and of no colour: its value in 2^-13.
template <class Number>
DEFOCUS_FAST_HOST_DEVICE inline int channel_sum(const Coding& coding, int channel, Number luma, Number u, Number v) {
  const int sum = Number(coding.luma) * luma;
  if (channel == 0) return sum + Number(coding.red_v) * v;
  if (channel == 1) return sum + Number(coding.green_u) * u + Number(coding.green_v) * v;
  return sum + Number(coding.blue_u) * u;
}

/// A uint8 value is rounded to nearest, a float one is not and lies in [0, 1].
template <class Value>
DEFOCUS_FAST_HOST_DEVICE inline Value decoded(const Coding& coding, int sum) {
  if constexpr (std::is_same_v<Value, float>) {
    const int most = coding.white << coding_bits;
    return float(sum < 0 ? 0 : sum < most ? sum : most) / float(most);
  } else {
    const int value = (sum + (1 << (coding_bits - 1))) >> coding_bits;
    return Value(value < 0 ? 0 : value < 255 ? value : 255);
  }
}

}  // namespace defocus_fast
