// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one edge and of one pixel, which the CPU stages and the CUDA stages share to the letter; the stages
// loop over it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "defocus_fast/estimator.hpp"

#ifdef __CUDACC__
#define DEFOCUS_FAST_HOST_DEVICE __host__ __device__
#else
#define DEFOCUS_FAST_HOST_DEVICE
#endif

namespace defocus_fast {

// ---- the networks' answers about one edge

/// E-NET's probability makes the edge a depth edge.
DEFOCUS_FAST_HOST_DEVICE inline bool is_depth_edge(float depth_probability, double depth_threshold) {
  return double(depth_probability) > depth_threshold;
}

/// What B-NET says of one edge; see Edges.
struct Reading {
  float radius, radius_std, radius_probability;
};

/// From the probabilities of `count` radius bins.
template <class Probability>
DEFOCUS_FAST_HOST_DEVICE Reading read_bins(const Probability& probability, const float* radius_bins, int count,
                                           Labels labels) {
  int best = 0;
  float highest = probability(0);
  double mean = 0, square = 0;
  for (int i = 0; i < count; ++i) {
    const float p = probability(i);
    if (highest < p) {  // the first of equals
      highest = p;
      best = i;
    }
    mean += double(p) * radius_bins[i];
    square += double(p) * radius_bins[i] * radius_bins[i];
  }
  const double variance = square - mean * mean;
  return {labels == Labels::hard ? radius_bins[best] : float(mean), float(std::sqrt(variance > 0 ? variance : 0.0)),
          highest};
}

/// Even a sure answer is off by about this much, px (bins are 0.25 px apart).
inline constexpr float radius_std_floor = 0.15f;

/// In the weight of a depth edge, in place of 1 - depth probability: its blur is that of its nearer side, which is
/// better than nothing where no pattern edge is in reach.
inline constexpr float depth_edge_weight = 0.02f;

/// How much an edge counts where radii are spread. Posterior labels: inverse variance, from the network's own deviation
/// and the floor.
DEFOCUS_FAST_HOST_DEVICE inline float edge_weight(Labels labels, bool depth_edge, float depth_probability,
                                                  float radius_std) {
  if (labels == Labels::hard) return depth_edge ? 0.0f : 1.0f;
  const float certainty = radius_std_floor / (radius_std_floor + radius_std);
  return (depth_edge ? depth_edge_weight : 1.0f - depth_probability) * certainty * certainty;
}

inline constexpr float smallest_coarse_radius = 2.0f;  // px of the octave
inline constexpr float sharp_radius = 3.0f;        // px: below, twice as coarse a radius would be too small to count
inline constexpr float least_fine_weight = 1e-3f;  // where no coarser octave has an edge

/// What an octave says about an edge to the next coarser one, which is not asked where all edges nearby are sharp.
enum : std::uint8_t { read_sharp = 1, read_blurred = 2 };
DEFOCUS_FAST_HOST_DEVICE inline bool is_sharp(float radius, float radius_std) {
  return radius + 2 * radius_std < sharp_radius;
}

/// A depth edge of a coarse octave keeps radii from spreading across it, unless a finer one knows better.
DEFOCUS_FAST_HOST_DEVICE inline bool is_barrier(float radius) { return radius > smallest_coarse_radius; }

/// Where the centre of an octave's pixel is in the image.
DEFOCUS_FAST_HOST_DEVICE inline Pixel in_image(Pixel pixel, int scale) {
  return {pixel.y * scale + scale / 2, pixel.x * scale + scale / 2};
}

/// Calls use(pixel of the image) for the axes of an octave's pixel with this centre: whatever way the map takes across
/// it, it crosses one of them once.
template <class Use>
DEFOCUS_FAST_HOST_DEVICE void for_barrier(Pixel centre, int scale, const Use& use) {
  for (int k = -(scale / 2); k < scale - scale / 2; ++k) {
    use(Pixel{centre.y + k, centre.x});
    use(Pixel{centre.y, centre.x + k});
  }
}

/// How much an edge of an octave counts, by its radius in px of the octave. Small radii are read better in a finer one,
/// large ones in a coarser one, if there is any: `largest` is the model's largest radius. A coarse octave has fewer
/// edges for the same outline.
DEFOCUS_FAST_HOST_DEVICE inline float octave_weight(float radius, float largest, int octave, bool coarsest) {
  const auto ramp = [](float value) { return value < 0 ? 0.0f : value > 1 ? 1.0f : value; };
  const float fine_enough = octave == 0 ? 1.0f : ramp(radius - smallest_coarse_radius);
  const float coarse_enough =
      coarsest ? 1.0f : least_fine_weight + (1 - least_fine_weight) * ramp((largest - radius) / 1.5f);
  return fine_enough * coarse_enough * std::exp2(1.5f * float(octave));
}

// ---- what is spread

/// The three signals at one pixel: weight, and weight times the radius and times its mean square.
struct Seed {
  float weight, radius, square;
};

DEFOCUS_FAST_HOST_DEVICE inline Seed make_seed(float weight, float radius, float radius_std) {
  return {weight, weight * radius, weight * (radius * radius + radius_std * radius_std)};
}

/// Of the mixture of all edges' posteriors that reaches a pixel.
struct Mixture {
  float mean, deviation;  // px
};

/// Of all edges, from the sums of their seeds; `unknown` is the deviation without any.
DEFOCUS_FAST_HOST_DEVICE inline Mixture mixture_of_all(double weight, double radius, double square, float unknown) {
  if (!(weight > 0)) return {0, unknown};
  const double mean = radius / weight, variance = square / weight - mean * mean;
  return {float(mean), float(std::sqrt(variance > 0 ? variance : 0.0))};
}

inline constexpr float smallest_normal = std::numeric_limits<float>::min();
/// Whether edges reach a pixel whose filtered weight this is: what is smaller has lost its precision.
DEFOCUS_FAST_HOST_DEVICE inline bool is_reached(float weight) { return weight >= smallest_normal; }

DEFOCUS_FAST_HOST_DEVICE inline float mixture_deviation(const Seed& filtered, float mean) {
  const float variance = filtered.square / filtered.weight - mean * mean;
  return std::sqrt(variance > 0 ? variance : 0.0f);
}

/// BlurMap::expected_error, from the mixture's deviation.
DEFOCUS_FAST_HOST_DEVICE inline float expected_error(float floor, float slope, float deviation) {
  const float scaled = slope * deviation;
  return std::sqrt(floor * floor + scaled * scaled);
}

// ---- host only

/// Octaves of images of this size: none so small that all of it is near its border.
inline int octave_count(int height, int width, std::optional<int> wanted) {
  const int most = wanted.value_or(most_octaves);
  constexpr int smallest = 64;  // px, of the shorter side
  int count = 1;
  while (count < most && (std::min(height, width) >> count) >= smallest) ++count;
  return count;
}

/// ln of the first iteration's feedback coefficient over a distance of 1 (equations 14 and 21 of the domain transform).
inline double log_feedback(const FilterOptions& options) {
  const double n = options.iterations;
  return -std::sqrt(2.0) / (options.sigma_s * std::sqrt(3.0) * std::exp2(n - 1) / std::sqrt(std::exp2(2 * n) - 1));
}

/// The propagation of images of one size, with all defaults filled in.
struct Propagation {
  FilterOptions guide;   // makes the guide
  FilterOptions spread;  // spreads the radii
  double psi;            // extra distance across a depth-edge pixel
};

inline Propagation resolve(const GuideOptions& guide, const PropagationOptions& options, double sigma_r, int iterations,
                           int height, int width) {
  const int n = options.iterations.value_or(iterations);
  return {{guide.sigma_s, guide.sigma_r, n},
          {options.sigma_s.value_or(std::min(height, width) / 8.0), options.sigma_r.value_or(sigma_r), n},
          options.psi};
}

}  // namespace defocus_fast
