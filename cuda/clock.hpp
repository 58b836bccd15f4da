// SPDX-License-Identifier: Apache-2.0
// The time of each stage of a frame, by events between them.
#pragma once

#include <array>

#include "defocus_fast/estimator.hpp"
#include "launch.hpp"

namespace defocus_fast::cuda {

class StageClock {
 public:
  StageClock() {
    for (cudaEvent_t& event : events_) check(cudaEventCreate(&event), "cudaEventCreate");
  }
  ~StageClock() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  StageClock(const StageClock&) = delete;
  StageClock& operator=(const StageClock&) = delete;

  void begin(Stage stage, Stream stream) { record(events_[std::size_t(stage)], stream); }
  /// Of the last stage.
  void end(Stream stream) { record(events_.back(), stream); }

  /// Of the last frame, which must have been waited for.
  std::array<double, stage_names.size()> stage_ms() const {
    std::array<double, stage_names.size()> result{};
    for (std::size_t i = 0; i < result.size(); ++i) {
      float ms = 0;
      check(cudaEventElapsedTime(&ms, events_[i], events_[i + 1]), "cudaEventElapsedTime");
      result[i] = double(ms);
    }
    return result;
  }

 private:
  /// Within a capture a plain event is no part of the graph, and would not be recorded when it is launched.
  static void record(cudaEvent_t event, Stream stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    const unsigned flags = status == cudaStreamCaptureStatusNone ? cudaEventRecordDefault : cudaEventRecordExternal;
    check(cudaEventRecordWithFlags(event, stream, flags), "cudaEventRecord");
  }

  std::array<cudaEvent_t, stage_names.size() + 1> events_{};
};

}  // namespace defocus_fast::cuda
