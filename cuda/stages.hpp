// SPDX-License-Identifier: Apache-2.0
// The stages of a frame on the device, in the order in which they run, under the names of cpp/src/stages.hpp.
//
// Every function enqueues on one stream and returns: no allocation, no synchronisation, no copy to the host, so a
// frame can be captured into a CUDA graph. All pointers and views are device memory. Arguments are valid: they were
// checked where the caller's values came in.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "arena.hpp"
#include "defocus_fast/estimator.hpp"
#include "networks.hpp"

namespace defocus_fast::cuda {

/// Length of a list in device memory; kernels are launched for the capacity and read it there.
struct Count {
  std::int32_t found;
  std::int32_t kept;  // min(found, capacity)
};

/// Edge pixels in row-major order.
struct EdgeList {
  std::int32_t capacity = 0;
  std::int32_t* edges = nullptr;  // (capacity, 2) row and column
  Count* count = nullptr;         // found > kept after a frame: the last found - kept edges were dropped
};

// ---- canny.cu

/// Bit for bit the CPU's edges: uint8 pictures compute in double, float32 pictures in float with sums in double.
class EdgeDetector {
 public:
  /// `options.smoothing` must hold the weights of the smoothing kernel.
  EdgeDetector(int height, int width, const CannyOptions& options, std::int32_t edge_capacity, Arena& arena);
  EdgeDetector(const EdgeDetector&) = delete;
  EdgeDetector& operator=(const EdgeDetector&) = delete;

  /// mask[y * width + x] = 1 at edges, else 0.
  void detect_edges(const ImageView& image, std::uint8_t* mask, Stream stream);
  /// Lists the pixels where mask is not 0.
  void list_edges(const std::uint8_t* mask, Stream stream);
  const EdgeList& edges() const { return edges_; }

 private:
  template <class T>
  void thin(const ImageView& image, Stream stream);

  const int height_, width_;
  const std::vector<double> weights_;
  const double low_, high_;
  double* values_ = nullptr;   // (height, width) of T, then the same smoothed
  double* columns_ = nullptr;  // (height, width) of T smoothed along y, then (1 + height * width) int of hysteresis
  int* counts_ = nullptr;
  EdgeList edges_;
};

// ---- patches.cu: between the picture, the networks' inputs and outputs, and the edges

/// Some of the edges, as indices into their list, in order.
struct Selection {
  std::int32_t capacity = 0;
  std::int32_t* indices = nullptr;  // (capacity)
  Count* count = nullptr;
};

/// What the networks say about the edges; arrays over edges have the list's capacity.
struct Answers {
  float* depth_probability = nullptr;     // in [0, 1]
  float* radii = nullptr;                 // px, by Labels; 0 at depth edges
  float* radius_deviation = nullptr;      // px, standard deviation of the radius; 0 at depth edges
  float* radius_probability = nullptr;    // of the most probable level; 0 at depth edges
  float* level_probabilities = nullptr;   // (edges, levels), may be null; rows of 0 at depth edges
  std::uint8_t* pattern_edges = nullptr;  // (height, width)
  std::uint8_t* depth_edges = nullptr;    // (height, width)
};

class TileSelector {
 public:
  TileSelector(std::int32_t edge_capacity, std::int32_t tile_capacity, Arena& arena);
  TileSelector(const TileSelector&) = delete;
  TileSelector& operator=(const TileSelector&) = delete;

  /// Selects the edges in the tile. With `depth_probability` (may be null) only those of at most `depth_threshold`.
  void select_edges(const EdgeList& edges, int y0, int x0, int tile_height, int tile_width,
                    const float* depth_probability, double depth_threshold, Stream stream);
  const Selection& selection() const { return selection_; }

 private:
  int* counts_ = nullptr;
  Selection selection_;
};

/// Sets the answers about all edges to 0, the mask of pattern edges to `mask` and that of depth edges to 0.
void clear_answers(const std::uint8_t* mask, int height, int width, const EdgeList& edges, int levels,
                   const Answers& answers, Stream stream);

/// The tile at (y0, x0) and 20 px around it -> (tile_height + 40, tile_width + 40, 3).
void extract_tile(const ImageView& image, int y0, int x0, int tile_height, int tile_width, float* tile, Stream stream);

/// The three crops around the selected edges [first, first + batch) -> (batch, n, n, 3) for n = 41, 27, 15.
/// Rows beyond the selection's end are left as they are; so it is with the other functions of a batch.
void extract_patches(const ImageView& image, const EdgeList& edges, const Selection& selection, int first, int batch,
                     int crop_offset, const std::array<float*, 3>& crops, Stream stream);

/// out = relu(U[c + 3p] + V[c + p]) -> (batch, 5, 5, channels) of the selected edges [first, first + batch).
/// U and V: trunk.onnx's outputs on the tile at (y0, x0), channels last: (tile_height + 12, tile_width + 12, channels),
/// float or IEEE binary16.
struct Features {
  const void* u;
  const void* v;
  int tile_width;
  int channels;
};
void fuse_float(const Features& features, int y0, int x0, const EdgeList& edges, const Selection& selection, int first,
                int batch, float* out, Stream stream);
void fuse_half(const Features& features, int y0, int x0, const EdgeList& edges, const Selection& selection, int first,
               int batch, void* out, Stream stream);

/// E-NET's (batch, 2) probabilities of the selected edges -> probability of a depth edge, and the two masks.
void classify(const float* probabilities, int width, double depth_threshold, const EdgeList& edges,
              const Selection& selection, int first, int batch, const Answers& answers, Stream stream);
/// B-NET's (batch, levels) probabilities of the selected edges -> radius, its deviation, the best level's probability.
/// At most 64 levels; `levels` is host memory.
void estimate(const float* probabilities, const std::vector<float>& levels, Labels labels, const Selection& selection,
              int first, int batch, const Answers& answers, Stream stream);

// ---- domain_transform.cu

class DomainTransform {
 public:
  DomainTransform(int height, int width, Arena& arena);
  DomainTransform(const DomainTransform&) = delete;
  DomainTransform& operator=(const DomainTransform&) = delete;

  /// (height, width) float without gaps, i in [0, 3).
  float* signal(int i) const { return signals_[std::size_t(i)]; }
  /// Loads the picture's channels into the signals: uint8 divided by 255, float as it is.
  void load(const ImageView& image, Stream stream);
  /// Sets the coefficients from the first `channels` (1 or 3) signals. `slope` multiplies the sum over channels of
  /// |I'|; `depth` (height, width) may be null.
  void set_feedback(int channels, double slope, const FilterOptions& options, const std::uint8_t* depth, double psi,
                    Stream stream);
  /// Filters the first `count` (1 to 3) signals in place.
  void filter(int count, int iterations, Stream stream);

  /// Section III-C: makes the guide from the picture and sets the coefficients of the final filter. Then the caller
  /// calls seed() and spread().
  void guide(const ImageView& image, const std::uint8_t* depth, const PropagationOptions& options, Stream stream);
  /// Weights of the pattern edges into signal 1, their radii times these into signal 0, the mean radius for spread().
  void seed(const EdgeList& edges, const Answers& answers, Labels labels, Stream stream);
  /// out = F(weighted radii) / F(weights); the mean radius where F(weights) is below the smallest normal float.
  void spread(const PropagationOptions& options, const MapView& out, Stream stream);

 private:
  const int height_, width_;
  float *vx_ = nullptr, *vy_ = nullptr, *mean_ = nullptr;
  std::array<float*, 3> signals_{};
};

/// Blur map from the radii of the edges; those of radius 0 are no pattern edges.
/// Where no pattern edge is in reach: their mean radius; 0 if there is none at all.
void propagate(DomainTransform& transform, const ImageView& image, const PropagationOptions& options,
               const EdgeList& edges, const Answers& answers, Labels labels, const MapView& out, Stream stream);

}  // namespace defocus_fast::cuda
