// SPDX-License-Identifier: Apache-2.0
#include "arrays.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
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

/// Of a format's arrays in Python; `accepted` is for messages.
struct Layout {
  const char* accepted;
  int planes = 1;
  bool words = false;  // of 16 bits
  int numbers = 1;     // of a pixel in the first array
};

Layout layout_of(PixelFormat format) {
  switch (format) {
    case PixelFormat::gray8:
      return {"uint8 of shape (H, W)"};
    case PixelFormat::gray10:
    case PixelFormat::gray16:
      return {"uint16 of shape (H, W)", 1, true};
    case PixelFormat::rgb:
    case PixelFormat::bgr:
      return {"uint8 of shape (H, W, 3)", 1, false, 3};
    case PixelFormat::rgba:
    case PixelFormat::bgra:
    case PixelFormat::rgbx:
    case PixelFormat::bgrx:
      return {"uint8 of shape (H, W, 4)", 1, false, 4};
    case PixelFormat::yuyv:
      return {"uint8 of shape (H, W, 2)", 1, false, 2};
    case PixelFormat::i420:
      return {"uint8 of shape (H * 3 / 2, W) without gaps, or of shapes (H, W), (H / 2, W / 2) and (H / 2, W / 2)", 3};
    case PixelFormat::p010:
      return {"uint16 of shape (H * 3 / 2, W), or of shapes (H, W) and (H / 2, W) or (H / 2, W / 2, 2)", 2, true};
    default:
      return {"uint8 of shape (H * 3 / 2, W), or of shapes (H, W) and (H / 2, W) or (H / 2, W / 2, 2)", 2};
  }
}

/// Whether the numbers of a row lie side by side, so that the pitch says where all are.
bool has_rows(const py::array& array) {
  const py::ssize_t size = array.itemsize(), last = array.ndim() - 1;
  return array.strides(last) == size && (last == 1 || array.strides(1) == size * array.shape(2));
}

}  // namespace

Frame::Frame(const std::string& format, std::vector<py::array> arrays, const std::optional<std::string>& range,
             const std::string& matrix)
    : planes(std::move(arrays)) {
  const PixelFormat pixel_format = defocus_fast::pixel_format(format.c_str());
  const Layout layout = layout_of(pixel_format);
  const Colour colour = defocus_fast::colour(range ? range->c_str() : nullptr, matrix.c_str());

  std::string got;
  for (const py::array& plane : planes)
    got +=
        (got.empty() ? "" : " and ") + py::str("{} {}").format(plane.dtype(), plane.attr("shape")).cast<std::string>();
  const auto require = [&](bool holds) {
    if (!holds)
      throw py::value_error(format + ": expected " + layout.accepted + ", got " + (got.empty() ? "none" : got));
  };
  for (const py::array& plane : planes) {
    if (layout.words ? !holds<std::uint16_t>(plane) : !holds<std::uint8_t>(plane))
      throw py::type_error(format + ": expected " + layout.accepted + ", got " + got);
    require((plane.ndim() == 2 || plane.ndim() == 3) && plane.size() > 0 && plane.shape(0) <= INT32_MAX &&
            plane.shape(1) <= INT32_MAX);
    if (!has_rows(plane))
      throw py::value_error(format + ": expected rows without gaps between their pixels, got strides of " +
                            py::str(plane.attr("strides")).cast<std::string>() + " bytes");
    check_aligned(plane, format.c_str());
  }
  require(int(planes.size()) == layout.planes || planes.size() == 1);
  const py::array& first = planes[0];
  require(layout.numbers == 1 ? first.ndim() == 2 : first.ndim() == 3 && first.shape(2) == layout.numbers);
  const auto memory = [](const py::array& plane) { return FramePlane{plane.data(), plane.strides(0)}; };
  FramePlanes where{.first = memory(first), .second = {}, .third = {}};
  int height = int(first.shape(0));
  const int width = int(first.shape(1));
  if (planes.size() == 1 && layout.planes > 1) {
    require(height % 3 == 0);
    height = height / 3 * 2;
    const auto* const colours = static_cast<const std::byte*>(first.data()) + height * first.strides(0);
    where.second = {colours, first.strides(0)};
    if (layout.planes == 3) {
      require(first.strides(0) == width);  // what follows the rows of Y has no rows of the array
      where.second.pitch_bytes = width / 2;
      where.third = {colours + std::ptrdiff_t{height / 2} * (width / 2), width / 2};
    }
  } else if (planes.size() > 1) {
    const bool apart = layout.planes == 3;
    for (std::size_t i = 1; i < planes.size(); ++i) {
      const py::array& plane = planes[i];
      const py::ssize_t numbers = plane.shape(1) * (plane.ndim() == 3 ? plane.shape(2) : 1);
      require(plane.shape(0) == height / 2 && numbers == (apart ? width / 2 : width / 2 * 2) &&
              (plane.ndim() == 2 || (!apart && plane.shape(2) == 2)));
      (i == 1 ? where.second : where.third) = memory(plane);
    }
  }
  view = ImageView::of(pixel_format, height, width, where, colour);
}

ImageView image_view(const py::object& image, const char* name) {
  return py::isinstance<Frame>(image) ? image.cast<const Frame&>().view : image_view(image.cast<py::array>(), name);
}

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
