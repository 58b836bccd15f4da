// SPDX-License-Identifier: Apache-2.0
// The time of each stage of a frame, by events between them.
#pragma once

#include <array>

#include "launch.hpp"
#include "stages.hpp"

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

  /// All stages but the last come once per octave.
  void begin(std::size_t octave, Stage stage, Stream stream) { record(events_[index(octave, stage)], stream); }
  /// Of the last stage.
  void end(Stream stream) { record(events_.back(), stream); }

  /// Of the last frame, which had so many octaves and must have been waited for.
  std::array<double, stage_names.size()> stage_ms(std::size_t octaves) const {
    std::array<double, stage_names.size()> result{};
    const auto add = [&](Stage stage, std::size_t from, std::size_t to) {
      float ms = 0;
      check(cudaEventElapsedTime(&ms, events_[from], events_[to]), "cudaEventElapsedTime");
      result[std::size_t(stage)] += double(ms);
    };
    for (std::size_t octave = 0; octave < octaves; ++octave)
      for (std::size_t i = 0; i < per_octave; ++i) {
        const bool last = i + 1 == per_octave, end = last && octave + 1 == octaves;
        const std::size_t from = octave * per_octave + i;
        add(Stage(i), from, end ? index(0, Stage::propagate) : from + 1);
      }
    add(Stage::propagate, index(0, Stage::propagate), events_.size() - 1);
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

  static constexpr std::size_t per_octave = std::size_t(Stage::propagate);
  static constexpr std::size_t index(std::size_t octave, Stage stage) {
    return stage == Stage::propagate ? per_octave * Octaves::most : octave * per_octave + std::size_t(stage);
  }

  std::array<cudaEvent_t, per_octave * Octaves::most + 2> events_{};
};

}  // namespace defocus_fast::cuda
