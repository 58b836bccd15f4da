// SPDX-License-Identifier: Apache-2.0
// Between arrays of Python and views; nothing is copied.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "defocus_fast/estimator.hpp"

namespace defocus_fast::python {

namespace py = pybind11;

/// A camera's frame, whose arrays it keeps.
struct Frame {
  Frame(const std::string& format, std::vector<py::array> planes, const std::optional<std::string>& range,
        const std::string& matrix);
  std::vector<py::array> planes;
  ImageView view;
};

/// Of an (H, W) or (H, W, 3) array, whatever its strides. These throw TypeError or ValueError, which begin with `name`.
ImageView image_view(const py::array& array, const char* name, bool only_float = false);
/// The same, or of a Frame.
ImageView image_view(const py::object& image, const char* name);
MaskView mask_view(const py::array& array, const char* name);
RadiiView radii_view(const py::array& array, const char* name);
MapView map_view(py::array& array, const char* name);
/// Of no array: no data.
MaskView mask_view(const std::optional<py::array>& array, const char* name);
MapView map_view(std::optional<py::array>& array, const char* name);

/// The fields of BlurMap (python/defocus_fast/_results.py): arrays over the result's memory, which they keep.
py::dict arrays_of(std::unique_ptr<BlurMap> result);

}  // namespace defocus_fast::python
