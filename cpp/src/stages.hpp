// SPDX-License-Identifier: Apache-2.0
// The stages of a frame, in the order in which they run: the table of contents of this folder.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "defocus_fast/estimator.hpp"
#include "kernels.hpp"
#include "model.hpp"
#include "workers.hpp"

namespace defocus_fast {

/// A float as it is stored: itself, or the nearest bf16 (ties to even) in uint16_t; in [0, 1] in 255 steps in uint8_t;
/// or the nearest integer in int8_t.
template <class T>
T stored(float value) {
  if constexpr (std::is_same_v<T, float>) return value;
  if constexpr (std::is_same_v<T, std::uint8_t>) return T(value * 255 + 0.5f);
  if constexpr (std::is_same_v<T, std::int8_t>) return T(std::lrint(value));
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return T((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

enum class Head : std::uint8_t { edge, blur };

namespace cpu {

// ---- image.cpp: reading the caller's pixels

constexpr int most_side = 1 << 30;  // px, of images
/// Throws InvalidArgument unless `image` is a readable image of 1 or 3 channels; checks no pixel.
void check_layout(const ImageView& image, const char* name);
/// How many, and how many bytes apart.
struct Axis {
  int length;
  std::ptrdiff_t stride;
};
/// Throws InvalidArgument if offsets of values could overflow, or values of `size` bytes are not aligned.
void check_addresses(const char* name, const void* data, int size, std::initializer_list<Axis> axes);
/// Throws InvalidArgument if a float image has values outside [least, most], which NaN is.
void check_range(const ImageView& image, const char* name, float least, float most, Workers& workers);

/// Columns [x0, x0 + n) of row y in [0, 1], one array per channel; uint8 is divided by 255. Columns may lie outside
/// the image by any distance: they are reflected with the edge pixel repeated.
void load_row(const ImageView& image, int y, int x0, int n, float* const* channels);

/// Row y of V = max(R, G, B) in [0, 1].
template <class T>
void load_value_row(const ImageView& image, int y, const CannyKernels<T>& kernels, T* out);

/// The index in [0, n) that i stands for under symmetric reflection (edge pixel repeated).
int reflect(int i, int n);

// ---- canny.cpp

/// The symmetric smoothing kernel that these options ask for. Throws InvalidArgument if any of them is out of range.
std::vector<double> smoothing_kernel(const CannyOptions& options);

class EdgeDetector {
 public:
  EdgeDetector(int height, int width, const CannyOptions& options, const Kernels& kernels, Workers& workers);
  ~EdgeDetector();
  /// mask[y * width + x] = 1 at edges, else 0.
  void detect_edges(const ImageView& image, std::uint8_t* mask);

 private:
  template <class T>
  struct Strip;
  template <class T>
  void find_chains(const ImageView& image, std::vector<Strip<T>>& strips);
  std::uint64_t* row_of(std::vector<std::uint64_t>& bits, int y) const;
  void await(int y, int w, std::uint64_t pixels);
  void await_row(int y);
  void follow_chains(int first, int last);
  bool extend_chains(int y, int w, int first, int last);
  void write_mask(std::uint8_t* mask);

  int height_, width_;
  CannyOptions options_;
  const Kernels& kernels_;
  Workers& workers_;
  std::vector<double> weights_;
  int rows_per_strip_;
  std::vector<Strip<float>> float_strips_;  // one per worker, made when the first image of the type comes
  std::vector<Strip<double>> double_strips_;
  // A bit per pixel, in words; a row has one more word at each end, which stays 0.
  int words_;
  std::vector<std::uint64_t> candidates_, edges_;
  std::size_t waiting_words_;
  std::vector<std::uint64_t> waiting_;  // a bit per word: whether its candidates are to be looked at
};

// ---- patches.cpp: from the image to the networks' inputs

/// `rows` rows of `n` pixels from (y0, x0) on, red, green, blue at the start of every `stride` values of T, as stored.
template <class T>
void extract_pixels(const ImageView& image, int y0, int x0, int rows, int n, int stride, T* out);
/// A row of `n` cells from the pixel (y0, x0) on: the 27 values of a cell at the start of every `stride`.
template <class T>
void extract_cells(const ImageView& image, int y0, int x0, int n, int stride, T* out);
/// The three crops around the pixel (y, x) -> (n, n, 3) for n of crop_sizes.
void extract_patches(const ImageView& image, int y, int x, int crop_offset, const std::array<float*, 3>& crops);

// ---- trunk.cpp

/// Of the parts in which an image is read; larger ones share more features and cost more memory.
struct TileSize {
  int height, width;
};

/// A pixel, seen from the corner of its tile.
struct Pixel {
  std::int32_t y, x;
};

/// Features of both networks in one tile, only where its edges look at them. T is float, or uint16_t for bf16.
template <class T>
class Trunk {
 public:
  virtual ~Trunk() = default;
  /// Reads the tile whose corner is (y0, x0), and what patches around its edges see beyond it. Cells begin at the
  /// corner.
  virtual void load(const ImageView& image, int y0, int x0) = 0;
  virtual void extract_features(const std::vector<Pixel>& edges) = 0;
  /// Writes the input of a head for one of these edges: (positions, width).
  virtual void gather(Head head, Pixel edge, T* out) const = 0;
};

/// Layers inside the trunk hold values of Hidden: T, or uint8_t, for which the model must have ranges.
template <class T, class Hidden>
std::unique_ptr<Trunk<T>> make_trunk(const Model& model, const NetworkKernels<Hidden>& network_kernels,
                                     const Kernels& kernels, Workers& workers, const TileSize& tile);

// ---- heads.cpp

/// The parts of both networks that run once per edge. T is float, or uint16_t for bf16.
template <class T>
class Heads {
 public:
  static constexpr int batch = winograd_batch;  // edges whose features stay in the second-level cache

  /// `slots`: how many threads may ask at once, each under a number of its own.
  Heads(const Model& model, const NetworkKernels<T>& network_kernels, const Kernels& kernels, int slots);
  ~Heads();
  Heads(const Heads&) = delete;
  Heads& operator=(const Heads&) = delete;

  /// Values that a head reads per edge: at 25 pixels, or of one cell.
  int edge_size() const { return edge_size_; }
  /// Input of predict: (batch, edge_size).
  T* features(int slot);
  /// Probabilities of the first `count` edges; rows are pitch(head) apart. Spends the features.
  const float* predict(Head head, int count, int slot);
  int pitch(Head head) const { return pitch_[std::size_t(head)]; }

 private:
  struct Layer;
  struct Slot;

  const NetworkKernels<T>& network_kernels_;
  const Kernels& kernels_;
  int channels_, edge_size_, levels_;
  std::array<std::vector<Layer>, 2> layers_;  // by Head
  std::array<int, 2> pitch_{};
  std::vector<Slot> slots_;
  std::array<std::vector<T>, 2> conv2_;        // weights, by Head; of the architecture that has it
  std::vector<std::int32_t> edges_, windows_;  // pixels at which layers are evaluated
};

// ---- patch_networks.cpp

/// The whole networks on patches, by OpenVINO.
class PatchNetworks {
 public:
  PatchNetworks(const Model& model, Precision precision, int num_threads);
  ~PatchNetworks();

  /// Throws ModelError unless the model's graphs answer with as many probabilities as its other parts expect.
  static void check(const Model& model);

  static constexpr int batch = 16;  // edges per evaluation

  /// Input of predict: (batch, n, n, 3) for n of crop_sizes.
  std::array<float*, 3> crops(Head head);
  /// (batch, outputs) probabilities.
  const float* predict(Head head);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// ---- domain_transform.cpp

/// A float image in memory that the recursive passes can read beyond the right border.
class Plane {
 public:
  Plane(int height, int width);
  float* row(int y) { return data_.get() + row_padding + y * pitch_; }
  std::ptrdiff_t pitch() const { return pitch_; }  // in floats

 private:
  struct Free {
    void operator()(float* data) const;
  };
  std::ptrdiff_t pitch_;
  std::unique_ptr<float[], Free> data_;
};

/// Throw InvalidArgument.
void check(const FilterOptions& options, const std::string& prefix = "");
void check(const PropagationOptions& options, int height, int width);

/// What a seed writes into cleared rows at pattern edges: their weights, and these times radius and times the mean
/// square of the radius (if not null).
struct SeedRows {
  float *weights, *radii, *squares;
};
/// Called once for every row, by several threads at once.
using Seed = std::function<void(int y, const SeedRows& rows)>;

class DomainTransform {
 public:
  DomainTransform(int height, int width, const Kernels& kernels, Workers& workers);

  /// Three planes, of which filter() takes the first few.
  Plane& signal(int i) { return signals_[static_cast<std::size_t>(i)]; }
  /// Loads the image's channels into the signals: uint8 divided by 255, float as it is.
  void load(const ImageView& image);
  /// Sets the coefficients from the first `channels` (1 or 3) signals. `slope` multiplies the sum over channels of
  /// |I'|; `depth` (height, width) may be null.
  void set_feedback(int channels, double slope, const FilterOptions& options, const std::uint8_t* depth, double psi);
  /// Filters the first `count` signals in place.
  void filter(int count, int iterations);

  /// Section III-C: makes the guide from the image and sets the coefficients of the final filter.
  void guide(const ImageView& image, const std::uint8_t* depth, const PropagationOptions& options);
  /// out = F(radii) / F(weights) and, unless null, deviation (height, width) = sqrt(F(squares) / F(weights) - out^2).
  /// Where F(weights) is below the smallest normal float, those of all seeds; 0 and `unknown` without any.
  void spread(const PropagationOptions& options, const Seed& seed, const MapView& out, float* deviation, float unknown);

 private:
  void load_rows(const ImageView& image, int begin, int end);
  /// `above`: the signals' row before `begin`.
  void set_feedback_rows(int begin, int end, const std::array<const float*, 3>& above, int channels, double slope,
                         const FilterOptions& options, const std::uint8_t* depth, double psi);
  /// prepare(begin, end, slot) is called for rows before they are read, finish(begin, end) for columns that are done.
  template <class Prepare>
  void filter_rows(int count, int iteration, const Prepare& prepare);
  template <class Finish>
  void filter_columns(int count, int iteration, const Finish& finish);

  int height_, width_;
  const Kernels& kernels_;
  Workers& workers_;
  Plane vx_, vy_;
  std::vector<Plane> signals_;
  std::vector<std::vector<float>> scratch_;  // one per worker
  std::vector<std::array<double, 3>> sums_;  // of the seeds in each row
};

/// Blur map from the seeds, and `deviation` (height, width) of it unless null.
void propagate(DomainTransform& transform, const ImageView& image, const std::uint8_t* depth,
               const PropagationOptions& options, const Seed& seed, const MapView& out, float* deviation = nullptr,
               float unknown = 0);

}  // namespace cpu
}  // namespace defocus_fast
