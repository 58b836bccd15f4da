// SPDX-License-Identifier: Apache-2.0
// The public estimator of videos: an Estimator on the CPU that averages what it spreads.
#include "defocus_fast/video.hpp"

#include <algorithm>
#include <mutex>

#include "defocus_fast/error.hpp"
#include "estimator_impl.hpp"
#include "options.hpp"

namespace defocus_fast {

VideoEstimator::VideoEstimator(int height, int width, const Options& options, const VideoOptions& video,
                               const std::optional<ThreadPool>& pool)
    : Estimator([&] {
        check(video);
        if (options.device == "cuda")
          throw BackendUnavailable("device: cuda has no estimator of videos yet; accepted: cpu, auto");
        return Impl::on_cpu(height, width, options, pool, &video);
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

void VideoEstimator::estimate_focus(const ImageView& image, FocusMap& result, const FocusOptions& focus,
                                    const FrameOptions& frame) {
  const std::lock_guard turn(impl().turns);
  check_no_edges(frame);
  auto& video = impl().video;
  const int octave = impl().propagation.octave, height = impl().height >> octave, width = impl().width >> octave;
  check(focus, height, width);
  impl().estimate_reduced(image, frame);
  result.change = video.change;
  result.rows = focus.rows;
  result.columns = focus.columns;
  result.height = height;
  result.width = width;
  result.scale = 1 << octave;
  result.map.assign(video.map, video.map + std::ptrdiff_t{height} * width);
  result.expected_error.assign(video.expected_error, video.expected_error + result.map.size());
  result.regions.resize(std::size_t(focus.rows) * std::size_t(focus.columns));
  video.sorted.resize(result.map.size());
  const auto percentile = [&](float* begin, std::ptrdiff_t count) {
    float* const at = begin + std::ptrdiff_t(focus.percentile / 100 * double(count - 1));
    std::nth_element(begin, at, begin + count);
    return *at;
  };
  const auto bound = [](int i, int regions, int length) { return int(std::int64_t{i} * length / regions); };
  impl().workers.for_ranges(int(result.regions.size()), 1, [&](int i, int, int) {
    const int row = i / focus.columns, column = i % focus.columns;
    const int top = bound(row, focus.rows, height), bottom = bound(row + 1, focus.rows, height),
              left = bound(column, focus.columns, width), right = bound(column + 1, focus.columns, width);
    // Each region has its own part of the memory, which has all pixels in the end.
    float* const radii = video.sorted.data() + std::ptrdiff_t{top} * width + std::ptrdiff_t{bottom - top} * left;
    float* end = radii;
    std::ptrdiff_t sharp = 0;
    double errors = 0;
    for (int y = top; y < bottom; ++y)
      for (int x = left; x < right; ++x) {
        const std::size_t at = std::size_t(y) * std::size_t(width) + std::size_t(x);
        *end++ = result.map[at];
        sharp += std::ptrdiff_t(double(result.map[at]) <= focus.in_focus);
        errors += double(result.expected_error[at]);
      }
    const std::ptrdiff_t count = end - radii;
    result.regions[std::size_t(i)] = {float(double(sharp) / double(count)), percentile(radii, count),
                                      float(errors / double(count))};
  });
  double sharp = 0, errors = 0;
  for (std::size_t i = 0; i < result.map.size(); ++i) {
    sharp += double(double(result.map[i]) <= focus.in_focus);
    errors += double(result.expected_error[i]);
  }
  const double count = double(result.map.size());
  result.frame = {float(sharp / count), percentile(video.sorted.data(), std::ptrdiff_t(result.map.size())),
                  float(errors / count)};
}

void VideoEstimator::warm_up() {
  const std::lock_guard turn(impl().turns);
  impl().video.first = true;
  impl().warm_up();
  impl().video.first = true;
}

void VideoEstimator::reset() {
  const std::lock_guard turn(impl().turns);
  impl().video.first = true;
}

}  // namespace defocus_fast
