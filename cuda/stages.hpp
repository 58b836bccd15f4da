// SPDX-License-Identifier: Apache-2.0
// The stages of a frame on the device, in the order in which they run, under the names of cpp/src/stages.hpp.
//
// Every function enqueues on one stream and returns: no allocation, no synchronisation, no copy to the host, so a
// frame can be captured into a CUDA graph. All pointers and views are device memory. Arguments are valid: they were
// checked where the caller's values came in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../cpp/src/model.hpp"
#include "arena.hpp"
#include "defocus_fast/estimator.hpp"
#include "defocus_fast/networks.hpp"

namespace defocus_fast::cuda {

/// Edge pixels in row-major order.
struct EdgeList {
  std::int32_t capacity = 0;
  std::int32_t* edges = nullptr;  // (capacity, 2) row and column
  EdgeCount* count = nullptr;     // kernels are launched for the capacity and read the length here
};

// ---- canny.cu

/// Throws CudaError if this build has no kernels for the current GPU.
void find_kernels();

/// Bit for bit the CPU's edges: uint8 images compute in double, float32 images in float with sums in double.
class EdgeDetector {
 public:
  /// `options.smoothing` must hold the weights of the smoothing kernel.
  EdgeDetector(int height, int width, const CannyOptions& options, std::int32_t edge_capacity, Arena& arena);
  EdgeDetector(const EdgeDetector&) = delete;
  EdgeDetector& operator=(const EdgeDetector&) = delete;

  /// mask[y * width + x] = 1 at edges, else 0.
  void detect_edges(const ImageView& image, std::uint8_t* mask, Stream stream);
  /// The same from the caller's mask.
  void copy_edges(const MaskView& edges, std::uint8_t* mask, Stream stream);
  /// Keeps the edges whose row and column are multiples of `stride`.
  void keep_grid(int stride, std::uint8_t* mask, Stream stream);
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

// ---- patches.cu: between the image, the networks' inputs and outputs, and the edges

/// What the networks say about the edges; arrays over edges have the list's capacity.
struct Answers {
  float* depth_probability = nullptr;     // in [0, 1]
  float* radii = nullptr;                 // px, by Labels; at depth edges that of the nearer side
  float* radius_std = nullptr;            // px, standard deviation of the radius
  float* radius_probability = nullptr;    // of the most probable bin
  float* bin_probabilities = nullptr;     // (capacity, bins), may be null
  std::uint8_t* pattern_edges = nullptr;  // (height, width)
  std::uint8_t* depth_edges = nullptr;    // (height, width)
};

/// Until the edges are classified, all of them stand in the mask of pattern edges; none has a depth probability.
void clear_answers(int height, int width, const EdgeList& edges, const Answers& answers, Stream stream);

/// Pixels [y0, y0 + height) x [x0, x0 + width), which may lie outside the image -> (3, height, width).
void extract_tile(const ImageView& image, int y0, int x0, int height, int width, TensorType type, void* out,
                  Stream stream);

/// The three crops around edges [first, first + batch) -> (batch, 3, n, n) for n of crop_sizes. Rows beyond the last
/// edge are left as they are.
void extract_patches(const ImageView& image, int crop_offset, const EdgeList& edges, int first, int batch,
                     TensorType type, const std::array<std::byte*, 3>& crops, Stream stream);

/// The trunk's outputs for a head: (tiles, channels, rows, columns) of every tile of the image.
/// tip22: U and V, with 6 px around the tile. cells: u has a tile's cells.
struct Features {
  const void* u = nullptr;
  const void* v = nullptr;
  int tiles_across = 0, tile_height = 0, tile_width = 0;  // px
  int channels = 0, rows = 0, columns = 0;
  std::ptrdiff_t tile_pitch = 0;  // elements from tile to tile
};

/// Input of a head for edges [first, first + batch). tip22: relu(U[c + 3p] + V[c + p]) -> (batch, channels, 5, 5);
/// cells: the edge's cell -> (batch, channels). Rows beyond the last edge are left as they are.
void gather(Architecture architecture, const Features& features, const EdgeList& edges, int first, int batch,
            TensorType type, void* out, Stream stream);

/// E-NET's (batch, 2) probabilities of edges [first, first + batch) -> probability of a depth edge, and the two masks.
void classify(const void* probabilities, TensorType type, int width, double depth_threshold, const EdgeList& edges,
              int first, int batch, const Answers& answers, Stream stream);
/// B-NET's (batch, bins) probabilities -> radius, its deviation, the best bin's probability.
/// At most `most_bins` bins; `bins` is host memory.
inline constexpr std::size_t most_bins = 64;
void estimate(const void* probabilities, TensorType type, const std::vector<float>& bins, Labels labels,
              const EdgeList& edges, int first, int batch, const Answers& answers, Stream stream);

// ---- domain_transform.cu

/// BlurMap::expected_error, if out.data is not null.
struct ExpectedError {
  MapView out;
  float floor = 0, slope = 1;  // of the model
  float unknown = 0;           // px, deviation of a map without any edge
};

/// Of all edges, for pixels that none reaches.
struct Fallback {
  float mean, deviation;
};

/// Over the edges of one block of a kernel.
struct SeedSums {
  double radii, weights, squares;
};
inline constexpr int seed_blocks = 256;

class DomainTransform {
 public:
  DomainTransform(int height, int width, Arena& arena);
  DomainTransform(const DomainTransform&) = delete;
  DomainTransform& operator=(const DomainTransform&) = delete;

  /// (height, width) float without gaps, i in [0, 3).
  float* signal(int i) const { return signals_[std::size_t(i)]; }
  /// Loads the image's channels into the signals: uint8 divided by 255, float as it is.
  void load(const ImageView& image, Stream stream);
  /// Sets the coefficients from the first `channels` (1 or 3) signals. `slope` multiplies the sum over channels of
  /// |I'|; `depth` (height, width) may be null.
  void set_feedback(int channels, double slope, const FilterOptions& options, const std::uint8_t* depth, double psi,
                    Stream stream);
  /// Filters the first `count` (1 to 3) signals in place.
  void filter(int count, int iterations, Stream stream);

  /// Section III-C: makes the guide from the image and sets the coefficients of the final filter. Then the caller
  /// calls seed() and spread().
  void guide(const ImageView& image, const std::uint8_t* depth, const PropagationOptions& options, Stream stream);
  /// Weights of the edges into signal 1, these times radius into signal 0 and, for the expected error, times the mean
  /// square of the radius into signal 2; the means for spread().
  void seed(const EdgeList& edges, const Answers& answers, Labels labels, const ExpectedError& error, Stream stream);
  /// out = F(weighted radii) / F(weights) and the expected error from the deviation sqrt(F(squares) / F(weights) -
  /// out^2); the means where F(weights) is below the smallest normal float.
  void spread(const PropagationOptions& options, const MapView& out, const ExpectedError& error, Stream stream);

 private:
  const int height_, width_;
  float *vx_ = nullptr, *vy_ = nullptr;
  SeedSums* seed_sums_ = nullptr;
  Fallback* fallback_ = nullptr;
  std::array<float*, 3> signals_{};
};

/// Blur map from the edges' radii. Where no edge is in reach: their mean radius and deviation; 0 and `unknown` if there
/// is none at all.
void propagate(DomainTransform& transform, const ImageView& image, const PropagationOptions& options,
               const EdgeList& edges, const Answers& answers, Labels labels, const MapView& out,
               const ExpectedError& error, Stream stream);

}  // namespace defocus_fast::cuda
