// SPDX-License-Identifier: Apache-2.0
// A frame's launches as a CUDA graph, so that the host enqueues one thing per frame instead of hundreds; and the order
// of frames on several streams.
#pragma once

#include <deque>
#include <utility>

#include "../cpp/src/device.hpp"
#include "launch.hpp"

namespace defocus_fast::cuda {

#ifdef DEFOCUS_FAST_EMULATION

/// The emulation has neither graphs nor streams: launches are eager.
class Event {
 public:
  void record(Stream) {}
  void hold(Stream) {}
};

class FrameGraphs {
 public:
  void follow(Stream) {}
  template <class Run>
  void launch(const DeviceFrame& frame, Stream stream, const Run& run) {
    run(frame, stream);
  }
};

#else

/// A place in a stream.
class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(Stream stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  /// What is enqueued on `stream` from now on waits for what was recorded last.
  void hold(Stream stream) { check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }

 private:
  cudaEvent_t event_ = nullptr;
};

class FrameGraphs {
 public:
  FrameGraphs() { check(cudaStreamCreateWithFlags(&capture_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~FrameGraphs() {
    for (const Entry& entry : entries_)
      if (entry.graph) cudaGraphExecDestroy(entry.graph);
    cudaStreamDestroy(capture_);
  }

  /// The first frame with given arguments runs as it is, since engines prepare themselves in their first evaluation;
  /// the second is captured, and replayed from then on. Within the caller's own capture frames run as they are, and
  /// the caller orders the graph's launches.
  template <class Run>
  void launch(const DeviceFrame& frame, Stream stream, const Run& run) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    if (status != cudaStreamCaptureStatusNone) return run(frame, stream);
    follow(stream);
    launch_or_run(frame, stream, run);
    last_frame_.record(stream);
  }

  /// What is enqueued on `stream` from now on waits for the last frame, whatever stream that was on.
  void follow(Stream stream) { last_frame_.hold(stream); }

 private:
  static constexpr std::size_t most_graphs = 16;  // a camera's ring of buffers

  struct Entry {
    DeviceFrame frame;
    cudaGraphExec_t graph;
  };

  template <class Run>
  void launch_or_run(const DeviceFrame& frame, Stream stream, const Run& run) {
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
  Event last_frame_;
  std::deque<Entry> entries_;
};

#endif

}  // namespace defocus_fast::cuda
