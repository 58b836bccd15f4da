// SPDX-License-Identifier: Apache-2.0
// A frame's launches as a CUDA graph, so that the host enqueues one thing per frame instead of hundreds.
#pragma once

#include <deque>
#include <utility>

#include "../cpp/src/device.hpp"
#include "launch.hpp"

namespace defocus_fast::cuda {

#ifdef DEFOCUS_FAST_EMULATION

/// The emulation has no graphs: launches are eager.
class FrameGraphs {
 public:
  template <class Run>
  void launch(const DeviceFrame& frame, Stream stream, const Run& run) {
    run(frame, stream);
  }
};

#else

class FrameGraphs {
 public:
  FrameGraphs() { check(cudaStreamCreateWithFlags(&capture_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~FrameGraphs() {
    for (const Entry& entry : entries_)
      if (entry.graph) cudaGraphExecDestroy(entry.graph);
    cudaStreamDestroy(capture_);
  }
  FrameGraphs(const FrameGraphs&) = delete;
  FrameGraphs& operator=(const FrameGraphs&) = delete;

  /// The first frame with given arguments runs as it is, since engines prepare themselves in their first evaluation;
  /// the second is captured, and replayed from then on. Within the caller's own capture frames run as they are.
  template <class Run>
  void launch(const DeviceFrame& frame, Stream stream, const Run& run) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    if (status != cudaStreamCaptureStatusNone) return run(frame, stream);
    for (Entry& entry : entries_)
      if (entry.frame == frame) {
        if (!entry.graph) entry.graph = capture(frame, run);
        return check(cudaGraphLaunch(entry.graph, stream), "cudaGraphLaunch");
      }
    run(frame, stream);
    if (entries_.size() == most_graphs) {
      if (entries_.front().graph) check(cudaGraphExecDestroy(entries_.front().graph), "cudaGraphExecDestroy");
      entries_.pop_front();
    }
    entries_.push_back({frame, nullptr});
  }

 private:
  static constexpr std::size_t most_graphs = 16;  // a camera's ring of buffers

  struct Entry {
    DeviceFrame frame;
    cudaGraphExec_t graph;
  };

  template <class Run>
  cudaGraphExec_t capture(const DeviceFrame& frame, const Run& run) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(capture_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    try {
      run(frame, capture_);
    } catch (...) {
      cudaStreamEndCapture(capture_, &graph);
      cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(capture_, &graph), "cudaStreamEndCapture");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(made, "cudaGraphInstantiate");
    return executable;
  }

  cudaStream_t capture_ = nullptr;
  std::deque<Entry> entries_;
};

#endif

}  // namespace defocus_fast::cuda
