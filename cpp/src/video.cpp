// SPDX-License-Identifier: Apache-2.0
// The public estimator of videos: an Estimator on the CPU that averages what it spreads.
#include "defocus_fast/video.hpp"

#include <mutex>

#include "defocus_fast/error.hpp"
#include "estimator_impl.hpp"
#include "options.hpp"

namespace defocus_fast {

VideoEstimator::VideoEstimator(int height, int width, const Options& options, const VideoOptions& video)
    : Estimator([&] {
        check(video);
        if (options.device == "cuda")
          throw BackendUnavailable("device: cuda has no estimator of videos yet; accepted: cpu, auto");
        return Impl::on_cpu(height, width, options, &video);
      }()) {}

namespace {

void check_no_edges(const FrameOptions& frame) {
  if (frame.edges.data) throw InvalidArgument("edges: expected none, as frames of a video are all read alike");
}

}  // namespace

VideoChange VideoEstimator::estimate_into(const ImageView& image, const MapView& out, const FrameOptions& frame) {
  const std::lock_guard turn(impl().turns);
  check_no_edges(frame);
  impl().estimate_into(image, out, frame);
  return impl().video.change;
}

void VideoEstimator::estimate(const ImageView& image, VideoBlurMap& result, const FrameOptions& frame) {
  const std::lock_guard turn(impl().turns);
  check_no_edges(frame);
  impl().estimate(image, result, frame);
  result.change = impl().video.change;
}

void VideoEstimator::reset() {
  const std::lock_guard turn(impl().turns);
  impl().video.first = true;
}

}  // namespace defocus_fast
