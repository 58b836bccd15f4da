// SPDX-License-Identifier: Apache-2.0
// What the estimators of both devices have in common.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "defocus_fast/video.hpp"
#include "device.hpp"
#include "formulas.hpp"
#include "kernels.hpp"
#include "model.hpp"
#include "turns.hpp"
#include "workers.hpp"

namespace defocus_fast {

/// The model that these options name. Throws InvalidArgument or ModelError if they do not fit together.
std::shared_ptr<const Model> load_model_for(const Options& options);

struct Estimator::Impl {
  Impl(int height, int width, const Options& options, const std::optional<ThreadPool>& pool, const char* device,
       bool of_video = false);
  virtual ~Impl() = default;

  static std::unique_ptr<Impl> on_cpu(int height, int width, const Options& options,
                                      const std::optional<ThreadPool>& pool, const VideoOptions* video = nullptr);
  static std::unique_ptr<Impl> on_cuda(int height, int width, const Options& options,
                                       const std::optional<ThreadPool>& pool);

  /// Check the arguments, and run the frame.
  void estimate_into(const ImageView& image, const MapView& out, const FrameOptions& frame);
  void estimate(const ImageView& image, BlurMap& result, const FrameOptions& frame);
  void estimate_reduced(const ImageView& image, const FrameOptions& frame);
  void estimate(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame);
  void checked_run(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame);
  /// Of videos `out` may be null: the map is then not enlarged.
  virtual void run(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame) = 0;
  /// Of videos: until there is memory for any frame, and it is known what frames take.
  virtual void warm_up() {}
  /// Throws BackendUnavailable on the CPU.
  virtual Device& on_device();

  const int height, width;
  const Options options;
  const std::string device;
  const Kernels& kernels;
  Workers workers;
  const std::shared_ptr<const Model> model;
  const double depth_threshold;
  const Propagation propagation;
  const bool learns_distances;
  const int period;                       // px, see pad_of()
  const int canvas_height, canvas_width;  // px
  Precision precision = Precision::float32;
  BlurMap scratch;  // what estimate_into finds on the way
  struct Video {
    bool first = true;  // the next frame is
    VideoChange change;
    /// What was spread, before it is enlarged.
    const float *map = nullptr, *expected_error = nullptr;  // the latter if wanted
    std::vector<float> sorted;                              // scratch memory of estimate_focus
  };
  Video video;  // of video estimators only
  Turns turns;
};

}  // namespace defocus_fast
