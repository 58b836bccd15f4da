// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>

#include "../cpp/src/device.hpp"
#include "clock.hpp"
#include "defocus_fast/networks.hpp"
#include "stages.hpp"

namespace defocus_fast::cuda {

/// How the trunk's fixed image size cuts an image into tiles; without a trunk there are none.
struct Tiling {
  int down, across;   // tiles; the last ones may reach beyond the image
  int height, width;  // px
  int margin;         // px that the trunk reads around a tile
  int rows, columns;  // of the trunk's outputs
  std::size_t pitch;  // bytes from tile to tile of an output
};

/// The canvas at one size, and what was found in it.
struct Octave {
  /// Of the image in which edges are detected.
  Octave(int height, int width, const CannyOptions& canny, Arena& arena) : detector(height, width, canny, arena) {}
  Canvas canvas() const { return {answers.height, answers.width, pad}; }

  Pixel* pad = nullptr;         // of the first octave, unless there is no canvas
  ImageView image;              // without the pad
  std::byte* pixels = nullptr;  // of the image, unless it is the caller's
  EdgeDetector detector;
  EdgeList edges;
  Answers answers;
  Tiling tiling{};
};

/// Frames of one size on the device: the stages in order, on one stream, without allocation or any wait for the device.
/// One frame at a time: the next one on another stream must wait for the stream of this one.
class Estimator {
 public:
  explicit Estimator(const DeviceSetup& setup);

  /// Enqueues a frame. Its pointers are used until the stream has done it.
  void run(const DeviceFrame& frame, Stream stream);

  /// From fine to coarse; the last frame's are in device memory.
  const std::deque<Octave>& octaves() const { return octaves_; }
  /// An octave's part of the frame's.
  float* bin_probabilities(const DeviceFrame& frame, std::size_t octave) const;
  const StageClock& clock() const { return clock_; }
  /// Of DeviceFrame::bin_probabilities.
  std::size_t bin_rows() const;
  /// That are read of a frame.
  std::size_t count(const DeviceFrame& frame) const { return frame.edges.data ? 1 : octaves_.size(); }

 private:
  void reduce(const DeviceFrame& frame, Stream stream);
  void detect_first_edges(const DeviceFrame& frame, Stream stream);
  void detect_edges(const DeviceFrame& frame, std::size_t octave, Stream stream);
  void extract_features(const Octave& octave, Stream stream);
  void classify_edges(const Octave& octave, Stream stream);
  void estimate_radii(const DeviceFrame& frame, std::size_t octave, Stream stream);
  std::size_t bin_rows(const Octave& octave) const;
  void propagate(const DeviceFrame& frame, Stream stream);

  enum class Head : std::uint8_t { edge, blur };
  /// Asks a network about all edges or cells, some at a time, and calls read(what it was asked about).
  template <class Read>
  void ask(Head head, const Octave& octave, Stream stream, const Read& read);
  bool by_cell() const { return model_->architecture == Architecture::cells; }

  const int height_, width_;  // px, of the canvas
  const int period_;          // px, see pad_of()
  const Options options_;
  const std::shared_ptr<const Model> model_;
  const double depth_threshold_;
  const Propagation propagation_;
  const NetworkShapes shapes_;
  const std::shared_ptr<Networks> networks_;
  const RadiusBins bins_;
  Arena arena_;
  std::deque<Octave> octaves_;
  // In the octave in which radii are spread, unless it is the first.
  std::uint8_t* barriers_ = nullptr;
  float *spread_map_ = nullptr, *spread_error_ = nullptr;
  DomainTransform domain_transform_;
  std::optional<LearnedDistances> distances_;
  StageClock clock_;
  // Elements of the networks' type.
  std::byte *image_ = nullptr, *probabilities_ = nullptr;
  std::array<std::byte*, 3> inputs_{};  // of a batch: the three crops, or a head's features
  std::array<std::byte*, 4>
      trunk_outputs_{};  // of an octave's tiles; tip22: blur_u, blur_v, edge_u, edge_v; cells: one
};

}  // namespace defocus_fast::cuda
