// SPDX-License-Identifier: Apache-2.0
// How a frame on the device asks the networks; what evaluates them (TensorRT, or a stand-in in the tests) is behind it.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "defocus_fast/estimator.hpp"  // Stream
#include "defocus_fast/span.hpp"

namespace defocus_fast::cuda {

/// The graphs of a model folder that the device evaluates: files graph_names[int(graph)] + ".onnx".
enum class Graph : std::uint8_t { trunk, edge_head, blur_head, edge_patch, blur_patch };
inline constexpr std::array<const char*, 5> graph_names{"trunk", "edge_head", "blur_head", "edge_patch", "blur_patch"};

/// Type of the elements of every input and output of every graph.
enum class TensorType : std::uint8_t { float32, float16 };

/// What the graphs' free dimensions are, in every evaluation: the trunk's image is (1, 3, image_height, image_width),
/// a head's features and a patch graph's crops are (head_batch, ...), and of the architecture "cells" a head's features
/// are the trunk's, (1, channels, cell_rows, cell_columns). What a last batch or tile does not fill is evaluated too
/// and never read.
struct NetworkShapes {
  TensorType type = TensorType::float32;
  int image_height = 0, image_width = 0;       // px, what the trunk reads around the tile included; patch: 0
  int head_batch = 0;                          // edges; cells: 0
  int cell_rows = 0, cell_columns = 0;         // cells in a tile; other architectures: 0
  Evaluation evaluation = Evaluation::shared;  // or patch

  /// Those that are evaluated; nobody asks for the others.
  Span<const Graph> graphs() const {
    static constexpr std::array shared{Graph::trunk, Graph::edge_head, Graph::blur_head};
    static constexpr std::array patch{Graph::edge_patch, Graph::blur_patch};
    return evaluation == Evaluation::patch ? Span<const Graph>(patch) : Span<const Graph>(shared);
  }
};

/// What an estimator of this size and these options will ask for. Throws as Estimator's constructor.
DEFOCUS_FAST_API NetworkShapes network_shapes(int height, int width, const Options& options);

/// What engines are built for.
struct GpuModel {
  int compute_capability = 0;  // 86 for 8.6
  std::string name;            // as the driver has it, "NVIDIA L4"
};

class Networks {
 public:
  virtual ~Networks() = default;
  /// Called once, when a GPU was found and before its memory is taken. Throws BackendUnavailable if something is absent
  /// without which nothing can be evaluated.
  virtual void prepare(const std::string& /*model_folder*/, const NetworkShapes& /*shapes*/, const GpuModel& /*gpu*/) {}
  /// Enqueues one evaluation of a graph; tensors are device pointers in the order of the ONNX file's inputs, then
  /// outputs, each laid out as the ONNX file says, without gaps, on 256-byte boundaries. Never waits for the stream and
  /// allocates nothing: a frame is captured into a CUDA graph.
  virtual void enqueue(Graph graph, Span<void* const> tensors, Stream stream) = 0;
};

}  // namespace defocus_fast::cuda
