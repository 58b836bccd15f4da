// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "defocus_fast/export.hpp"
#include "defocus_fast/image.hpp"

struct CUstream_st;

namespace defocus_fast {

namespace cuda {
class Networks;
using Stream = CUstream_st*;  // cudaStream_t, for callers without CUDA's headers
}  // namespace cuda

/// bfloat16 and int8 are for device "cpu", float16 for "cuda". int8: the layers that all edges share, in integers,
/// their heads in bfloat16 or float32; another, slightly less accurate answer.
enum class Precision : std::uint8_t { automatic, float32, bfloat16, float16, int8 };

/// How the networks are evaluated; both forms give the same probabilities up to rounding.
enum class Evaluation : std::uint8_t {
  automatic,  // whichever costs fewer multiply-adds in each tile; on device "cuda" shared
  shared,     // features once per image, heads once per edge
  patch,      // three crops per edge through the whole networks, as in the paper
};

/// What the blur network's probabilities at a pattern edge become before they are spread over the image.
enum class Labels : std::uint8_t {
  posterior,  // the mean radius, weighted by (1 - depth probability) / (0.15 px + standard deviation)^2
  hard,       // the most probable bin with weight 1, as in the paper
};

/// Canny's parameters, in the units of `skimage.feature.canny` on V = max(R, G, B) in [0, 1].
struct CannyOptions {
  double sigma = 1.4142135623730951;  // px, in (0, 64]
  double low = 0.08;                  // gradient magnitude, >= 0
  double high = 0.20;                 // gradient magnitude, >= low
  /// Symmetric smoothing kernel of 1 to 513 weights to use in place of the Gaussian of sigma. NumPy's exp differs from
  /// the C library's in the last bit on some CPUs, and scikit-image decides ties by it: the Python package passes
  /// NumPy's kernel.
  std::vector<double> smoothing;
};

/// The recursive domain transform's parameters (Gastal and Oliveira 2011, equations 14 and 21).
struct FilterOptions {
  double sigma_s = 7;    // spatial standard deviation in px, > 0
  double sigma_r = 0.5;  // range standard deviation in units of the guide, > 0
  int iterations = 5;    // in [1, 16]
};

/// How radii are spread from edges over the image (section III-C of the paper).
struct PropagationOptions {
  double psi = 100.0;        // extra distance across a depth-edge pixel, >= 0 (published program: 20)
  double sigma_s = 0;        // px; 0 means min(height, width) / 8
  double sigma_r = 3.75;     // in units of [0, 1] summed over red, green and blue, > 0
  double guide_sigma_s = 7;  // of the filter that makes the guide: the image filtered by itself
  double guide_sigma_r = 0.5;
  int iterations = 5;  // of both filters, in [1, 16]
};

struct Options {
  std::string model = "fast";                  // a shipped model's name, or a model folder if it has a '/' in it
  std::string device = "auto";                 // "auto", "cpu" or "cuda"
  Precision precision = Precision::automatic;  // automatic: bfloat16 where the CPU has AVX512-BF16, else float32
  Evaluation evaluation = Evaluation::automatic;
  int num_threads = 0;           // 0: all cores
  std::string kernels = "auto";  // one of available_kernels(), or "auto" for the widest
  CannyOptions canny;
  /// 0: sigma_r 3.75 and 5 iterations for hard labels, as in the paper; 0.5 and 3 for posterior ones.
  PropagationOptions propagation{.sigma_r = 0, .iterations = 0};
  Labels labels = Labels::posterior;
  /// Edges of a higher depth probability are depth edges; 1: none is. Nothing: 0.5 for hard labels, as in the paper,
  /// and what the model was tuned to for posterior ones.
  std::optional<double> depth_threshold;
  /// The networks are asked only about edges whose row and column are multiples of it, in [1, 16]; the others do not
  /// count as edges. Less time and less accuracy (ACCURACY.md).
  int edge_stride = 1;
  /// Device "cuda": edges for which there is memory; 0: a quarter of the pixels, but at least 4096.
  std::int32_t max_edges = 0;
  /// Device "cuda": evaluates the networks (defocus_fast/networks.hpp). Nothing: TensorRT, in builds with
  /// DEFOCUS_FAST_TENSORRT, from engines in $DEFOCUS_FAST_CACHE or ~/.cache/defocus_fast that the Python package has
  /// built.
  std::shared_ptr<cuda::Networks> networks;
};

/// The stages in the order in which a frame passes through them.
enum class Stage : std::uint8_t { detect_edges, extract_features, classify_edges, estimate_radii, propagate };
inline constexpr std::array<const char*, 5> stage_names{"detect_edges", "extract_features", "classify_edges",
                                                        "estimate_radii", "propagate"};

/// One frame's answer. Arrays over edges have one entry per edge pixel, in row-major order.
struct BlurMap {
  int height = 0;
  int width = 0;
  std::vector<float> map;  // (height, width) px; empty after estimate_into
  /// (height, width) px, expected absolute error of the map, if wanted, else empty. sqrt(a^2 + (b s)^2), s the standard
  /// deviation of the mixture of all edges' posteriors that the filter brings to the pixel (the model's largest radius
  /// where it brings none), a and b the model's.
  std::vector<float> expected_error;
  std::vector<std::uint8_t> pattern_edges;  // (height, width) 1 at pattern edges, else 0
  std::vector<std::uint8_t> depth_edges;    // (height, width) 1 at depth edges, else 0
  std::vector<std::int32_t> edges;          // (n, 2) row and column
  std::vector<float> depth_probability;     // (n) in [0, 1]
  std::vector<float> radii;                 // (n) px, by Options::labels; at depth edges that of the nearer side
  std::vector<float> radius_std;            // (n) px, standard deviation of the radius
  std::vector<float> radius_probability;    // (n) probability of the most probable bin
  std::vector<float> bin_probabilities;     // (n, bins) if wanted, else empty
  std::array<double, stage_names.size()> stage_ms{};
};

/// Parts of the answer that cost time and memory of their own.
struct Wanted {
  bool expected_error = true;
  bool bin_probabilities = false;
};

/// Edges of a frame on a device: those found, and those for which there was memory. The others were left out.
struct EdgeCount {
  std::int32_t found;
  std::int32_t kept;
};

/// Estimates blur maps of images of one size. Everything that a frame needs is made by the constructor.
/// An image without any edge gives a map of 0; with Labels::hard one without any pattern edge, too.
///
/// Thread safety: one estimator may be called from many threads; calls run one after the other, each on
/// all of the estimator's threads. A process made by fork() may use the estimators of device "cpu" of its parent; one
/// that was in the middle of a frame then throws Error in the child.
/// Of an estimator that was moved from every call throws InvalidArgument. std::bad_alloc leaves an estimator usable.
class DEFOCUS_FAST_API Estimator {
 public:
  /// Throws InvalidArgument, ModelError or BackendUnavailable.
  Estimator(int height, int width, const Options& options = {});
  ~Estimator();
  Estimator(Estimator&&) noexcept;
  Estimator& operator=(Estimator&&) noexcept;

  /// Blur map of `image`, written to `out`. Throws InvalidArgument for an image of another size, for
  /// a float image with NaN or values outside [0, 1], and for an `out` of another size.
  void estimate_into(const ImageView& image, const MapView& out);

  /// As above with everything that was found on the way. `edges` replaces the edge detector if its data is not null.
  /// The answer is written into `result`, whose memory is used again. Throws Error on device "cuda" if there were more
  /// than max_edges edges, and so does estimate_into.
  void estimate(const ImageView& image, BlurMap& result, const MaskView& edges = {}, const Wanted& wanted = {});

  /// Device "cuda": enqueues a frame on `stream`, after the frame before it, and returns. All views are device memory
  /// and are used until the stream has done the frame; nothing is allocated. Float images are not checked: the caller
  /// sees to it that they are in [0, 1]. Edges beyond max_edges are left out, see edge_count. `expected_error` may be
  /// left out; `edges` replaces the edge detector if its data is not null. Throws InvalidArgument for views of another
  /// size or in memory that the GPU does not reach, BackendUnavailable on another device.
  void enqueue(const ImageView& image, const MapView& out, cuda::Stream stream, const MapView& expected_error = {},
               const MaskView& edges = {});
  /// Device "cuda": waits for the last frame enqueued, by way of `stream`, and tells its edges.
  EdgeCount edge_count(cuda::Stream stream);
  /// Device "cuda": device memory for a map, (height, width) without gaps; freed with its last owner, which waits for
  /// the device.
  std::shared_ptr<float> make_map();
  /// Device "cuda": what is enqueued on `after` from now on waits for what is on `before` now.
  void order(cuda::Stream before, cuda::Stream after);
  /// Device "cuda": index of the GPU, which is the one that was current in the constructor.
  int gpu() const;

  int height() const;
  int width() const;
  int num_threads() const;
  const std::string& device() const;              // "cpu" or "cuda"
  const char* precision() const;                  // "float32", "bfloat16", "float16" or "int8"
  const char* kernels() const;                    // one of available_kernels()
  const std::string& model() const;               // name stored in the model folder
  const std::vector<float>& radius_bins() const;  // px, ascending

 private:
  struct Impl;
  struct Cpu;
  struct Cuda;
  Impl& impl() const;
  std::unique_ptr<Impl> impl_;
};

/// Names of the instruction-set variants of our own kernels that this machine can run, widest first.
DEFOCUS_FAST_API std::vector<std::string> available_kernels();

/// `name: value` facts about the build: version, compiler, OpenVINO, CUDA, kernels.
DEFOCUS_FAST_API std::vector<std::pair<std::string, std::string>> build_config();

/// The stages on their own. `num_threads` 0 means all cores. Each throws InvalidArgument.
/// Edge mask of `image`, equal to skimage.feature.canny on max(R, G, B); `mask` is (height, width) without gaps.
DEFOCUS_FAST_API void detect_edges(const ImageView& image, const CannyOptions& options, std::uint8_t* mask,
                                   int num_threads = 0, const std::string& kernels = "auto");

/// `image` (1 or 3 channels) filtered along the lines of `guide`; both float32, `out` is (height, width, channels)
/// without gaps. Both may have any finite values.
DEFOCUS_FAST_API void domain_transform_filter(const ImageView& image, const ImageView& guide,
                                              const FilterOptions& options, float* out, int num_threads = 0,
                                              const std::string& kernels = "auto");

/// Dense map from the radii at `pattern` pixels; see Estimator. `radii` is read at pattern pixels only.
DEFOCUS_FAST_API void propagate(const ImageView& image, const RadiiView& radii, const MaskView& pattern,
                                const MaskView& depth, const PropagationOptions& options, const MapView& out,
                                int num_threads = 0, const std::string& kernels = "auto");

}  // namespace defocus_fast
