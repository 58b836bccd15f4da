// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <string>
#include <string_view>
#include <type_traits>

#include "python_networks.hpp"

namespace defocus_fast::python {

using namespace py::literals;

namespace {

[[noreturn]] void reject(PyObject* type, const OptionInfo& option, const py::handle& value) {
  PyErr_Format(type, "%s: expected %s, got %.200R", option.name.c_str(), option.expected().c_str(), value.ptr());
  throw py::error_already_set();
}

// Where Python code runs, another thread may take Python's lock; if the interpreter ends meanwhile, the unwinding that
// gil.hpp speaks of begins below destructors of ours. So plain numbers run none, and
// the default smoothing kernel only once.

bool is_a(const py::handle& value, const char* number) {
  if (PyLong_CheckExact(value.ptr()) || (PyFloat_CheckExact(value.ptr()) && std::string_view(number) == "Real"))
    return true;
  return !PyBool_Check(value.ptr()) && py::isinstance(value, py::module_::import("numbers").attr(number));
}

/// Of an object of the right type; the core judges the value.
OptionValue value_of(const OptionInfo& option, const py::handle& value) {
  if (value.is_none()) {
    if (!option.optional) reject(PyExc_TypeError, option, value);
    return {};
  }
  try {
    switch (option.kind) {
      case OptionKind::flag:
        if (PyBool_Check(value.ptr()) || py::isinstance(value, py::module_::import("numpy").attr("bool_")))
          return std::int64_t{PyObject_IsTrue(value.ptr()) == 1};
        break;
      case OptionKind::integer:
        if (is_a(value, "Integral")) {
          const py::int_ integer(py::reinterpret_borrow<py::object>(value));
          const long long result = PyLong_AsLongLong(integer.ptr());
          if (result == -1 && PyErr_Occurred()) throw py::error_already_set();
          return std::int64_t{result};
        }
        break;
      case OptionKind::number:
        if (is_a(value, "Real")) return py::float_(py::reinterpret_borrow<py::object>(value)).cast<double>();
        break;
      case OptionKind::path:
        if (const py::module_ os = py::module_::import("os"); py::isinstance<py::str>(value)) {
          return os.attr("fsencode")(value).cast<std::string>();
        } else if (py::hasattr(value, "__fspath__")) {
          // The core takes a text for a folder if it has a "/" in it; a path is always one.
          const py::object path = os.attr("path").attr("join")(py::bytes("."), os.attr("fsencode")(value));
          return path.cast<std::string>();
        }
        break;
      case OptionKind::name:
      case OptionKind::text:
        if (py::isinstance<py::str>(value)) return value.attr("encode")("utf-8", "replace").cast<std::string>();
        break;
      case OptionKind::object:
        break;
    }
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_OverflowError) && !error.matches(PyExc_UnicodeEncodeError)) throw;
    reject(PyExc_ValueError, option, value);
  }
  reject(PyExc_TypeError, option, value);
}

py::object to_python(OptionKind kind, const OptionValue& value) {
  if (kind == OptionKind::flag) return py::bool_(std::get<std::int64_t>(value) != 0);
  return std::visit(
      [](const auto& held) -> py::object {
        if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::monostate>)
          return py::none();
        else
          return py::cast(held);
      },
      value);
}

/// Calls part(struct, options) for every struct that has options of the call.
void for_parts(std::string_view call, Arguments& of, const auto& part) {
  const auto some = [&]<class Group>(Group& group, const std::vector<std::string>& names) {
    std::vector<OptionInfo> table = option_table<Group>();
    std::erase_if(table, [&](const OptionInfo& option) {
      return std::ranges::find(names, option.name) == names.end() &&
             std::ranges::find(names, option.group) == names.end();
    });
    part(group, table);
  };
  static const std::vector<std::string> running{"num_threads", "kernels"};
  if (call == "ThreadPool") some(of.options, {"num_threads"});
  if (call == "Estimator" || call == "VideoEstimator") part(of.options, option_table<Options>());
  if (call == "VideoEstimator") part(of.video, option_table<VideoOptions>());
  if (call == "estimate") part(of.frame, option_table<FrameOptions>());
  if (call == "estimate_into" || call == "estimate_focus") some(of.frame, {"edge_stride"});
  if (call == "estimate_focus") part(of.focus, option_table<FocusOptions>());
  if (call == "detect_edges") part(of.canny, option_table<CannyOptions>()), some(of.options, running);
  if (call == "domain_transform_filter") part(of.filter, option_table<FilterOptions>()), some(of.options, running);
  if (call == "propagate") some(of.options, {"guide", "propagation"}), some(of.options, running);
}

constexpr std::array kinds{"flag", "integer", "number", "name", "text", "path", "object"};

py::list table_of(std::string_view call) {
  const py::object row = py::module_::import("types").attr("SimpleNamespace");
  py::list table;
  Arguments defaults;
  for_parts(call, defaults, [&](const auto&, const std::vector<OptionInfo>& options) {
    for (const OptionInfo& option : options) {
      py::list names;
      for (const char* name : option.accepted.names) names.append(name);
      table.append(row("name"_a = option.name, "kind"_a = kinds[std::size_t(option.kind)],
                       "optional"_a = option.optional, "default"_a = to_python(option.kind, option.default_value),
                       "minimum"_a = option.accepted.minimum, "maximum"_a = option.accepted.maximum, "names"_a = names,
                       "text"_a = option.text, "nothing"_a = option.nothing, "expected"_a = option.expected()));
    }
  });
  return table;
}

}  // namespace

Arguments read(const char* call, py::kwargs given) {
  Arguments arguments;
  for_parts(call, arguments, [&]<class Group>(Group& group, const std::vector<OptionInfo>& options) {
    for (const OptionInfo& option : options) {
      const py::str name(option.name);
      if (!given.contains(name)) continue;
      const py::object value = given.attr("pop")(name);
      if constexpr (std::is_same_v<Group, Options>)
        if (option.kind == OptionKind::object && PyCallable_Check(value.ptr())) {
          group.networks = networks_of(value);
          continue;
        }
      set_option(group, option.name, value_of(option, value));
    }
  });
  if (!given.empty())
    throw py::type_error(std::string(call) + "() got an unexpected keyword argument '" +
                         given.begin()->first.cast<std::string>() + "'");
  return arguments;
}

void define_options(py::module_& m) {
  m.def("option_table", &table_of);
  m.def("frame_options", [](const py::kwargs& arguments) {
    const FrameOptions frame = read("estimate", arguments).frame;
    return py::dict("edge_stride"_a = frame.edge_stride, "expected_error"_a = frame.expected_error,
                    "bin_probabilities"_a = frame.bin_probabilities);
  });
}

namespace {

std::vector<double> compute_gaussian(double sigma) {
  const int radius = int(4.0 * sigma + 0.5);
  if (radius == 0) return {1.0};  // below, the square of a tiny sigma would be 0
  const py::module_ numpy = py::module_::import("numpy");
  const py::object x = numpy.attr("arange")(-radius, radius + 1);
  const py::object kernel = numpy.attr("exp")(py::float_(-0.5 / (sigma * sigma)) * (x * x));
  return (kernel / kernel.attr("sum")()).cast<std::vector<double>>();
}

}  // namespace

std::vector<double> numpy_gaussian(double sigma) {
  if (sigma != CannyOptions().sigma) return compute_gaussian(sigma);
  // Two threads may compute it: one that waited for the other would keep Python's lock, which the other may ask for.
  static std::atomic<const std::vector<double>*> known = nullptr;
  if (!known) known = new std::vector<double>(compute_gaussian(sigma));
  return *known;
}

}  // namespace defocus_fast::python
