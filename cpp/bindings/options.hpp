// SPDX-License-Identifier: Apache-2.0
// The core's table of options to Python, and keyword arguments to the core's structs.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "defocus_fast/options.hpp"

namespace defocus_fast::python {

namespace py = pybind11;

// ---- the calls that take options; parts(part) calls part(struct, names) for every struct that they go to: all of its
// options, or those that are named, by themselves or by their group

using Names = std::vector<std::string>;
inline const Names running{"num_threads", "kernels"};

struct EstimatorCall {
  static constexpr const char* name = "Estimator";
  Options options;
  void parts(const auto& part) { part(options, Names{}); }
};
struct EstimateCall {
  static constexpr const char* name = "estimate";
  FrameOptions frame;
  void parts(const auto& part) { part(frame, Names{}); }
};
struct EstimateIntoCall {
  static constexpr const char* name = "estimate_into";
  FrameOptions frame;
  void parts(const auto& part) { part(frame, Names{"edge_stride"}); }
};
struct DetectEdgesCall {
  static constexpr const char* name = "detect_edges";
  CannyOptions canny;
  Options run;
  void parts(const auto& part) { part(canny, Names{}), part(run, running); }
};
struct FilterCall {
  static constexpr const char* name = "domain_transform_filter";
  FilterOptions filter;
  Options run;
  void parts(const auto& part) { part(filter, Names{}), part(run, running); }
};
struct PropagateCall {
  static constexpr const char* name = "propagate";
  Options options;
  void parts(const auto& part) { part(options, Names{"propagation", "guide"}), part(options, running); }
};

/// The call with its defaults, and with those arguments in place of some. Throws TypeError and ValueError.
template <class Call>
Call read(py::kwargs arguments);

/// Fields of the Python class Option, and option_table(call).
void define_options(py::module_& m);

/// ndimage's Gaussian kernel from this machine's NumPy, see CannyOptions::smoothing.
std::vector<double> numpy_gaussian(double sigma);

}  // namespace defocus_fast::python
