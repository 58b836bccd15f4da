// SPDX-License-Identifier: Apache-2.0
// Blur maps of videos.
#pragma once

#include "defocus_fast/estimator.hpp"

namespace defocus_fast {

/// How a frame of a video differs from those before it.
struct VideoChange {
  /// Most of the image has changed: the answer is that of this frame alone, as is the first one's.
  bool cut = true;
  /// px of the image by which the camera's movement has moved it down and to the right, in whole pixels of the octave
  /// in which radii are spread.
  int shift_y = 0, shift_x = 0;
  /// Share of the image in which the averages have started afresh, [0, 1].
  float renewed = 1;
  /// Share of the image that was read, [0, 1]; less than 1 where VideoOptions::budget_ms left no time for more.
  float read = 1;
};

/// One frame's answer.
struct VideoBlurMap : BlurMap {
  VideoChange change;
};

/// How much of a frame, or of a region of it, is in focus.
struct Focus {
  float in_focus = 0;        // share of the pixels of radii up to FocusOptions::in_focus, [0, 1]
  float radius = 0;          // px of the image, FocusOptions::percentile of the map
  float expected_error = 0;  // px of the image, mean
};

/// One frame's answer without a map of full size.
struct FocusMap {
  Focus frame;
  int rows = 0, columns = 0;
  std::vector<Focus> regions;  // (rows, columns); all of nearly the same size
  /// The map on the pixels of the octave in which radii are spread, each of which stands for `scale` x `scale` px.
  int height = 0, width = 0, scale = 1;
  std::vector<float> map;             // (height, width) px of the image
  std::vector<float> expected_error;  // (height, width) px of the image
  VideoChange change;
};

/// Estimates blur maps of the frames of a video, which are of one size and come in the order of time. Each answer is of
/// the frame given, without any delay. What edges say of their radii, and where depth edges keep radii from spreading,
/// is averaged along time as far as the video stays the same: the camera's movement is followed, and where the image or
/// its radii change by more than noise, averages start afresh. So the map of a first frame, and of one after a cut,
/// equals Estimator's (of grid "corner" and distances "domain_transform") to the last bit; edges and masks in results
/// always do.
///
/// With VideoOptions::budget_ms a frame is read in part where there is no time for all of it: regions that have changed
/// and regions that have waited longest. Elsewhere what is known stays as it is; where that no longer holds, coarse
/// octaves, which take little time, stand in until the region's turn comes. Edges and masks in results are then those
/// that were read.
///
/// Memory: 49 bytes for each pixel of the octave in which radii are spread, beside Estimator's. Thread safety, forks
/// and exceptions as of Estimator; after an exception the next frame may count as a first one. Device "cpu" only.
class DEFOCUS_FAST_API VideoEstimator : private Estimator {
 public:
  /// As Estimator's; throws BackendUnavailable for device "cuda".
  VideoEstimator(int height, int width, const Options& options = {}, const VideoOptions& video = {},
                 const std::optional<ThreadPool>& pool = {});

  /// As Estimator's; throws InvalidArgument for frames with edges of their own. After the first frame nothing is
  /// allocated but for more edges than before.
  VideoChange estimate_into(const ImageView& image, const MapView& out, const FrameOptions& frame = {});
  void estimate(const ImageView& image, VideoBlurMap& result, const FrameOptions& frame = {});

  /// The next frame's focus, by regions, and its map at reduced size. Of `frame` only edge_stride counts. Throws as
  /// estimate_into, and InvalidArgument for more regions than pixels. `result`'s memory is used again.
  void estimate_focus(const ImageView& image, FocusMap& result, const FocusOptions& focus = {},
                      const FrameOptions& frame = {});

  /// Reads images of its own, until there is memory for any frame and it is known what frames take. From then on
  /// estimate_into and estimate_focus allocate nothing, and budget_ms holds from the first frame on. The next frame
  /// counts as a first one. Takes as long as some frames in which every pixel is an edge.
  void warm_up();

  /// The next frame counts as a first one.
  void reset();

  using Estimator::device;
  using Estimator::height;
  using Estimator::kernels;
  using Estimator::model;
  using Estimator::num_threads;
  using Estimator::precision;
  using Estimator::radius_bins;
  using Estimator::width;
};

}  // namespace defocus_fast
