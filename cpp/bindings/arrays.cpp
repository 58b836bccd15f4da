// SPDX-License-Identifier: Apache-2.0
#include "arrays.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace defocus_fast::python {

namespace {

template <class Exception>
[[noreturn]] void reject(const char* name, const char* accepted, const py::array& array) {
  const std::string got = py::str("{} {}").format(array.dtype(), array.attr("shape")).cast<std::string>();
  const std::string message = std::string(name) + ": expected " + accepted + ", got " + got;
  throw Exception(message);
}

void check_aligned(const py::array& array, const char* name) {
  constexpr int aligned = 0x0100;  // NPY_ARRAY_ALIGNED
  if (!(array.flags() & aligned))
    reject<py::value_error>(name, "an aligned array (numpy.require(..., requirements=\"A\"))", array);
}

template <class T>
bool holds(const py::array& array) {
  return array.dtype().is(py::dtype::of<T>()) || array.dtype().equal(py::dtype::of<T>());
}

template <class T>
View<const T> plane_view(const py::array& array, const char* name, const char* accepted) {
  if (array.ndim() != 2 || array.size() == 0 || array.shape(0) > INT32_MAX || array.shape(1) > INT32_MAX)
    reject<py::value_error>(name, accepted, array);
  check_aligned(array, name);
  return {static_cast<const T*>(array.data()), int(array.shape(0)), int(array.shape(1)), array.strides(0),
          array.strides(1)};
}

}  // namespace

ImageView image_view(const py::array& array, const char* name, bool only_float) {
  const char* accepted =
      only_float ? "float32 of shape (H, W) or (H, W, 3)" : "uint8 or float32 in [0, 1] of shape (H, W) or (H, W, 3)";
  if (!holds<float>(array) && (only_float || !holds<std::uint8_t>(array)))
    reject<py::type_error>(name, accepted, array);
  if ((array.ndim() != 2 && array.ndim() != 3) || (array.ndim() == 3 && array.shape(2) != 3) || array.size() == 0 ||
      array.shape(0) > INT32_MAX || array.shape(1) > INT32_MAX)
    reject<py::value_error>(name, accepted, array);
  check_aligned(array, name);
  const bool colour = array.ndim() == 3;
  return {array.data(),        holds<float>(array) ? PixelType::float32 : PixelType::uint8,
          int(array.shape(0)), int(array.shape(1)),
          colour ? 3 : 1,      array.strides(0),
          array.strides(1),    colour ? array.strides(2) : array.itemsize()};
}

MaskView mask_view(const py::array& array, const char* name) {
  const char* accepted = "bool or uint8 of shape (H, W)";
  if (!holds<bool>(array) && !holds<std::uint8_t>(array)) reject<py::type_error>(name, accepted, array);
  return plane_view<std::uint8_t>(array, name, accepted);
}

RadiiView radii_view(const py::array& array, const char* name) {
  const char* accepted = "float32 of shape (H, W)";
  if (!holds<float>(array)) reject<py::type_error>(name, accepted, array);
  return plane_view<float>(array, name, accepted);
}

MapView map_view(py::array& array, const char* name) {
  const RadiiView view = radii_view(array, name);
  if (!array.writeable())
    throw py::value_error(std::string(name) + ": expected a writeable array, got a read-only one");
  return {static_cast<float*>(array.mutable_data()), view.height, view.width, view.pitch_bytes,
          view.pixel_stride_bytes};
}

MaskView mask_view(const std::optional<py::array>& array, const char* name) {
  return array ? mask_view(*array, name) : MaskView{};
}

MapView map_view(std::optional<py::array>& array, const char* name) {
  return array ? map_view(*array, name) : MapView{};
}

py::dict arrays_of(std::unique_ptr<BlurMap> owned) {
  using Shape = std::vector<py::ssize_t>;
  const BlurMap& result = *owned;
  const py::capsule owner(owned.release(), [](void* memory) { delete static_cast<BlurMap*>(memory); });
  const auto expose = [&]<class T, class Stored>(T, const std::vector<Stored>& data, Shape shape) {
    return py::array(py::dtype::of<T>(), std::move(shape), reinterpret_cast<const T*>(data.data()), owner);
  };
  const Edges& edges = result.edges;
  const auto n = py::ssize_t(edges.size());
  const Shape pixels{result.height, result.width}, none{0, 0};
  const auto bins = py::ssize_t(edges.bin_probabilities.size()) / std::max(n, py::ssize_t{1});

  py::dict arrays, stages;
  arrays["map"] = expose(float{}, result.map, pixels);
  arrays["expected_error"] = expose(float{}, result.expected_error, result.expected_error.empty() ? none : pixels);
  arrays["pattern_edges"] = expose(bool{}, result.pattern_edges, pixels);
  arrays["depth_edges"] = expose(bool{}, result.depth_edges, pixels);
  arrays["edges"] = expose(std::int32_t{}, edges.position, {n, 2});
  arrays["octave"] = expose(std::uint8_t{}, edges.octave, {n});
  arrays["depth_probability"] = expose(float{}, edges.depth_probability, {n});
  arrays["radii"] = expose(float{}, edges.radius, {n});
  arrays["radius_std"] = expose(float{}, edges.radius_std, {n});
  arrays["radius_probability"] = expose(float{}, edges.radius_probability, {n});
  arrays["bin_probabilities"] = expose(float{}, edges.bin_probabilities, bins > 0 ? Shape{n, bins} : none);
  for (std::size_t i = 0; i < stage_names.size(); ++i) stages[stage_names[i]] = result.stage_ms[i];
  arrays["stage_ms"] = stages;
  return arrays;
}

}  // namespace defocus_fast::python
