// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace defocus_fast::cpu {

/// Calls use(i) for each of the first n bytes of `mask` that is 1; the others are 0. Most of a mask is 0, and eight
/// bytes of it are passed over at once.
template <class Use>
void for_marked(const std::uint8_t* mask, int n, const Use& use) {
  static_assert(std::endian::native == std::endian::little);
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, mask + i, sizeof eight);
    for (; eight != 0; eight &= eight - 1) use(i + std::countr_zero(eight) / 8);
  }
  for (; i < n; ++i)
    if (mask[i]) use(i);
}

}  // namespace defocus_fast::cpu
