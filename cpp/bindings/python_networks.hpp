// SPDX-License-Identifier: Apache-2.0
// Networks that a Python object evaluates.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "defocus_fast/networks.hpp"

namespace defocus_fast::python {

namespace py = pybind11;

/// networks(graph, pointers, stream) is called, after networks.prepare(...) if it has one.
std::shared_ptr<cuda::Networks> networks_of(py::object networks);

/// graph -> name -> size, of the ONNX files' free dimensions; the graphs that are evaluated.
py::dict free_dimensions(const cuda::NetworkShapes& shapes);

}  // namespace defocus_fast::python
