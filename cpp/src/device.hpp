// SPDX-License-Identifier: Apache-2.0
// What the library and its CUDA part (cuda/, a library of its own, loaded when it is asked for) know of each other.
#pragma once

#include <memory>
#include <string>

#include "defocus_fast/estimator.hpp"
#include "defocus_fast/networks.hpp"
#include "formulas.hpp"
#include "model.hpp"

namespace defocus_fast {

/// One frame in device memory.
struct DeviceFrame {
  ImageView image;
  MaskView edges;  // replaces the edge detector if its data is not null
  int edge_stride = 1;
  MapView out;                         // px
  MapView expected_error = {};         // px, if its data is not null
  float* bin_probabilities = nullptr;  // (max_edges or, of the architecture "cells", cells; bins), may be null

  bool operator==(const DeviceFrame&) const = default;
};

/// Everything that a device needs to know, checked and with the defaults filled in.
struct DeviceSetup {
  int height, width;
  Options options;
  std::shared_ptr<const Model> model;
  double depth_threshold;
  Propagation propagation;
  bool learns_distances;
  int period;              // px, see pad_of()
  std::int32_t max_edges;  // not of the architecture "cells"
  cuda::NetworkShapes shapes;
};

class Device {
 public:
  virtual ~Device() = default;
  /// Enqueues a frame on `stream` and returns. Arguments are valid, but for where their memory lies: throws
  /// InvalidArgument for memory that this GPU does not reach.
  virtual void enqueue(const DeviceFrame& frame, cuda::Stream stream) = 0;
  /// Waits for the last frame.
  virtual EdgeCount edge_count(cuda::Stream stream) = 0;
  /// The same from and to host memory; waits for the answer. Fills all of `result` that `frame` asks for but the map.
  virtual void estimate(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame) = 0;
  // As Estimator's.
  virtual std::shared_ptr<float> make_map() = 0;
  virtual void order(cuda::Stream before, cuda::Stream after) = 0;
  virtual int gpu() const = 0;
};

/// The CUDA part's only symbol. Throws BackendUnavailable, which says what is missing.
extern "C" Device* defocus_fast_make_device(const char* version, const DeviceSetup& setup);

/// Loads the CUDA part from beside this library. Throws BackendUnavailable, which says what is missing.
std::unique_ptr<Device> make_device(const DeviceSetup& setup);

}  // namespace defocus_fast
