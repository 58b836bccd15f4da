// SPDX-License-Identifier: Apache-2.0
// The module defocus_fast._core: conversion of arguments and results; nothing else happens here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "defocus_fast/error.hpp"
#include "defocus_fast/video.hpp"
#include "dlpack.hpp"
#include "gil.hpp"
#include "options.hpp"
#include "python_networks.hpp"
#include "python_object.hpp"

namespace defocus_fast::python {

namespace {

/// Device memory of one value per pixel.
struct DeviceMap {
  std::shared_ptr<float> memory;
  int height, width, gpu;
};

cuda::Stream device_stream(std::uintptr_t stream) { return reinterpret_cast<cuda::Stream>(stream); }

void define_errors(py::module_& m) {
  const py::exception<Error> base(m, "Error", PyExc_RuntimeError);
  const py::exception<BackendUnavailable> unavailable(m, "BackendUnavailable", base);
  const py::exception<ModelError> model(m, "ModelError", base);
  for (const py::handle type : {py::handle(base), py::handle(unavailable), py::handle(model)})
    type.attr("__module__") = "defocus_fast";
  base.attr("__doc__") = "Base of the errors that are not ValueError or TypeError.";
  unavailable.attr("__doc__") = "This machine or build lacks the device, precision or kernels asked for.";
  model.attr("__doc__") = "A model folder is missing, incomplete or of another format.";
  py::register_exception_translator([](std::exception_ptr thrown) {
    const auto raise = [](const py::handle& type, const Error& error) {
      // Not PyErr_SetString: names of files in the text need not be UTF-8.
      const auto text = py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(error.what()));
      if (text) PyErr_SetObject(type.ptr(), text.ptr());
    };
    const auto ours = [](const char* name) { return py::module_::import("defocus_fast._core").attr(name); };
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const InvalidArgument& error) {
      raise(PyExc_ValueError, error);
    } catch (const BackendUnavailable& error) {
      raise(ours("BackendUnavailable"), error);
    } catch (const ModelError& error) {
      raise(ours("ModelError"), error);
    } catch (const Error& error) {
      raise(ours("Error"), error);
    }
  });
}

void define_device_map(py::module_& m) {
  py::class_<DeviceMap>(m, "DeviceMap")
      .def_property_readonly("pointer",
                             [](const DeviceMap& self) { return reinterpret_cast<std::uintptr_t>(self.memory.get()); })
      .def_readonly("gpu", &DeviceMap::gpu)
      .def("to_dlpack", [](const DeviceMap& self, bool versioned) {
        const auto make =
            versioned ? dlpack::to_capsule<dlpack::ManagedVersioned> : dlpack::to_capsule<dlpack::Managed>;
        return make(self.memory, self.height, self.width, self.gpu);
      });
  m.def("from_dlpack", &dlpack::from_capsule);
}

void define_frame(py::module_& m) {
  py::class_<Frame>(m, "Frame")
      .def(
          py::init<const std::string&, std::vector<py::array>, const std::optional<std::string>&, const std::string&>())
      .def_property_readonly("shape", [](const Frame& self) { return std::pair(self.view.height, self.view.width); });
}

/// What estimators of single images and of videos tell of themselves.
template <class E>
void define_facts_of(py::class_<E>& type) {
  type.def_property_readonly("height", [](const E& self) { return self.height(); })
      .def_property_readonly("width", [](const E& self) { return self.width(); })
      .def_property_readonly("num_threads", [](const E& self) { return self.num_threads(); })
      .def_property_readonly("device", [](const E& self) { return self.device(); })
      .def_property_readonly("precision", [](const E& self) { return self.precision(); })
      .def_property_readonly("kernels", [](const E& self) { return self.kernels(); })
      .def_property_readonly("model", [](const E& self) { return self.model(); })
      .def_property_readonly("radius_bins", [](const E& self) { return self.radius_bins(); });
}

void define_thread_pool(py::module_& m) {
  py::class_<ThreadPool>(m, "ThreadPool")
      .def(py::init([](const py::object& on_start, const py::kwargs& arguments) {
        const std::optional<int> num_threads = read("ThreadPool", arguments).options.num_threads;
        std::function<void(int)> start;
        if (!on_start.is_none())
          start = [function = std::make_shared<PythonObject>(on_start)](int index) {
            const GilAcquire acquire;
            call(**function, py::make_tuple(index));
          };
        const GilRelease release;
        return std::make_unique<ThreadPool>(num_threads, std::move(start));
      }))
      .def_property_readonly("num_threads", &ThreadPool::num_threads);
}

void define_estimator(py::module_& m) {
  py::class_<Estimator> type(m, "Estimator");
  type.def(py::init([](int height, int width, const std::optional<ThreadPool>& pool, const py::kwargs& arguments) {
        Options options = read("Estimator", arguments).options;
        options.canny.smoothing = numpy_gaussian(options.canny.sigma);
        const GilRelease release;
        return std::make_unique<Estimator>(height, width, options, pool);
      }))
      .def("estimate",
           [](Estimator& self, const py::object& image, const std::optional<py::array>& edges,
              const py::kwargs& arguments) {
             const ImageView view = image_view(image, "image");
             FrameOptions frame = read("estimate", arguments).frame;
             frame.edges = mask_view(edges, "edges");
             auto result = std::make_unique<BlurMap>();
             {
               const GilRelease release;
               self.estimate(view, *result, frame);
             }
             return arrays_of(std::move(result));
           })
      .def("estimate_into",
           [](Estimator& self, const py::object& image, py::array& out, const std::optional<py::array>& edges,
              const py::kwargs& arguments) {
             const ImageView view = image_view(image, "image");
             const MapView map = map_view(out, "out");
             FrameOptions frame = read("estimate_into", arguments).frame;
             frame.edges = mask_view(edges, "edges");
             const GilRelease release;
             self.estimate_into(view, map, frame);
           })
      .def("enqueue",
           // Descriptions of device memory, see python/defocus_fast/_device.py.
           [](Estimator& self, const py::object& image, py::array& out, std::optional<py::array>& expected_error,
              const std::optional<py::array>& edges, std::uintptr_t stream, const py::kwargs& arguments) {
             const ImageView view = image_view(image, "image");
             const MapView map = map_view(out, "out"), error = map_view(expected_error, "expected_error");
             FrameOptions frame = read("estimate_into", arguments).frame;
             frame.edges = mask_view(edges, "edges");
             const GilRelease release;
             self.enqueue(view, map, device_stream(stream), error, frame);
           })
      .def("edge_count",
           [](Estimator& self, std::uintptr_t stream) {
             const GilRelease release;
             const EdgeCount count = self.edge_count(device_stream(stream));
             return std::pair(count.found, count.kept);
           })
      .def("make_map",
           [](Estimator& self) { return DeviceMap{self.make_map(), self.height(), self.width(), self.gpu()}; })
      .def("order", [](Estimator& self, std::uintptr_t before,
                       std::uintptr_t after) { self.order(device_stream(before), device_stream(after)); })
      .def_property_readonly("gpu", &Estimator::gpu);
  define_facts_of(type);
}

void tell(const VideoChange& change, py::dict& fields) {
  fields["cut"] = change.cut;
  fields["shift"] = std::pair(change.shift_y, change.shift_x);
  fields["renewed"] = change.renewed;
  fields["read"] = change.read;
}

py::dict dict_of(const FocusMap& found) {
  py::dict fields;
  fields["scale"] = found.scale;
  fields["map"] = py::array_t<float>({found.height, found.width}, found.map.data());
  fields["map_error"] = py::array_t<float>({found.height, found.width}, found.expected_error.data());
  for (const auto& [name, member] : {std::pair("in_focus", &Focus::in_focus),
                                     {"radius", &Focus::radius},
                                     {"expected_error", &Focus::expected_error}}) {
    py::array_t<float> regions({found.rows, found.columns});
    for (std::size_t i = 0; i < found.regions.size(); ++i) regions.mutable_data()[i] = found.regions[i].*member;
    fields[name] = found.frame.*member;
    fields[(std::string("region_") + name).c_str()] = regions;
  }
  tell(found.change, fields);
  return fields;
}

void define_video_estimator(py::module_& m) {
  py::class_<VideoEstimator> type(m, "VideoEstimator");
  type.def(py::init([](int height, int width, const std::optional<ThreadPool>& pool, const py::kwargs& arguments) {
        Arguments given = read("VideoEstimator", arguments);
        given.options.canny.smoothing = numpy_gaussian(given.options.canny.sigma);
        const GilRelease release;
        return std::make_unique<VideoEstimator>(height, width, given.options, given.video, pool);
      }))
      .def("estimate",
           [](VideoEstimator& self, const py::object& image, const py::kwargs& arguments) {
             const ImageView view = image_view(image, "image");
             const FrameOptions frame = read("estimate", arguments).frame;
             VideoBlurMap result;
             {
               const GilRelease release;
               self.estimate(view, result, frame);
             }
             const VideoChange change = result.change;
             py::dict arrays = arrays_of(std::make_unique<BlurMap>(std::move(result)));
             tell(change, arrays);
             return arrays;
           })
      .def("estimate_into",
           [](VideoEstimator& self, const py::object& image, py::array& out, const py::kwargs& arguments) {
             const ImageView view = image_view(image, "image");
             const MapView map = map_view(out, "out");
             const FrameOptions frame = read("estimate_into", arguments).frame;
             VideoChange change;
             {
               const GilRelease release;
               change = self.estimate_into(view, map, frame);
             }
             py::dict fields;
             tell(change, fields);
             return fields;
           })
      .def("estimate_focus",
           [](VideoEstimator& self, const py::object& image, const py::kwargs& arguments) {
             const ImageView view = image_view(image, "image");
             const Arguments given = read("estimate_focus", arguments);
             FocusMap found;
             {
               const GilRelease release;
               self.estimate_focus(view, found, given.focus, given.frame);
             }
             return dict_of(found);
           })
      .def("warm_up",
           [](VideoEstimator& self) {
             const GilRelease release;
             self.warm_up();
           })
      .def("reset", [](VideoEstimator& self) {
        const GilRelease release;
        self.reset();
      });
  define_facts_of(type);
}

void define_stages(py::module_& m) {
  m.def("detect_edges", [](const py::object& image, const py::kwargs& arguments) {
    const ImageView view = image_view(image, "image");
    Arguments given = read("detect_edges", arguments);
    given.canny.smoothing = numpy_gaussian(given.canny.sigma);
    py::array_t<bool> mask({view.height, view.width});
    auto* const data = reinterpret_cast<std::uint8_t*>(mask.mutable_data());
    {
      const GilRelease release;
      detect_edges(view, given.canny, data, given.options.num_threads, given.options.kernels);
    }
    return mask;
  });
  m.def("domain_transform_filter", [](const py::array& image, const py::array& guide, const py::kwargs& arguments) {
    const ImageView view = image_view(image, "image", true), guide_view = image_view(guide, "guide", true);
    const Arguments given = read("domain_transform_filter", arguments);
    py::array_t<float> out(std::vector<py::ssize_t>(image.shape(), image.shape() + image.ndim()));
    float* const data = out.mutable_data();
    {
      const GilRelease release;
      domain_transform_filter(view, guide_view, given.filter, data, given.options.num_threads, given.options.kernels);
    }
    return out;
  });
  m.def("propagate", [](const py::object& image, const py::array& radii, const py::array& pattern_edges,
                        const py::array& depth_edges, const py::kwargs& arguments) {
    const ImageView view = image_view(image, "image");
    const RadiiView radius = radii_view(radii, "radii");
    const MaskView pattern = mask_view(pattern_edges, "pattern_edges");
    const MaskView depth = mask_view(depth_edges, "depth_edges");
    const Options options = read("propagate", arguments).options;
    py::array_t<float> out({view.height, view.width});
    const MapView map = map_view(out, "out");
    {
      const GilRelease release;
      propagate(view, radius, pattern, depth, options.guide, options.propagation, map, options.num_threads,
                options.kernels);
    }
    return out;
  });
}

void define_facts(py::module_& m) {
  m.def("network_shapes", [](const std::string& model, int height, int width, std::optional<int> max_edges,
                             const std::string& evaluation) {
    Options options;
    options.model = model;
    options.max_edges = max_edges;
    set_option(options, "evaluation", evaluation);
    return free_dimensions(cuda::network_shapes(height, width, options));
  });
  // Makes pybind11 load NumPy: it lets go of Python's lock for that, and not as GilRelease does.
  m.def("load_numpy", [] { py::dtype::of<float>(); });
  m.def("available_kernels", &available_kernels,
        "Return the names of the instruction sets for which this machine has kernels, widest first.");
  m.def(
      "build_config",
      [] {
        py::dict facts;
        for (const auto& [name, value] : build_config()) facts[py::str(name)] = value;
        return facts;
      },
      "Return facts about the build by name: version, compiler, CUDA, kernels.");
}

}  // namespace

}  // namespace defocus_fast::python

PYBIND11_MODULE(bindings, m, pybind11::mod_gil_not_used()) {
  using namespace defocus_fast::python;
  define_errors(m);
  define_options(m);
  define_device_map(m);
  define_frame(m);
  define_thread_pool(m);
  define_estimator(m);
  define_video_estimator(m);
  define_stages(m);
  define_facts(m);
}

// The module's entry: pybind11's own would wait for ever for the lock of the main interpreter.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit_bindings();
  PyErr_SetString(PyExc_ImportError, "defocus_fast works in the main interpreter only, not in sub-interpreters");
  return nullptr;
}
