// SPDX-License-Identifier: Apache-2.0
// The stages of a frame on the device, in the order in which Estimator::run (estimator.cu) calls them: the table of
// contents of this folder. cpp/src/stages.hpp has the same for the CPU, under the same names.
//
// Every function enqueues on one stream and returns: no allocation, no synchronisation, no copy to the host, so a
// frame can be captured into a CUDA graph. All pointers and views are device memory. Arguments are valid: they were
// checked where the caller's values came in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../cpp/src/formulas.hpp"
#include "../cpp/src/model.hpp"
#include "arena.hpp"
#include "defocus_fast/estimator.hpp"
#include "defocus_fast/networks.hpp"

namespace defocus_fast::cuda {

// ---- detect_edges: canny.cu

/// Edge pixels in row-major order. The host does not know how many: kernels are launched for the capacity and read the
/// length here.
struct EdgeList {
  std::int32_t capacity = 0;
  Pixel* position = nullptr;    // (capacity); null: edges are counted only
  EdgeCount* count = nullptr;   // kept is at most the capacity
  int* before_block = nullptr;  // edges before each block of pixels, see compaction.hpp
};

/// What an octave is computed on; see pad_of().
struct Canvas {
  int height = 0, width = 0;   // px
  const Pixel* pad = nullptr;  // of the first octave, in device memory: from the canvas's corner to the image's

  DEFOCUS_FAST_HOST_DEVICE Pixel in_image(int y, int x) const {
    return pad ? Pixel{y - pad->y, x - pad->x} : Pixel{y, x};
  }
};

/// Throws CudaError if this build has no kernels for the current GPU.
void find_kernels();

/// Bit for bit the CPU's edges: uint8 images compute in double, float32 images in float with sums in double.
class EdgeDetector {
 public:
  /// `options.smoothing` must hold the weights of the smoothing kernel.
  EdgeDetector(int height, int width, const CannyOptions& options, Arena& arena);
  EdgeDetector(const EdgeDetector&) = delete;
  EdgeDetector& operator=(const EdgeDetector&) = delete;

  void detect_edges(const ImageView& image, Stream stream);
  /// The pad of the last image, by its strongest edge, the first one of equals.
  void place(int period, Pixel* pad, Stream stream);
  /// mask[y * canvas.width + x] = 1 at the edges of the last image, else 0.
  void write_mask(const Canvas& canvas, std::uint8_t* mask, Stream stream);

 private:
  template <class T>
  void thin(const ImageView& image, Stream stream);

  const int height_, width_;
  const std::vector<double> weights_;
  const double low_, high_;
  double* values_ = nullptr;   // (height, width) of T, then the same smoothed
  double* columns_ = nullptr;  // (height, width) of T smoothed along y, then (1 + height * width) int of hysteresis
  unsigned long long* strongest_ = nullptr;  // see key_of() in canny.cu
};

/// As EdgeDetector::write_mask from the caller's mask.
void copy_edges(const MaskView& edges, const Canvas& canvas, std::uint8_t* mask, Stream stream);
/// Keeps the edges whose row and column in the image are multiples of `stride`.
void keep_grid(int stride, const Canvas& canvas, std::uint8_t* mask, Stream stream);

/// What the networks say about the edges of a frame, or of an octave of it. They are asked questions: tip22 about every
/// edge by itself, cells about every cell, whose edges share the answer. The answers lie where the image has these
/// pixels or cells.
struct Answers {
  int height = 0, width = 0;              // px
  int side = 1;                           // px of a question's square: 1, or that of a cell
  std::uint8_t* pattern_edges = nullptr;  // (height, width); until the edges are classified, all of them
  std::uint8_t* depth_edges = nullptr;    // (height, width)
  std::uint8_t* said = nullptr;           // (height, width) of edges, see asks(); for the neighbouring octaves
  // (down, across)
  float* depth_probability = nullptr;   // in [0, 1]
  float* radius = nullptr;              // px, by Labels; at depth edges that of the nearer side
  float* radius_std = nullptr;          // px, standard deviation of the radius
  float* radius_probability = nullptr;  // of the most probable bin

  DEFOCUS_FAST_HOST_DEVICE int down() const { return (height + side - 1) / side; }
  DEFOCUS_FAST_HOST_DEVICE int across() const { return (width + side - 1) / side; }
  DEFOCUS_FAST_HOST_DEVICE std::ptrdiff_t pixel(int y, int x) const { return std::ptrdiff_t(y) * width + x; }
  /// The question of the edge at this pixel.
  DEFOCUS_FAST_HOST_DEVICE std::ptrdiff_t question(int y, int x) const {
    return std::ptrdiff_t(y / side) * across() + x / side;
  }
};

/// Means of 2 x 2 pixels -> an image of half the size, of the same type, without gaps. Its first pixel begins `pad`, in
/// device memory, before the image's, which is mirrored at its borders; null: with it.
void reduce(const ImageView& image, const Pixel* pad, const ImageView& half, void* out, Stream stream);
/// The edges that would count nothing, as the neighbouring octave says, are no edges any more.
void drop_edges(const Answers& neighbour, const Answers& answers, Stream stream);
/// Fills answers.said, which drop_edges() has begun to fill if the octave is not the `first` that is read.
void note_answers(const Answers& answers, int octave, bool first, Stream stream);

/// Counts the edges, and lists them if there is a list. Those for which it has no room are no edges any more.
void list_edges(const Answers& answers, const EdgeList& edges, Stream stream);

// ---- extract_features, and the inputs of the heads: patches.cu

/// Pixels [y0, y0 + height) x [x0, x0 + width) of the canvas, where it may be outside the image -> (3, height, width).
void extract_tile(const ImageView& image, const Canvas& canvas, int y0, int x0, int height, int width, TensorType type,
                  void* out, Stream stream);

/// Edges [first, first + size) of the list: a network is asked about them at a time.
struct Batch {
  EdgeList edges;
  int first, size;

  /// Whether there is a k-th.
  DEFOCUS_FAST_HOST_DEVICE bool has(std::int64_t k) const { return k < size && first + k < edges.count->kept; }
  DEFOCUS_FAST_HOST_DEVICE Pixel edge(std::int64_t k) const { return edges.position[first + k]; }
};

/// The three crops around the edges of a batch -> (size, 3, n, n) for n of crop_sizes. Rows beyond the last edge are
/// left as they are.
void extract_patches(const ImageView& image, const Canvas& canvas, int crop_offset, const Batch& batch, TensorType type,
                     const std::array<std::byte*, 3>& crops, Stream stream);

/// Features of tip22's trunk for a head, with 6 px around each tile.
struct Features {
  const void *u = nullptr, *v = nullptr;                  // (tiles, channels, rows, columns) of all of the image
  int tiles_across = 0, tile_height = 0, tile_width = 0;  // px
  int channels = 0, rows = 0, columns = 0;
  std::size_t tile_pitch = 0;  // elements from tile to tile
};

/// Input of a head of tip22 for the edges of a batch: relu(U[c + 3p] + V[c + p]) -> (size, channels, 5, 5). Rows beyond
/// the last edge are left as they are.
void gather(const Features& features, const Batch& batch, TensorType type, void* out, Stream stream);

// ---- classify_edges, estimate_radii: answers.cu

/// Cells of a tile in row-major order. The last tiles have cells that the image has not.
struct CellTile {
  int y, x;           // of the first cell
  int rows, columns;  // cells
};

// What was asked about, and `asked` below, is a Batch or a CellTile.
/// E-NET's (size, 2) probabilities -> depth probability.
template <class Asked>
void read_depth(const void* probabilities, TensorType type, const Asked& asked, const Answers& answers, Stream stream);
/// The depth edges leave the mask of pattern edges for their own.
void split_edges(double depth_threshold, const Answers& answers, Stream stream);

/// In host memory.
struct RadiusBins {
  static constexpr std::size_t most = 64;
  explicit RadiusBins(const std::vector<float>& bins);
  int count;
  float radii[most];  // px
};

/// B-NET's (size, bins) probabilities -> radius, its deviation, the best bin's probability. All of them are kept in
/// `bin_probabilities` (edges of the list, or cells; bins), unless it is null.
template <class Asked>
void read_radii(const void* probabilities, TensorType type, const RadiusBins& bins, Labels labels, const Asked& asked,
                const Answers& answers, float* bin_probabilities, Stream stream);

/// As BlurMap::edges.
struct EdgeArrays {
  Pixel* position = nullptr;
  float *depth_probability = nullptr, *radius = nullptr, *radius_std = nullptr, *radius_probability = nullptr;
  float* bin_probabilities = nullptr;
};

/// The answers edge by edge; `to` has room for all edges that were counted, and `bins` probabilities of each if
/// `bin_probabilities` is not null.
void collect_edges(const Answers& answers, const EdgeList& edges, const float* bin_probabilities, int bins,
                   const EdgeArrays& to, Stream stream);

// ---- propagate: domain_transform.cu

/// From fine to coarse: octave i is reduced by 2^i.
struct Octaves {
  static constexpr int most = most_octaves;
  int count = 0;  // that are read
  Answers answers[most];
  float largest_radius = 0;  // of the model, px of the octave
};
/// In the octave in which radii are spread: the depth edges of this and finer octaves, the axes of coarser ones; see
/// learned::barrier_bit().
void mark_barriers(const Octaves& octaves, int spread_octave, std::uint8_t* barriers, Stream stream);

/// BlurMap::expected_error, if out.data is not null.
struct ExpectedError {
  MapView out;
  float floor = 0, slope = 1;  // of the model
  float unknown = 0;           // px, deviation of a map without any edge
};

/// Of the pixels of one block of a kernel.
struct SeedSums {
  double weight, radius, square;
};
inline constexpr int seed_blocks = 256;

/// To the image from the octave in which radii are spread, linearly between the pixels' centres.
void enlarge(const MapView& values, int octave, const Pixel* pad, const MapView& out, Stream stream);

/// The network that says where radii may spread; see `learned` in formulas.hpp.
class LearnedDistances {
 public:
  /// Of the octave in which radii are spread; `size` is learned::size of the image in it.
  LearnedDistances(const Model& model, int height, int width, float size, Arena& arena);
  LearnedDistances(const LearnedDistances&) = delete;
  LearnedDistances& operator=(const LearnedDistances&) = delete;

  /// Once the arena is allocated.
  void upload();
  /// `barriers` (height, width) and `guide`, the same for each channel.
  learned::Factors factors(const Octaves& octaves, int spread, const ImageView& image, const std::uint8_t* barriers,
                           const std::array<float*, 3>& guide, Stream stream);

 private:
  const int rows_, columns_;  // regions
  const float size_;
  std::vector<float> weights_;       // of all layers
  std::vector<std::size_t> layers_;  // where each begins, and behind them the context's matrix
  float* on_device_ = nullptr;
  std::array<float*, 2> planes_{};      // (regions, learned::width): what layers read and write in turn
  learned::Summary* pieces_ = nullptr;  // (pieces, learned::width)
  float* image_bias_ = nullptr;         // (learned::width), of learned::context_layer
  float* factors_ = nullptr;
};

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
                    const learned::Factors& factors, Stream stream);
  /// Filters the first `count` (1 to 3) signals in place.
  void filter(int count, int iterations, Stream stream);

  /// Section III-C: out = F(radii) / F(weights) of the edges' seeds, F with the coefficients of the guide and of the
  /// barriers (height, width), and the expected error from the deviation of the mixture. Pixels that no edge reaches
  /// get those of all edges; 0 and `error.unknown` without any. All of it in options.octave, `image` too. `distances`
  /// may be null.
  void propagate(const ImageView& image, const Propagation& options, const Octaves& octaves,
                 const std::uint8_t* barriers, LearnedDistances* distances, Labels labels, const MapView& out,
                 const ExpectedError& error, Stream stream);

 private:
  const int height_, width_;
  float *vx_ = nullptr, *vy_ = nullptr;
  SeedSums* seed_sums_ = nullptr;
  Mixture* of_all_ = nullptr;
  std::array<float*, 3> signals_{};
};

}  // namespace defocus_fast::cuda
