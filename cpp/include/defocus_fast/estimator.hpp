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
#include "defocus_fast/options.hpp"
#include "defocus_fast/thread_pool.hpp"

struct CUstream_st;

namespace defocus_fast {

namespace cuda {
using Stream = CUstream_st*;  // cudaStream_t, for callers without CUDA's headers
}  // namespace cuda

/// The stages in the order in which a frame passes through them.
enum class Stage : std::uint8_t { detect_edges, extract_features, classify_edges, estimate_radii, propagate };
inline constexpr std::array<const char*, 5> stage_names{"detect_edges", "extract_features", "classify_edges",
                                                        "estimate_radii", "propagate"};

struct Pixel {
  std::int32_t y, x;

  DEFOCUS_FAST_EQUALITY(Pixel);
};

/// Edge pixels, and what the networks say about them: octave by octave, in an octave in row-major order.
struct Edges {
  std::vector<Pixel> position;            // (n)
  std::vector<std::uint8_t> octave;       // (n) found in the image reduced by 2^octave
  std::vector<float> depth_probability;   // (n) in [0, 1]
  std::vector<float> radius;              // (n) px, by Options::labels; at depth edges that of the nearer side
  std::vector<float> radius_std;          // (n) px, standard deviation of the radius
  std::vector<float> radius_probability;  // (n) probability of the most probable bin
  std::vector<float> bin_probabilities;   // (n, bins) if wanted, else empty; of octave o the radii are 2^o radius_bins

  std::size_t size() const { return radius.size(); }
};

/// One frame's answer.
struct BlurMap {
  int height = 0;
  int width = 0;
  std::vector<float> map;  // (height, width) px; empty after estimate_into
  /// (height, width) px, expected absolute error of the map, if wanted, else empty. sqrt(a^2 + (b s)^2), s the standard
  /// deviation of the mixture of all edges' posteriors that the filter brings to the pixel and, the less weight it
  /// brings, of a radius that is not known; a and b the model's.
  std::vector<float> expected_error;
  std::vector<std::uint8_t> pattern_edges;  // (height, width) 1 at pattern edges of the first octave, else 0
  std::vector<std::uint8_t> depth_edges;    // (height, width) 1 at depth edges of the first octave, else 0
  Edges edges;
  std::array<double, stage_names.size()> stage_ms{};
};

/// Edges of a frame on a device: those found, and those for which there was memory. The others were left out.
struct EdgeCount {
  std::int32_t found;
  std::int32_t kept;
};

/// Estimates blur maps of images of one size. The constructor makes the threads (given no pool), the networks for
/// this size and most buffers; the first frame makes the others and touches all of them, so that either may throw
/// std::bad_alloc. Lists of edges grow as frames need it.
/// An image without any edge gives a map of 0; with Labels::hard one without any pattern edge, too.
///
/// Thread safety: one estimator may be called from many threads; calls run one after the other, each on
/// all of the estimator's threads. Those of several estimators run side by side, on one pool, too. A process made by
/// fork() may use the estimators of device "cpu" of its parent; one that was in the middle of a frame then throws Error
/// in the child.
/// Of an estimator that was moved from every call throws InvalidArgument. std::bad_alloc leaves an estimator usable.
class DEFOCUS_FAST_API Estimator {
 public:
  /// On `pool`, with which Options::num_threads must be nothing or the pool's number, or on threads of its own. Throws
  /// InvalidArgument, ModelError or BackendUnavailable, and Error where the system starts fewer threads.
  Estimator(int height, int width, const Options& options = {}, const std::optional<ThreadPool>& pool = {});
  ~Estimator();
  Estimator(Estimator&&) noexcept;
  Estimator& operator=(Estimator&&) noexcept;

  /// Blur map of `image`, written to `out`. Throws InvalidArgument for an image of another size, for
  /// a float image with NaN or values outside [0, 1], and for an `out` of another size.
  void estimate_into(const ImageView& image, const MapView& out, const FrameOptions& frame = {});

  /// As above with everything that was found on the way. The answer is written into `result`, whose memory is used
  /// again. Throws Error on device "cuda" if there were more than max_edges edges, and so does estimate_into.
  void estimate(const ImageView& image, BlurMap& result, const FrameOptions& frame = {});

  /// Device "cuda": enqueues a frame on `stream`, after the frame before it, and returns. All views are device memory
  /// and are used until the stream has done the frame; nothing is allocated. Float images are not checked: the caller
  /// sees to it that they are in [0, 1]. Edges beyond max_edges are left out, see edge_count. `expected_error` may be
  /// left out; of `frame` only edges and edge_stride count. Throws InvalidArgument for views of another size or in
  /// memory that the GPU does not reach, BackendUnavailable on another device.
  void enqueue(const ImageView& image, const MapView& out, cuda::Stream stream, const MapView& expected_error = {},
               const FrameOptions& frame = {});
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

 protected:
  struct Impl;
  explicit Estimator(std::unique_ptr<Impl> impl);
  Impl& impl() const;

 private:
  struct Cpu;
  struct Cuda;
  std::unique_ptr<Impl> impl_;
};

/// Names of the instruction-set variants of our own kernels that this machine can run, widest first.
DEFOCUS_FAST_API std::vector<std::string> available_kernels();

/// `name: value` facts about the build: version, compiler, CUDA, kernels.
DEFOCUS_FAST_API std::vector<std::pair<std::string, std::string>> build_config();

/// The stages on their own; `num_threads` and `kernels` as in Options. Each throws InvalidArgument, and Error where the
/// system starts fewer threads.
/// Edge mask of `image`, equal to skimage.feature.canny on max(R, G, B); `mask` is (height, width) without gaps.
DEFOCUS_FAST_API void detect_edges(const ImageView& image, const CannyOptions& options, std::uint8_t* mask,
                                   std::optional<int> num_threads = {}, const std::string& kernels = "auto");

/// `image` (1 or 3 channels) filtered along the lines of `guide`; both float32, `out` is (height, width, channels)
/// without gaps. Both may have any finite values.
DEFOCUS_FAST_API void domain_transform_filter(const ImageView& image, const ImageView& guide,
                                              const FilterOptions& options, float* out,
                                              std::optional<int> num_threads = {}, const std::string& kernels = "auto");

/// Dense map from the radii at `pattern` pixels; see Estimator. `radii` is read at pattern pixels only.
DEFOCUS_FAST_API void propagate(const ImageView& image, const RadiiView& radii, const MaskView& pattern,
                                const MaskView& depth, const GuideOptions& guide, const PropagationOptions& options,
                                const MapView& out, std::optional<int> num_threads = {},
                                const std::string& kernels = "auto");

}  // namespace defocus_fast
