// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one edge and of one pixel, which the CPU stages and the CUDA stages share to the letter; the stages
// loop over it.
#pragma once

#include <algorithm>
#include <array>
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
/// better than nothing where no pattern edge is in reach. What is strongly blurred often has no other edges.
inline constexpr float depth_edge_weight = 0.02f, coarse_depth_edge_weight = 0.05f;

/// How much an edge counts where radii are spread. Posterior labels: inverse variance, from the network's own deviation
/// and the floor.
DEFOCUS_FAST_HOST_DEVICE inline float edge_weight(Labels labels, bool depth_edge, float depth_probability,
                                                  float radius_std, int octave) {
  if (labels == Labels::hard) return depth_edge ? 0.0f : 1.0f;
  const float certainty = radius_std_floor / (radius_std_floor + radius_std);
  const float of_depth_edge = octave == 0 ? depth_edge_weight : coarse_depth_edge_weight;
  return (depth_edge ? of_depth_edge : 1.0f - depth_probability) * certainty * certainty;
}

inline constexpr float smallest_coarse_radius = 2.5f;  // px of the octave
inline constexpr float least_fine_weight = 1e-3f;      // where no coarser octave has an edge

/// [begin, end)
struct Range {
  int begin, end;
};
/// Rows (or columns) of the neighbouring octave, `finer` or coarser than that of the edge, whose edges are beside it.
DEFOCUS_FAST_HOST_DEVICE inline Range beside(int at, bool finer) {
  return finer ? Range{2 * at - 1, 2 * at + 3} : Range{at / 2 - 2, at / 2 + 3};
}

/// What the answer about an edge says to the neighbouring octaves. They are not asked about edges beside it which would
/// count nothing: a coarser one reads half the radius, a finer one twice, and in the first octave all sharp edges
/// count.
enum : std::uint8_t { is_read = 1, asks_coarser = 2, asks_finer = 4, is_sharp = 8 };
DEFOCUS_FAST_HOST_DEVICE inline std::uint8_t asks(float radius, float radius_std, int octave) {
  const bool too_sharp_for_coarser = radius + 2 * radius_std < 2 * smallest_coarse_radius;
  const bool too_sharp_for_finer = octave > 1 && radius + 2 * radius_std < smallest_coarse_radius / 2;
  const bool sharp = radius - 2 * radius_std <= smallest_coarse_radius;
  return std::uint8_t(is_read | (too_sharp_for_coarser ? 0 : asks_coarser) | (sharp ? is_sharp : 0) |
                      (sharp && !too_sharp_for_finer ? asks_finer : 0));
}

/// What an edge says to the next octave that is not asked about itself, after what was `said` beside it.
DEFOCUS_FAST_HOST_DEVICE inline std::uint8_t passes_on(std::uint8_t said, bool finer) {
  return std::uint8_t(is_read | (!finer && (said & is_sharp) ? asks_finer : 0));
}

/// The octave that is read first; each other one is told by its neighbour what need not be read.
DEFOCUS_FAST_HOST_DEVICE inline int first_read(int count) { return count < 3 ? count - 1 : 2; }
DEFOCUS_FAST_HOST_DEVICE inline int octave_of_step(int step, int count) {
  const int first = first_read(count);
  return step <= first ? first - step : step;
}
DEFOCUS_FAST_HOST_DEVICE inline int told_by(int octave, int count) {
  return octave < first_read(count) ? octave + 1 : octave - 1;
}

/// A depth edge of a coarse octave keeps radii from spreading across it, unless a finer one knows better.
DEFOCUS_FAST_HOST_DEVICE inline bool is_barrier(float radius) { return radius > smallest_coarse_radius; }

/// Where the centre of an octave's pixel is in the image, or in a finer octave.
DEFOCUS_FAST_HOST_DEVICE inline Pixel in_finer(Pixel pixel, int scale) {
  return {pixel.y * scale + scale / 2, pixel.x * scale + scale / 2};
}

/// Calls use(pixel) for the axes of a coarser octave's pixel with this centre: whatever way the map takes across it, it
/// crosses one of them once.
template <class Use>
DEFOCUS_FAST_HOST_DEVICE void for_barrier(Pixel centre, int scale, const Use& use) {
  for (int k = -(scale / 2); k < scale - scale / 2; ++k) {
    use(Pixel{centre.y + k, centre.x});
    use(Pixel{centre.y, centre.x + k});
  }
}

/// A coarse depth edge is walled in by its own barrier: a quarter of its weight is put as many px of the octave to each
/// side. With learned distances, which tell the sides apart, those of the first octave are put aside too, and all of
/// them by at least as many px of the octave in which radii are spread.
DEFOCUS_FAST_HOST_DEVICE inline bool is_beside_barrier(bool depth_edge, int octave, bool learned) {
  return depth_edge && (octave > 0 || learned);
}
DEFOCUS_FAST_HOST_DEVICE inline int beside_barrier(int octave, int spread, bool learned) {
  return learned && octave < spread ? 2 : (2 << octave) >> spread;
}
/// Where an edge's weight is put.
enum class Side { here, right, left, below, above };

/// Where an octave's pixel is put in the octave in which radii are spread, of this height and width.
DEFOCUS_FAST_HOST_DEVICE inline Pixel put(Pixel pixel, int octave, int spread, int height, int width) {
  if (octave > spread) return in_finer(pixel, 1 << (octave - spread));
  const int y = pixel.y >> (spread - octave), x = pixel.x >> (spread - octave);
  return {y < height ? y : height - 1, x < width ? x : width - 1};
}

/// Rows (or columns) of an octave, of which there are `count`, that share pixels of the image with row `at` of octave
/// `spread`, which has `spread_count`.
DEFOCUS_FAST_HOST_DEVICE inline Range shared_with(int at, int spread_count, int spread, int count, int octave) {
  if (at < 0 || at >= spread_count) return {0, 0};
  if (octave > spread) {
    const int y = at >> (octave - spread);
    return {y, y + int(y < count)};
  }
  const int finer = spread - octave;
  return {at << finer, at + 1 == spread_count ? count : (at + 1) << finer};
}

/// Whether the centres of a coarser octave's pixels are in row (or column) `at`; always true for a finer octave.
DEFOCUS_FAST_HOST_DEVICE inline bool has_centres(int at, int spread, int octave) {
  return octave <= spread || in_finer({at >> (octave - spread), 0}, 1 << (octave - spread)).y == at;
}

/// Of these rows (or columns), those whose edges are put into row `at`.
DEFOCUS_FAST_HOST_DEVICE inline Range put_into(int at, int spread_count, int spread, int count, int octave) {
  return has_centres(at, spread, octave) ? shared_with(at, spread_count, spread, count, octave) : Range{0, 0};
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

/// What little weight reaches a pixel says little about it, however much the edges agree that it comes from. So the
/// mixture's deviation is mixed with that of a radius which is not known, as if that had a weight of its own, `doubt`.
/// The two numbers and a model's error_slope were fitted together on validation scenes.
inline constexpr float unknown_share = 0.58f;     // deviation of what is not known, of the map + 1 px
inline constexpr double doubt_of_pixel = 9.2e-5;  // weight, of a pixel of the image
DEFOCUS_FAST_HOST_DEVICE inline float deviation_at(const Seed& filtered, float mean, float doubt) {
  const float variance = filtered.square - filtered.weight * mean * mean, unknown = unknown_share * (mean + 1);
  return std::sqrt(((variance > 0 ? variance : 0.0f) + doubt * unknown * unknown) / (filtered.weight + doubt));
}
/// Where no edge reaches the pixel.
DEFOCUS_FAST_HOST_DEVICE inline float deviation_out_of_reach(const Mixture& of_all) {
  const float unknown = unknown_share * (of_all.mean + 1);
  return of_all.deviation > unknown ? of_all.deviation : unknown;
}

/// BlurMap::expected_error, from the mixture's deviation.
DEFOCUS_FAST_HOST_DEVICE inline float expected_error(float floor, float slope, float deviation) {
  const float scaled = slope * deviation;
  return std::sqrt(floor * floor + scaled * scaled);
}

/// A pixel of the image between two of the octave in which radii are spread.
struct Between {
  int before, after;
  float share;  // of the one after
};
DEFOCUS_FAST_HOST_DEVICE inline Between between(int at, int octave, int count) {
  const int twice = 2 << octave, from = 2 * at + 1 - (1 << octave);  // of the first centre, in 1 / twice
  const int before = from >> (octave + 1), last = count - 1;
  const float share = float(from - before * twice) / float(twice);
  return {before < 0 ? 0 : before > last ? last : before, before + 1 > last ? last : before + 1, share};
}

// ---- learned distances: a network says where radii may spread (training/propagation.py)

namespace learned {

/// The network answers for regions of 8 x 8 px of the octave in which radii are spread.
inline constexpr int region = 8, region_octave = 3;
DEFOCUS_FAST_HOST_DEVICE inline int regions(int length) { return (length + region - 1) / region; }

/// Octaves of edges that are told apart: the one before that in which radii are spread, and so on; the last stands for
/// all that are coarser.
inline constexpr int groups = 5;
DEFOCUS_FAST_HOST_DEVICE inline int group(int octave, int spread) {
  const int from = octave - spread + 1;
  return from < 0 ? 0 : from < groups ? from : groups - 1;
}

/// What the network reads of a region: seven values per group of edges, contrasts of three bands, shares of barriers of
/// the first group and of coarser ones, the image's size, and the guide's differences along rows and along columns.
inline constexpr int of_group = 7, bands = 3, edge_inputs = of_group * groups, inputs = edge_inputs + bands + 2 + 1 + 2;
/// Its layers: 3 x 3 convolutions with these dilations and ReLU, and one of 1 x 1.
inline constexpr int width = 48;
inline constexpr std::array<int, 6> dilations{1, 2, 4, 8, 4, 2};
/// To the biases of this layer a matrix adds what the image is like: its context, which is the mean over all regions of
/// each value of the layer before, and then the maximum of each.
inline constexpr int context_layer = 3, context = 2 * width;
/// Sums over regions are made in pieces of so many regions, and added in the order of the pieces: they do not depend on
/// the number of threads.
inline constexpr int piece = 96;
/// Of one of the layer's values, none of which is negative.
struct Summary {
  float sum, most;

  DEFOCUS_FAST_HOST_DEVICE void add(const Summary& other) {
    sum += other.sum;
    most = other.most > most ? other.most : most;
  }
};

/// Barriers of the first group and of coarser ones, as bits of a pixel.
enum : std::uint8_t { is_fine_barrier = 1, is_coarse_barrier = 2 };
DEFOCUS_FAST_HOST_DEVICE inline std::uint8_t barrier_bit(int group) {
  return group > 0 ? is_coarse_barrier : is_fine_barrier;
}

inline constexpr int sides = 4;  // of a depth edge

/// What it answers: logarithms of factors of the guide's differences, of distances in px that are added along rows and
/// along columns, and of factors of psi at barriers of the first group and of coarser ones, of the weights of the kinds
/// of edges and of the expected error.
enum Output {
  gain,
  across,
  down,
  fine_barrier,
  coarse_barrier,
  weight,
  weight_of_depth_edges = weight + 3,
  error = weight_of_depth_edges + 2 * sides,
  outputs
};

/// The kinds: pattern edges of the first group, the second and coarser ones; each side of depth edges of the first
/// group and of coarser ones. An outline is as soft as the layer that is nearer, which lies on one side of it.
DEFOCUS_FAST_HOST_DEVICE inline int kind(int group, Side side) {
  if (side == Side::here) return weight + (group < 2 ? group : 2);
  return weight_of_depth_edges + (group > 0 ? sides : 0) + int(side) - int(Side::right);
}

DEFOCUS_FAST_HOST_DEVICE inline float factor(float logarithm) {
  constexpr float limit = 8;
  return std::exp(logarithm < -limit ? -limit : logarithm > limit ? limit : logarithm);
}

/// That of psi at a pixel with these bits.
DEFOCUS_FAST_HOST_DEVICE inline float factor_of_barrier(std::uint8_t bits, float fine, float coarse) {
  const float of_fine = bits & is_fine_barrier ? fine : 0.0f, of_coarse = bits & is_coarse_barrier ? coarse : 0.0f;
  return of_fine > of_coarse ? of_fine : of_coarse;
}

/// Of the edges of one group in a region.
struct EdgeSums {
  struct OfKind {
    float count, density, radius, deviation;
  };
  OfKind pattern, depth;
  float depth_probability;

  DEFOCUS_FAST_HOST_DEVICE void add(int octave, int spread, bool depth_edge, float radius, float radius_std,
                                    float probability) {
    const float coarser = std::exp2(float(octave - spread));
    OfKind& own = depth_edge ? depth : pattern;
    own.count += 1;
    own.density += coarser / region;  // as a share of a straight line's edges across the region
    own.radius += std::log2(radius * coarser + 0.25f);
    own.deviation += radius_std;
    depth_probability += probability;
  }
  DEFOCUS_FAST_HOST_DEVICE void write(float* out) const {
    const auto at_least_one = [](float count) { return count > 1 ? count : 1.0f; };
    for (const OfKind& own : {pattern, depth}) {
      *out++ = own.density < 2 ? own.density : 2.0f;
      *out++ = own.radius / at_least_one(own.count);
      *out++ = own.deviation / at_least_one(own.count);
    }
    *out = depth_probability / at_least_one(pattern.count + depth.count);
  }
};

/// How much contrast a region has in a band, from fine to coarse: the mean of the logarithms of the variance of four
/// pixels that become one. `grey(y, x)`: the region's pixels in [0, 1].
template <class Grey>
DEFOCUS_FAST_HOST_DEVICE float contrast(int band, const Grey& grey) {
  constexpr float faint = 2e-6f;  // what rounding to 1 / 255 leaves
  const int side = 1 << band;     // px of what becomes one pixel before
  float logarithms = 0;
  for (int top = 0; top < region; top += 2 * side)
    for (int left = 0; left < region; left += 2 * side) {
      float sum = 0, squares = 0;
      for (int k = 0; k < 4; ++k) {
        float mean = 0;
        for (int i = 0; i < side * side; ++i)
          mean += grey(top + k / 2 * side + i / side, left + k % 2 * side + i % side);
        mean /= float(side * side);
        sum += mean;
        squares += mean * mean;
      }
      const float variance = squares * 0.25f - sum * sum * 0.0625f;
      logarithms += std::log10((variance > 0 ? variance : 0.0f) + faint);
    }
  const int blocks = region / (2 * side);
  return (logarithms / float(blocks * blocks) + 4) / 1.5f;
}

/// How large the image is: radii grow with it. Of the octave in which radii are spread; as far as training scenes go.
DEFOCUS_FAST_HOST_DEVICE inline float size(int height, int width) {
  constexpr float smallest = 176, largest = 600, middle = 300;  // px
  const float shorter = float(height < width ? height : width);
  return std::log2((shorter < smallest ? smallest : shorter > largest ? largest : shorter) / middle);
}

/// What a region's pixels have on average: shares of barriers and differences of the guide; between them the size.
DEFOCUS_FAST_HOST_DEVICE inline void write_rest(float fine_barriers, float coarse_barriers, float size, float across,
                                                float down, float* inputs) {
  constexpr float of_guide = 5;
  float* const out = inputs + edge_inputs + bands;
  out[0] = fine_barriers;
  out[1] = coarse_barriers;
  out[2] = size;
  out[3] = of_guide * across;
  out[4] = of_guide * down;
}

/// The answers, (outputs, rows, columns); between the regions' centres factors change linearly.
struct Factors {
  const float* values = nullptr;  // null: all are as without the network
  int rows = 0, columns = 0;

  DEFOCUS_FAST_HOST_DEVICE const float* plane(int output) const {
    return values + std::ptrdiff_t(output) * rows * columns;
  }
  DEFOCUS_FAST_HOST_DEVICE float at(int output, int y, int x) const {
    const Between above = between(y, region_octave, rows), beside = between(x, region_octave, columns);
    const float *upper = plane(output) + std::ptrdiff_t(above.before) * columns,
                *lower = plane(output) + std::ptrdiff_t(above.after) * columns;
    const float left = upper[beside.before] + above.share * (lower[beside.before] - upper[beside.before]);
    const float right = upper[beside.after] + above.share * (lower[beside.after] - upper[beside.after]);
    return left + beside.share * (right - left);
  }
};

}  // namespace learned

// ---- where the pixels of coarse octaves and cells lie

/// The octaves of an image whose grid is anchored at its strongest edge are those of a canvas that is `period` - 1 px
/// larger, on which the image, mirrored at its borders, is put so that this edge's pixel is at a multiple of the period
/// (Chaman and Dokmanic 2021 choose the samples of strided convolutions by their values, for the same reason). A period
/// of 1 px is no canvas.
DEFOCUS_FAST_HOST_DEVICE inline Pixel pad_of(Pixel strongest, int period) {
  return {(period - strongest.y % period) % period, (period - strongest.x % period) % period};
}
/// To the image's pixel, or to the nearest one, from the canvas's.
DEFOCUS_FAST_HOST_DEVICE inline Pixel in_image(Pixel pixel, Pixel pad, int height, int width) {
  const auto nearest = [](int at, int length) { return at < 0 ? 0 : at < length ? at : length - 1; };
  return {nearest(pixel.y - pad.y, height), nearest(pixel.x - pad.x, width)};
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

/// What an octave's edges are detected by. Weak edges of fine octaves are as good as others; in large images coarser
/// octaves know as much without them. In a coarse octave the gradual change of a clear sky would pass for an edge, of a
/// radius as large as can be read.
inline CannyOptions canny_of(const Options& options, int octave, int height, int width) {
  constexpr int first_plain = 2;
  constexpr double least = 0.4, plain_side = 1080;  // px
  const double finest = options.fine_thresholds.value_or(std::clamp(std::min(height, width) / plain_side, least, 1.0));
  const double factor = octave_count(height, width, options.octaves) == 1
                            ? 1.0
                            : std::pow(finest, std::max(first_plain - octave, 0) / double(first_plain));
  CannyOptions canny = options.canny;
  canny.low *= factor;
  canny.high *= factor;
  return canny;
}

/// In px of the image. Of octaves beyond the fourth the grid is not anchored: their canvas would cost too much.
inline int grid_period(int side_of_questions, int octaves) {
  constexpr int most_halves = 3;
  return octaves == 1 ? 1 : side_of_questions << std::min(octaves - 1, most_halves);
}

/// ln of the first iteration's feedback coefficient over a distance of 1 (equations 14 and 21 of the domain transform).
inline double log_feedback(const FilterOptions& options) {
  const double n = options.iterations;
  return -std::sqrt(2.0) / (options.sigma_s * std::sqrt(3.0) * std::exp2(n - 1) / std::sqrt(std::exp2(2 * n) - 1));
}

/// The propagation of images of one size, with all defaults filled in; distances in px of the octave.
struct Propagation {
  int octave;            // on whose pixels radii are spread
  FilterOptions guide;   // makes the guide
  FilterOptions spread;  // spreads the radii
  double psi;            // extra distance across a depth-edge pixel
  float doubt;           // weight, see deviation_at()
};

/// The paper's psi. With octaves it is a share of sigma_s: a barrier that is to hold in larger images has to grow with
/// the distances in them.
inline constexpr double paper_psi = 100, relative_psi = 4.5;
inline constexpr int smallest_spread = 500;  // px, shorter side of the third octave if radii are spread there

inline Propagation resolve(const GuideOptions& guide, const PropagationOptions& options, double sigma_r, int iterations,
                           int height, int width, int octaves) {
  const int n = options.iterations.value_or(iterations), shorter = std::min(height, width);
  const int octave = std::min(octaves - 1, shorter >> 2 >= smallest_spread ? 2 : 1);
  const double scale = 1 << octave, sigma_s = options.sigma_s.value_or(octaves == 1 ? shorter / 8.0 : shorter / 4.0);
  return {octave,
          {guide.sigma_s / scale, guide.sigma_r, n},
          {sigma_s / scale, options.sigma_r.value_or(sigma_r), n},
          options.psi.value_or(octaves == 1 ? paper_psi : relative_psi * sigma_s) / scale,
          float(doubt_of_pixel * scale * scale)};
}

}  // namespace defocus_fast
