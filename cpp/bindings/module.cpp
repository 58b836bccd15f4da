// SPDX-License-Identifier: Apache-2.0
// Conversion between arrays and views; nothing else happens here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"
#include "defocus_fast/networks.hpp"
#include "dlpack.hpp"

namespace py = pybind11;
using namespace defocus_fast;

namespace {

std::string describe(const py::array& array) {
  return py::str("{} {}").format(array.dtype(), array.attr("shape")).cast<std::string>();
}

template <class Exception>
[[noreturn]] void reject(const char* name, const char* accepted, const py::array& array) {
  const std::string message = std::string(name) + ": expected " + accepted + ", got " + describe(array);
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

/// A view of an (H, W) or (H, W, 3) array, whatever its strides.
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

template <class T>
View<const T> plane_view(const py::array& array, const char* name, const char* accepted) {
  if (array.ndim() != 2 || array.size() == 0 || array.shape(0) > INT32_MAX || array.shape(1) > INT32_MAX)
    reject<py::value_error>(name, accepted, array);
  check_aligned(array, name);
  return {static_cast<const T*>(array.data()), int(array.shape(0)), int(array.shape(1)), array.strides(0),
          array.strides(1)};
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

/// An array over memory that `owner` keeps alive.
template <class T, class Stored>
py::array expose(const std::vector<Stored>& data, std::vector<py::ssize_t> shape, const py::object& owner) {
  return py::array(py::dtype::of<T>(), std::move(shape), reinterpret_cast<const T*>(data.data()), owner);
}

py::ssize_t edge_count(const BlurMap& result) { return py::ssize_t(result.edges.size()); }

template <class T, auto member, class Class, class Shape>
void def_edge_array(Class& type, const char* name, const Shape& shape, const char* doc) {
  type.def_property_readonly(
      name,
      [shape](const py::object& self) {
        const auto& result = self.cast<const BlurMap&>();
        return expose<T>(result.edges.*member, shape(result), self);
      },
      doc);
}

/// Adds a property that shows one of the result's vectors in the shape that `shape(result)` tells.
template <class T, auto member, class Class, class Shape>
void def_array(Class& type, const char* name, const Shape& shape, const char* doc) {
  type.def_property_readonly(
      name,
      [shape](const py::object& self) {
        const auto& result = self.cast<const BlurMap&>();
        return expose<T>(result.*member, shape(result), self);
      },
      doc);
}

template <class Enum>
Enum parse(const char* name, const std::string& value, const std::vector<std::pair<const char*, Enum>>& accepted) {
  std::string names;
  for (const auto& [text, meaning] : accepted) {
    if (value == text) return meaning;
    names += (names.empty() ? "" : ", ") + std::string(text);
  }
  throw InvalidArgument(std::string(name) + ": expected one of " + names + ", got \"" + value + '"');
}

const std::vector<std::pair<const char*, Precision>> precisions{{"auto", Precision::automatic},
                                                                {"float32", Precision::float32},
                                                                {"bfloat16", Precision::bfloat16},
                                                                {"float16", Precision::float16},
                                                                {"int8", Precision::int8}};

const std::vector<std::pair<const char*, Evaluation>> evaluations{{"shared", Evaluation::shared},
                                                                  {"patch", Evaluation::patch}};

/// graph -> name -> size, of the ONNX files' free dimensions; the graphs that are evaluated.
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

/// Networks that a Python object evaluates: networks(graph, pointers, stream), after networks.prepare(...) if it has
/// one.
class PythonNetworks : public cuda::Networks {
 public:
  explicit PythonNetworks(py::object networks) : networks_(std::move(networks)) {}
  ~PythonNetworks() override {
    const py::gil_scoped_acquire acquire;
    networks_ = {};
  }
  PythonNetworks(const PythonNetworks&) = delete;
  PythonNetworks& operator=(const PythonNetworks&) = delete;

  void prepare(const std::string& model_folder, const cuda::NetworkShapes& shapes, const cuda::GpuModel& gpu) override {
    const py::gil_scoped_acquire acquire;
    if (!py::hasattr(networks_, "prepare")) return;
    try {
      networks_.attr("prepare")(model_folder, shapes.type == cuda::TensorType::float16 ? "float16" : "float32",
                                free_dimensions(shapes), gpu.compute_capability, gpu.name);
    } catch (const py::error_already_set& error) {
      // What is absent is the core's to judge: device "auto" takes the CPU then.
      if (!error.matches(py::module_::import("defocus_fast._core").attr("BackendUnavailable"))) throw;
      throw BackendUnavailable(py::str(error.value()).cast<std::string>());
    }
  }

  void enqueue(cuda::Graph graph, std::span<void* const> tensors, cuda::Stream stream) override {
    const py::gil_scoped_acquire acquire;
    py::list pointers;
    for (void* tensor : tensors) pointers.append(reinterpret_cast<std::uintptr_t>(tensor));
    networks_(cuda::graph_names[std::size_t(graph)], pointers, reinterpret_cast<std::uintptr_t>(stream));
  }

 private:
  py::object networks_;
};

/// Device memory of one value per pixel.
struct DeviceMap {
  std::shared_ptr<float> memory;
  int height, width, gpu;
};

cuda::Stream device_stream(std::uintptr_t stream) { return reinterpret_cast<cuda::Stream>(stream); }

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  py::register_exception<Error>(m, "Error", PyExc_RuntimeError);
  auto base = m.attr("Error");
  py::register_exception<BackendUnavailable>(m, "BackendUnavailable", base);
  py::register_exception<ModelError>(m, "ModelError", base);
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const InvalidArgument& invalid) {
      PyErr_SetString(PyExc_ValueError, invalid.what());
    }
  });

  for (const char* name : {"Error", "BackendUnavailable", "ModelError"})
    m.attr(name).attr("__module__") = "defocus_fast";

  using Shape = std::vector<py::ssize_t>;
  // The docstrings are those of _core.pyi; tests/test_estimator.py compares.
  py::class_<BlurMap, std::shared_ptr<BlurMap>> blur_map(
      m, "BlurMap", "One image's answer. Arrays over edges have one entry per edge pixel, in row-major order.");
  const auto picture = [](const BlurMap& result) { return Shape{result.height, result.width}; };
  const auto per_edge = [](const BlurMap& result) { return Shape{edge_count(result)}; };
  def_array<float, &BlurMap::map>(blur_map, "map", picture, "(H, W) radius in px of the disk that blurred each pixel.");
  def_array<float, &BlurMap::expected_error>(
      blur_map, "expected_error",
      [](const BlurMap& result) {
        return result.expected_error.empty() ? Shape{0, 0} : Shape{result.height, result.width};
      },
      R"((H, W) expected absolute error of the map in px, calibrated on synthetic scenes; (0, 0) if not wanted.

sqrt(a**2 + (b * s)**2): s is the standard deviation of the mixture of all edges' posteriors that the filter
brings to the pixel (the model's largest radius where it brings none), a and b belong to the model.
``labels="hard"`` leaves it uncalibrated, and it knows nothing of blur beyond the largest radius.)");
  def_array<bool, &BlurMap::pattern_edges>(blur_map, "pattern_edges", picture,
                                           "(H, W) edges at which the radius was read.");
  def_array<bool, &BlurMap::depth_edges>(blur_map, "depth_edges", picture, "(H, W) edges that the map does not cross.");
  def_edge_array<std::int32_t, &Edges::position>(
      blur_map, "edges", [](const BlurMap& result) { return Shape{edge_count(result), 2}; },
      "(n, 2) row and column of every edge pixel.");
  def_edge_array<float, &Edges::depth_probability>(blur_map, "depth_probability", per_edge,
                                                   "(n,) probability that the edge is a depth edge.");
  def_edge_array<float, &Edges::radius>(
      blur_map, "radii", per_edge,
      "(n,) radius in px, by the estimator's `labels`; at depth edges that of the nearer side.");
  def_edge_array<float, &Edges::radius_std>(blur_map, "radius_std", per_edge,
                                            "(n,) standard deviation in px of the blur network's probabilities.");
  def_edge_array<float, &Edges::radius_probability>(blur_map, "radius_probability", per_edge,
                                                    "(n,) probability of the most probable bin.");
  def_edge_array<float, &Edges::bin_probabilities>(
      blur_map, "bin_probabilities",
      [](const BlurMap& result) {
        const auto edges = std::max(edge_count(result), py::ssize_t{1});
        const auto bins = py::ssize_t(result.edges.bin_probabilities.size()) / edges;
        return Shape{bins > 0 ? edges : 0, bins};
      },
      "(n, bins) probability of every radius; (0, 0) unless asked for.");
  blur_map.attr("__module__") = "defocus_fast";
  blur_map.def("__repr__", [](const BlurMap& result) {
    return "BlurMap(" + std::to_string(result.height) + " x " + std::to_string(result.width) + ", " +
           std::to_string(edge_count(result)) + " edges)";
  });
  blur_map.def_property_readonly(
      "stage_ms",
      [](const BlurMap& result) {
        py::dict stages;
        for (std::size_t i = 0; i < stage_names.size(); ++i) stages[stage_names[i]] = result.stage_ms[i];
        return stages;
      },
      "Milliseconds of each stage, in the order in which they run; on a GPU by its own clock, without copies.");

  py::class_<DeviceMap>(m, "DeviceMap")
      .def_property_readonly("pointer",
                             [](const DeviceMap& self) { return reinterpret_cast<std::uintptr_t>(self.memory.get()); })
      .def_readonly("gpu", &DeviceMap::gpu)
      .def(
          "to_dlpack",
          [](const DeviceMap& self, bool versioned) {
            const auto make =
                versioned ? dlpack::to_capsule<dlpack::ManagedVersioned> : dlpack::to_capsule<dlpack::Managed>;
            return make(self.memory, self.height, self.width, self.gpu);
          },
          py::arg("versioned"));
  m.def("from_dlpack", &dlpack::from_capsule, py::arg("capsule"), py::arg("name"));

  py::class_<Estimator>(m, "Estimator")
      .def(py::init([](int height, int width, const std::string& model, const std::string& device,
                       const std::string& precision, const std::string& evaluation, std::optional<int> num_threads,
                       const std::string& kernels, double canny_sigma, double canny_low, double canny_high,
                       std::vector<double> canny_smoothing, double psi, std::optional<double> sigma_s,
                       std::optional<double> sigma_r, double guide_sigma_s, double guide_sigma_r,
                       std::optional<int> iterations, const std::string& labels, std::optional<double> depth_threshold,
                       std::optional<std::int32_t> max_edges, py::function networks) {
             Options options;
             options.model = model;
             options.device = device;
             options.precision = parse("precision", precision, precisions);
             options.evaluation = parse("evaluation", evaluation, evaluations);
             options.num_threads = num_threads;
             options.kernels = kernels;
             options.canny = {canny_sigma, canny_low, canny_high, std::move(canny_smoothing)};
             options.guide = {guide_sigma_s, guide_sigma_r};
             options.propagation = {psi, sigma_s, sigma_r, iterations};
             options.labels =
                 parse<Labels>("labels", labels, {{"posterior", Labels::posterior}, {"hard", Labels::hard}});
             options.depth_threshold = depth_threshold;
             options.max_edges = max_edges;
             options.networks = std::make_shared<PythonNetworks>(std::move(networks));
             const py::gil_scoped_release release;
             return std::make_unique<Estimator>(height, width, options);
           }),
           py::arg("height"), py::arg("width"), py::kw_only(), py::arg("model"), py::arg("device"),
           py::arg("precision"), py::arg("evaluation"), py::arg("num_threads"), py::arg("kernels"),
           py::arg("canny_sigma"), py::arg("canny_low"), py::arg("canny_high"), py::arg("canny_smoothing"),
           py::arg("psi"), py::arg("sigma_s"), py::arg("sigma_r"), py::arg("guide_sigma_s"), py::arg("guide_sigma_r"),
           py::arg("iterations"), py::arg("labels"), py::arg("depth_threshold"), py::arg("max_edges"),
           py::arg("networks"))
      .def(
          "estimate",
          [](Estimator& self, const py::array& image, const std::optional<py::array>& edges, int edge_stride,
             bool expected_error, bool bin_probabilities) {
            const ImageView view = image_view(image, "image", false);
            const MaskView mask = edges ? mask_view(*edges, "edges") : MaskView{};
            auto result = std::make_shared<BlurMap>();
            const py::gil_scoped_release release;
            self.estimate(view, *result, {mask, edge_stride, expected_error, bin_probabilities});
            return result;
          },
          py::arg("image"), py::arg("edges"), py::arg("edge_stride"), py::arg("expected_error"),
          py::arg("bin_probabilities"))
      .def(
          "estimate_into",
          [](Estimator& self, const py::array& image, py::array& out) {
            const ImageView view = image_view(image, "image", false);
            const MapView map = map_view(out, "out");
            const py::gil_scoped_release release;
            self.estimate_into(view, map);
          },
          py::arg("image"), py::arg("out"))
      .def(
          "enqueue",
          // Descriptions of device memory, see python/defocus_fast/_device.py.
          [](Estimator& self, const py::array& image, py::array& out, std::optional<py::array>& expected_error,
             const std::optional<py::array>& edges, int edge_stride, std::uintptr_t stream) {
            const ImageView view = image_view(image, "image", false);
            const MapView map = map_view(out, "out");
            const MapView error = expected_error ? map_view(*expected_error, "expected_error") : MapView{};
            const MaskView mask = edges ? mask_view(*edges, "edges") : MaskView{};
            const py::gil_scoped_release release;
            self.enqueue(view, map, device_stream(stream), error, {.edges = mask, .edge_stride = edge_stride});
          },
          py::arg("image"), py::arg("out"), py::arg("expected_error"), py::arg("edges"), py::arg("edge_stride"),
          py::arg("stream"))
      .def(
          "edge_count",
          [](Estimator& self, std::uintptr_t stream) {
            const py::gil_scoped_release release;
            const EdgeCount count = self.edge_count(device_stream(stream));
            return std::pair(count.found, count.kept);
          },
          py::arg("stream"))
      .def("make_map",
           [](Estimator& self) { return DeviceMap{self.make_map(), self.height(), self.width(), self.gpu()}; })
      .def(
          "order",
          [](Estimator& self, std::uintptr_t before, std::uintptr_t after) {
            self.order(device_stream(before), device_stream(after));
          },
          py::arg("before"), py::arg("after"))
      .def_property_readonly("gpu", &Estimator::gpu)
      .def_property_readonly("height", &Estimator::height)
      .def_property_readonly("width", &Estimator::width)
      .def_property_readonly("num_threads", &Estimator::num_threads)
      .def_property_readonly("device", &Estimator::device)
      .def_property_readonly("precision", &Estimator::precision)
      .def_property_readonly("kernels", &Estimator::kernels)
      .def_property_readonly("model", &Estimator::model)
      .def_property_readonly("radius_bins", &Estimator::radius_bins);

  m.def(
      "detect_edges",
      [](const py::array& image, double sigma, double low, double high, std::vector<double> smoothing, int num_threads,
         const std::string& kernels) {
        const ImageView view = image_view(image, "image", false);
        py::array_t<bool> mask({view.height, view.width});
        auto* data = reinterpret_cast<std::uint8_t*>(mask.mutable_data());
        {
          const py::gil_scoped_release release;
          detect_edges(view, {sigma, low, high, std::move(smoothing)}, data, num_threads, kernels);
        }
        return mask;
      },
      py::arg("image"), py::arg("sigma"), py::arg("low"), py::arg("high"), py::arg("smoothing"), py::arg("num_threads"),
      py::arg("kernels"));

  m.def(
      "domain_transform_filter",
      [](const py::array& image, const py::array& guide, double sigma_s, double sigma_r, int iterations,
         int num_threads, const std::string& kernels) {
        const ImageView view = image_view(image, "image", true), guide_view = image_view(guide, "guide", true);
        py::array_t<float> out(std::vector<py::ssize_t>(image.shape(), image.shape() + image.ndim()));
        float* data = out.mutable_data();
        {
          const py::gil_scoped_release release;
          domain_transform_filter(view, guide_view, {sigma_s, sigma_r, iterations}, data, num_threads, kernels);
        }
        return out;
      },
      py::arg("image"), py::arg("guide"), py::arg("sigma_s"), py::arg("sigma_r"), py::arg("iterations"),
      py::arg("num_threads"), py::arg("kernels"));

  m.def(
      "propagate",
      [](const py::array& image, const py::array& radii, const py::array& pattern_edges, const py::array& depth_edges,
         double psi, std::optional<double> sigma_s, std::optional<double> sigma_r, double guide_sigma_s,
         double guide_sigma_r, std::optional<int> iterations, int num_threads, const std::string& kernels) {
        const ImageView view = image_view(image, "image", false);
        const RadiiView radius = radii_view(radii, "radii");
        const MaskView pattern = mask_view(pattern_edges, "pattern_edges");
        const MaskView depth = mask_view(depth_edges, "depth_edges");
        const GuideOptions guide{guide_sigma_s, guide_sigma_r};
        const PropagationOptions options{psi, sigma_s, sigma_r, iterations};
        py::array_t<float> out({view.height, view.width});
        const MapView map = map_view(out, "out");
        {
          const py::gil_scoped_release release;
          propagate(view, radius, pattern, depth, guide, options, map, num_threads, kernels);
        }
        return out;
      },
      py::arg("image"), py::arg("radii"), py::arg("pattern_edges"), py::arg("depth_edges"), py::arg("psi"),
      py::arg("sigma_s"), py::arg("sigma_r"), py::arg("guide_sigma_s"), py::arg("guide_sigma_r"), py::arg("iterations"),
      py::arg("num_threads"), py::arg("kernels"));

  m.def(
      "network_shapes",
      [](const std::string& model, int height, int width, std::optional<std::int32_t> max_edges,
         const std::string& evaluation) {
        Options options;
        options.model = model;
        options.max_edges = max_edges;
        options.evaluation = parse("evaluation", evaluation, evaluations);
        return free_dimensions(cuda::network_shapes(height, width, options));
      },
      py::arg("model"), py::arg("height"), py::arg("width"), py::arg("max_edges"), py::arg("evaluation"));

  m.def("available_kernels", &available_kernels);
  m.def("build_config", [] {
    py::dict facts;
    for (const auto& [name, value] : build_config()) facts[py::str(name)] = value;
    return facts;
  });
}
