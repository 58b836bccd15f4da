// SPDX-License-Identifier: Apache-2.0
#include "python_networks.hpp"

#include <string>
#include <utility>

#include "defocus_fast/error.hpp"
#include "python_object.hpp"

namespace defocus_fast::python {

namespace {

class PythonNetworks : public cuda::Networks {
 public:
  explicit PythonNetworks(py::object networks) : networks_(std::move(networks)) {}

  void prepare(const std::string& model_folder, const cuda::NetworkShapes& shapes, const cuda::GpuModel& gpu) override {
    const GilAcquire acquire;
    if (!py::hasattr(*networks_, "prepare")) return;
    try {
      const auto folder = py::reinterpret_steal<py::object>(
          PyUnicode_DecodeFSDefaultAndSize(model_folder.data(), py::ssize_t(model_folder.size())));
      if (!folder) throw py::error_already_set();
      call((*networks_).attr("prepare"),
           py::make_tuple(folder, shapes.type == cuda::TensorType::float16 ? "float16" : "float32",
                          free_dimensions(shapes), gpu.compute_capability, gpu.name));
    } catch (const py::error_already_set& error) {
      // What is absent is the core's to judge: device "auto" takes the CPU then.
      if (!error.matches(py::module_::import("defocus_fast._core").attr("BackendUnavailable"))) throw;
      throw BackendUnavailable(py::str(error.value()).cast<std::string>());
    }
  }

  void enqueue(cuda::Graph graph, Span<void* const> tensors, cuda::Stream stream) override {
    const GilAcquire acquire;
    py::list pointers;
    for (void* tensor : tensors) pointers.append(reinterpret_cast<std::uintptr_t>(tensor));
    call(*networks_,
         py::make_tuple(cuda::graph_names[std::size_t(graph)], pointers, reinterpret_cast<std::uintptr_t>(stream)));
  }

 private:
  PythonObject networks_;
};

}  // namespace

std::shared_ptr<cuda::Networks> networks_of(py::object networks) {
  return std::make_shared<PythonNetworks>(std::move(networks));
}

py::dict free_dimensions(const cuda::NetworkShapes& shapes) {
  py::dict result;
  for (const cuda::Graph graph : shapes.graphs()) {
    py::dict sizes;
    if (graph == cuda::Graph::trunk) {
      sizes["H"] = shapes.image_height;
      sizes["W"] = shapes.image_width;
    } else if (shapes.cell_rows > 0) {
      sizes["rows"] = shapes.cell_rows;
      sizes["columns"] = shapes.cell_columns;
    } else {
      sizes["N"] = shapes.head_batch;
    }
    result[cuda::graph_names[std::size_t(graph)]] = sizes;
  }
  return result;
}

}  // namespace defocus_fast::python
