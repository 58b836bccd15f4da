// SPDX-License-Identifier: Apache-2.0
// Formulas that the CPU stages and the CUDA stages must share to the letter. Host code.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "defocus_fast/estimator.hpp"

namespace defocus_fast {

/// ln of the first iteration's feedback coefficient over a distance of 1 (equations 14 and 21 of the domain transform).
inline double log_feedback(const FilterOptions& options) {
  const double n = options.iterations;
  return -std::sqrt(2.0) / (options.sigma_s * std::sqrt(3.0) * std::exp2(n - 1) / std::sqrt(std::exp2(2 * n) - 1));
}

/// The two filters of an image of this size: the one that makes the guide and the one that spreads the radii.
inline std::pair<FilterOptions, FilterOptions> filters(const PropagationOptions& options, int height, int width) {
  const double sigma_s = options.sigma_s == 0 ? std::min(height, width) / 8.0 : options.sigma_s;
  return {{options.guide_sigma_s, options.guide_sigma_r, options.iterations},
          {sigma_s, options.sigma_r, options.iterations}};
}

/// Weight of an edge with Labels::posterior is (1 - depth probability) * (floor / (floor + deviation))^2: inverse
/// variance, from the network's own deviation and what even a sure answer is off by (bins are 0.25 px apart).
inline constexpr float deviation_floor_px = 0.15f;

/// In the weight of a depth edge, in place of 1 - depth probability: its blur is that of its nearer side, which is
/// better than nothing where no pattern edge is in reach.
inline constexpr float depth_edge_weight = 0.02f;

}  // namespace defocus_fast
