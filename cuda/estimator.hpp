// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>

#include "../cpp/src/device.hpp"
#include "clock.hpp"
#include "defocus_fast/networks.hpp"
#include "stages.hpp"

namespace defocus_fast::cuda {

/// How the trunk's fixed image size cuts an image into tiles; without a trunk there are none.
struct Tiling {
  int down, across;       // tiles; the last ones may reach beyond the image
  int margin;             // px that the trunk reads around a tile
  std::size_t outputs;    // of the trunk
  std::size_t positions;  // of features that a head reads per edge
  Features features;      // without the pointers
};

/// Frames of one size on the device: the stages in order, on one stream, without allocation or any wait for the device.
/// One frame at a time: the next one on another stream must wait for the stream of this one.
class Estimator {
 public:
  explicit Estimator(const DeviceSetup& setup);

  /// Enqueues a frame. Its pointers are used until the stream has done it.
  void run(const DeviceFrame& frame, Stream stream);

  /// Device memory, of the last frame.
  const EdgeList& edges() const { return edge_detector_.edges(); }
  const Answers& answers() const { return answers_; }
  const StageClock& clock() const { return clock_; }

 private:
  void detect_edges(const DeviceFrame& frame, Stream stream);
  void extract_features(const ImageView& image, Stream stream);
  void classify(const ImageView& image, Stream stream);
  void estimate(const ImageView& image, Stream stream);
  void propagate(const DeviceFrame& frame, Stream stream);
  /// Asks a network about all edges, a batch at a time, and calls use(first edge of the batch).
  template <class Use>
  void evaluate(Graph network, const ImageView& image, Stream stream, const Use& use);

  const int height_, width_;
  const Options options_;
  const std::shared_ptr<const Model> model_;
  const double depth_threshold_;
  const NetworkShapes shapes_;
  const std::shared_ptr<Networks> networks_;
  const Tiling tiling_;
  Arena arena_;
  EdgeDetector edge_detector_;
  DomainTransform domain_transform_;
  Answers answers_;
  StageClock clock_;
  // Elements of the networks' type.
  std::byte *image_ = nullptr, *probabilities_ = nullptr;
  std::array<std::byte*, 3> inputs_{};         // of a batch: the three crops, or a head's features
  std::array<std::byte*, 4> trunk_outputs_{};  // of all tiles, in the order of the trunk's outputs
};

}  // namespace defocus_fast::cuda
