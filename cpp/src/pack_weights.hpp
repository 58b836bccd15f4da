// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "kernels.hpp"
#include "stages.hpp"

namespace defocus_fast::cpu {

/// Channels as the kernels store them.
inline int padded_features(int channels) { return (channels + feature_block - 1) / feature_block * feature_block; }

/// Convolution::weights of value(output, tap, input); zeros from `outputs` to a whole block and from `inputs` to
/// `padded_inputs`.
template <class T, class Value>
std::vector<Weight<T>> pack_weights(int outputs, int taps, int inputs, int padded_inputs, const Value& value) {
  constexpr std::size_t side_by_side = group<T>;
  const std::size_t rows = std::size_t(taps) * std::size_t(padded_inputs);
  std::vector<Weight<T>> packed(std::size_t(padded_features(outputs)) * rows);
  for (std::size_t o = 0; o < std::size_t(outputs); ++o)
    for (std::size_t tap = 0; tap < std::size_t(taps); ++tap)
      for (std::size_t c = 0; c < std::size_t(inputs); ++c) {
        const std::size_t row = o / feature_block * rows + tap * std::size_t(padded_inputs), lane = o % feature_block;
        const std::size_t begin = (row + c / side_by_side * side_by_side) * feature_block;
        packed[begin + lane * side_by_side + c % side_by_side] = stored<Weight<T>>(value(o, tap, c));
      }
  return packed;
}

}  // namespace defocus_fast::cpu
