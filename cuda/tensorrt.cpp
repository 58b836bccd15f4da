// SPDX-License-Identifier: Apache-2.0
// The networks on the device by TensorRT or TensorRT-RTX, for programs without Python.
#include <NvInfer.h>

#include <array>
#include <deque>
#include <mutex>

#include "defocus_fast/error.hpp"
#include "engine_file.hpp"

namespace defocus_fast::cuda {

namespace {

#ifdef TRT_MAJOR_RTX
constexpr const char* package = "tensorrt_rtx-";
#else
constexpr const char* package = "tensorrt-";
#endif

/// Keeps errors for the exception to come. TensorRT may log from several threads.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity > Severity::kERROR) return;
    const std::lock_guard lock(mutex_);
    if (errors_.size() == 8) errors_.pop_front();
    errors_.emplace_back(message);
  }

  [[noreturn]] void fail(std::string message) {
    const std::lock_guard lock(mutex_);
    for (const std::string& error : errors_) message += ": " + error;
    errors_.clear();
    throw Error(message);
  }

 private:
  std::mutex mutex_;
  std::deque<std::string> errors_;
};

/// TensorRT takes one logger per process.
Logger& logger() {
  static Logger instance;
  return instance;
}

std::string version() {
  return std::to_string(getInferLibMajorVersion()) + '.' + std::to_string(getInferLibMinorVersion()) + '.' +
         std::to_string(getInferLibPatchVersion()) + '.' + std::to_string(getInferLibBuildVersion());
}

class TensorRt : public Networks {
 public:
  TensorRt() {
    // Classes differ between major versions, and TensorRT itself lets it pass.
    if (getInferLibMajorVersion() != NV_TENSORRT_MAJOR)
      throw BackendUnavailable("device: built for TensorRT " + std::to_string(NV_TENSORRT_MAJOR) + ", found " +
                               version());
    runtime_.reset(nvinfer1::createInferRuntime(logger()));
    if (!runtime_) logger().fail("device: TensorRT cannot be used");
  }

  void prepare(const std::string& model_folder, const NetworkShapes& shapes, const GpuModel& gpu) override {
    const std::string tensorrt = package + version();
    for (const Graph graph : shapes.graphs()) {
      const std::filesystem::path file = engine_folder() / engine_file_name(model_folder, graph, shapes, gpu, tensorrt);
      const EngineFile engine = read_engine_file(file);
      Loaded& loaded = graphs_[std::size_t(graph)];
      loaded.tensors = engine.tensors;
      loaded.engine.reset(runtime_->deserializeCudaEngine(engine.plan.data(), engine.plan.size()));
      if (!loaded.engine) logger().fail(file.string() + ": TensorRT refuses the engine");
      loaded.context.reset(loaded.engine->createExecutionContext());
      if (!loaded.context) logger().fail(file.string() + ": TensorRT cannot make an execution context");
    }
  }

  void enqueue(Graph graph, Span<void* const> tensors, Stream stream) override {
    const Loaded& loaded = graphs_[std::size_t(graph)];
    const std::string name = graph_names[std::size_t(graph)];
    if (tensors.size() != loaded.tensors.size())
      throw ModelError(name + ": expected " + std::to_string(tensors.size()) + " inputs and outputs, got " +
                       std::to_string(loaded.tensors.size()));
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (!loaded.context->setTensorAddress(loaded.tensors[i].c_str(), tensors[i]))
        logger().fail(name + ": TensorRT refuses the address of " + loaded.tensors[i]);
    if (!loaded.context->enqueueV3(stream)) logger().fail(name + ": TensorRT cannot enqueue it");
  }

 private:
  struct Loaded {
    std::vector<std::string> tensors;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::unique_ptr<nvinfer1::IExecutionContext> context;
  };

  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::array<Loaded, graph_names.size()> graphs_;
};

}  // namespace

std::shared_ptr<Networks> make_tensorrt() { return std::make_shared<TensorRt>(); }

}  // namespace defocus_fast::cuda
