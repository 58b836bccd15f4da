// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace defocus_fast {

/// A float as the networks store it: itself, or the nearest bf16 (ties to even) in uint16_t; in [0, 1] in 255 steps in
/// uint8_t; or the nearest integer in int8_t.
template <class T>
constexpr T stored(float value) {
  if constexpr (std::is_same_v<T, float>) return value;
  if constexpr (std::is_same_v<T, std::uint8_t>) return T(value * 255 + 0.5f);
  if constexpr (std::is_same_v<T, std::int8_t>) return T(std::lrint(value));
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return T((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace defocus_fast
