// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels.hpp"
#include "stored.hpp"

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

/// The points of Winograd's filtering; one more is infinity. Small rounding in bf16 and float was what chose them.
template <int side>
std::array<double, side + 1> winograd_points() {
  if constexpr (side == 3)
    return {0.5, -0.5, 1.5, -1.5};
  else
    return {0, std::sqrt(0.5), -std::sqrt(0.5), std::sqrt(2.0), -std::sqrt(2.0)};
}

/// WinogradConvolution::weights of value(output, source, k, input), k in [0, 9).
template <class T, int side, class Value>
std::vector<T> winograd_weights(int outputs, int sources, int inputs, int padded_inputs, const Value& value) {
  // [1, p, p^2] over the product of p's distances to the other points.
  std::array<std::array<double, 3>, side + 2> g{};
  const auto points = winograd_points<side>();
  for (std::size_t i = 0; i < points.size(); ++i) {
    double distances = 1;
    for (std::size_t k = 0; k < points.size(); ++k)
      if (k != i) distances *= points[i] - points[k];
    g[i] = {1 / distances, points[i] / distances, points[i] * points[i] / distances};
  }
  g.back() = {0, 0, 1};
  std::vector<T> all;
  for (const auto& vertical : g)
    for (const auto& horizontal : g) {
      const auto packed =
          pack_weights<T>(outputs, sources, inputs, padded_inputs, [&](std::size_t o, std::size_t s, std::size_t c) {
            double sum = 0;
            for (std::size_t k = 0; k < 9; ++k) sum += vertical[k / 3] * horizontal[k % 3] * double(value(o, s, k, c));
            return float(sum);
          });
      all.insert(all.end(), packed.begin(), packed.end());
    }
  return all;
}

}  // namespace defocus_fast::cpu
