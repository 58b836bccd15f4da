// SPDX-License-Identifier: Apache-2.0
// The core's table of options to Python, and keyword arguments to the core's structs.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "defocus_fast/options.hpp"

namespace defocus_fast::python {

namespace py = pybind11;

/// What the keyword arguments of a call are about; each call has options in some of the structs.
struct Arguments {
  Options options;
  FrameOptions frame;
  VideoOptions video;
  FocusOptions focus;
  CannyOptions canny;
  FilterOptions filter;
};

/// The call's arguments in place of the defaults. Throws TypeError and ValueError.
Arguments read(const char* call, py::kwargs arguments);

/// option_table(call), and frame_options.
void define_options(py::module_& m);

/// ndimage's Gaussian kernel from this machine's NumPy, see CannyOptions::smoothing.
std::vector<double> numpy_gaussian(double sigma);

}  // namespace defocus_fast::python
