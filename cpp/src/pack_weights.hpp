// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
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

/// WinogradConvolution::weights of value(output, source, k, input), k in [0, 9).
template <class Value>
std::vector<float> winograd_weights(int outputs, int sources, int inputs, int padded_inputs, const Value& value) {
  constexpr std::size_t side = 6;
  // [1, p, p^2] over the product of p's distances to the other points, which are 0, +-sqrt(1/2) and +-sqrt(2).
  const double a = std::sqrt(0.5), b = std::sqrt(2.0);
  const double g[side][3] = {{1, 0, 0},
                             {-2.0 / 3, -2.0 / 3 * a, -1.0 / 3},
                             {-2.0 / 3, 2.0 / 3 * a, -1.0 / 3},
                             {1.0 / 6, b / 6, 1.0 / 3},
                             {1.0 / 6, -b / 6, 1.0 / 3},
                             {0, 0, 1}};
  std::vector<float> all;
  for (std::size_t i = 0; i < side; ++i)
    for (std::size_t j = 0; j < side; ++j) {
      const auto packed = pack_weights<float>(outputs, sources, inputs, padded_inputs,
                                              [&](std::size_t o, std::size_t s, std::size_t c) {
                                                double sum = 0;
                                                for (std::size_t k = 0; k < 9; ++k)
                                                  sum += g[i][k / 3] * g[j][k % 3] * double(value(o, s, k, c));
                                                return float(sum);
                                              });
      all.insert(all.end(), packed.begin(), packed.end());
    }
  return all;
}

}  // namespace defocus_fast::cpu
