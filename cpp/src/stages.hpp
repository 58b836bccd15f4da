// SPDX-License-Identifier: Apache-2.0
// The stages of a frame, in the order in which they run: the table of contents of this folder.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "defocus_fast/estimator.hpp"
#include "kernels.hpp"
#include "workers.hpp"

namespace defocus_fast {

/// A model folder's metadata (python/defocus_fast/model_io.py writes it).
struct Model {
  std::filesystem::path folder;
  std::string name;
  int width = 0;              // channels of every convolution
  int crop_offset = 0;        // px that the 27 and 15 px crops lie down and right of the 41 px crop's centre
  std::vector<float> levels;  // px, ascending
};

/// Reads a model by name or folder. Throws ModelError.
Model load_model(const std::string& name_or_folder);

/// The named float constants of one of the model's graphs. Throws ModelError.
std::map<std::string, std::vector<float>> read_weights(const std::filesystem::path& onnx_file);

/// A float as it is stored: itself, or the nearest bf16 (ties to even) in uint16_t.
template <class T>
T stored(float value) {
  if constexpr (std::is_same_v<T, float>) return value;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return T((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

enum class Head : std::uint8_t { edge, blur };

namespace cpu {

// ---- image.cpp: reading the caller's pixels

/// Throws InvalidArgument unless `image` is a readable picture of 1 or 3 channels; checks no pixel.
void check_layout(const ImageView& image, const char* name);
/// Throws InvalidArgument if a float picture has NaN, infinite or negative values or values above 1.
void check_range(const ImageView& image, Workers& workers);

/// Columns [x0, x0 + n) of row y in [0, 1], one array per channel; uint8 is divided by 255. Columns may lie outside
/// the picture by any distance: they are reflected with the edge pixel repeated.
void load_row(const ImageView& image, int y, int x0, int n, float* const* channels);

/// Row y of V = max(R, G, B) in [0, 1].
template <class T>
void load_value_row(const ImageView& image, int y, T* out);

/// The index in [0, n) that i stands for under symmetric reflection (edge pixel repeated).
int reflect(int i, int n);

// ---- canny.cpp

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
  void thin(const ImageView& image, std::vector<Strip<T>>& strips, std::uint8_t* classes);
  void trace(std::uint8_t* classes);

  int height_, width_;
  CannyOptions options_;
  const Kernels& kernels_;
  Workers& workers_;
  std::vector<double> weights_;
  std::vector<Strip<float>> float_strips_;  // one per worker, made when the first picture of the type comes
  std::vector<Strip<double>> double_strips_;
  std::vector<std::int32_t> stack_;
};

// ---- patches.cpp: from the picture to the networks' inputs

inline constexpr int margin = 20;     // px that a patch reaches beyond its centre
inline constexpr int max_tile = 192;  // px; larger tiles share more features and cost more memory

/// The tile at (y0, x0) and `margin` px around it -> (tile_height + 40, tile_width + 40, 4) float or bf16,
/// red, green, blue and 0.
template <class T>
void extract_tile(const ImageView& image, int y0, int x0, int tile_height, int tile_width, T* tile, Workers& workers);
/// The three crops around the pixel (y, x) -> (n, n, 3) for n = 41, 27, 15.
void extract_patches(const ImageView& image, int y, int x, int crop_offset, const std::array<float*, 3>& crops);

// ---- trunk.cpp

/// Features of both networks in one tile, only at the pixels that its edges look at. T is float, or uint16_t for bf16.
template <class T>
class Trunk {
 public:
  Trunk(const Model& model, const TrunkKernels<T>& kernels, Workers& workers, int tile_height, int tile_width);
  ~Trunk();

  int channels() const;  // the model's width, padded
  /// Input of extract_features, see extract_tile.
  T* tile();
  /// `edges`: indices y * (tile_width + 40) + x of edge pixels in the tile with its margin.
  void extract_features(const std::vector<std::int32_t>& edges);
  /// (tile_height + 40, tile_width + 40, channels): relu(U[c + 3p] + V[c + p]) is the input of a head, c an edge pixel.
  const T* u(Head head) const;
  const T* v(Head head) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// ---- network.cpp

/// The parts of both networks that run once per edge, and the whole networks on patches.
class Network {
 public:
  static constexpr int positions = 25;  // outputs of the first fusion convolution per edge

  Network(const Model& model, Precision precision, Evaluation evaluation, int num_threads);
  ~Network();

  int head_batch() const;   // edges per evaluation of a head
  int patch_batch() const;  // edges per evaluation of a whole network

  /// Input of predict: (head_batch, 5, 5, width) float or bf16.
  void* fused(Head head);
  /// (head_batch, outputs) probabilities.
  const float* predict(Head head);

  /// Input of predict_patches: (patch_batch, n, n, 3) for n = 41, 27, 15.
  std::array<float*, 3> crops(Head head);
  /// (patch_batch, outputs) probabilities.
  const float* predict_patches(Head head);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// ---- domain_transform.cpp

/// A float picture in memory that the recursive passes can read beyond the right border.
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

class DomainTransform {
 public:
  DomainTransform(int height, int width, const Kernels& kernels, Workers& workers);

  /// Three planes, of which filter() takes the first few.
  Plane& signal(int i) { return signals_[static_cast<std::size_t>(i)]; }
  /// Loads the picture's channels into the signals: uint8 divided by 255, float as it is.
  void load(const ImageView& image);
  /// Sets the coefficients from the first `channels` (1 or 3) signals. `slope` multiplies the sum over channels of
  /// |I'|; `depth` (height, width) may be null.
  void set_feedback(int channels, double slope, const FilterOptions& options, const std::uint8_t* depth, double psi);
  /// Filters the first `count` signals in place. Spends the coefficients.
  void filter(int count, int iterations);

  /// Section III-C: makes the guide from the picture and sets the coefficients of the final filter. Then the caller
  /// writes radii and pattern mask into signals 0 and 1 (all of it) and calls spread().
  void guide(const ImageView& image, const std::uint8_t* depth, const PropagationOptions& options);
  /// out = F(radii) / F(mask); `fallback` where F(mask) is below the smallest normal float.
  void spread(const PropagationOptions& options, float fallback, const MapView& out);

 private:
  int height_, width_;
  const Kernels& kernels_;
  Workers& workers_;
  Plane vx_, vy_;
  std::vector<Plane> signals_;
  std::vector<std::vector<float>> scratch_;  // one per worker
};

/// Blur map from the weights of the pattern edges (0 elsewhere) and their radii times these, which
/// `seed(y, radii, weights)` writes into cleared rows. Where no pattern edge is in reach: their mean radius; 0 if there
/// is none at all.
void propagate(DomainTransform& transform, const ImageView& image, const std::uint8_t* depth,
               const PropagationOptions& options, const std::function<void(int, float*, float*)>& seed,
               const MapView& out);

}  // namespace cpu
}  // namespace defocus_fast
