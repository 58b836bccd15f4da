// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <type_traits>

#include "python_networks.hpp"

namespace defocus_fast::python {

namespace {

template <class Exception>
[[noreturn]] void reject(const OptionInfo& option, const py::handle& value) {
  const std::string message =
      option.name + ": expected " + option.expected() + ", got " + py::repr(value).cast<std::string>();
  throw Exception(message);
}

bool is_a(const py::handle& value, const char* number) {
  return !PyBool_Check(value.ptr()) && py::isinstance(value, py::module_::import("numbers").attr(number));
}

/// Of an object of the right type; the core judges the value.
OptionValue value_of(const OptionInfo& option, const py::handle& value) {
  if (value.is_none()) {
    if (!option.optional) reject<py::type_error>(option, value);
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
    if (!error.matches(PyExc_OverflowError)) throw;
    reject<py::value_error>(option, value);
  }
  reject<py::type_error>(option, value);
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

template <class Group>
std::vector<OptionInfo> rows(const Names& names) {
  std::vector<OptionInfo> table = option_table<Group>();
  const auto is_meant = [&](const std::string& name) { return std::ranges::find(names, name) != names.end(); };
  if (!names.empty())
    std::erase_if(table, [&](const OptionInfo& row) { return !is_meant(row.name) && !is_meant(row.group); });
  return table;
}

template <class Call>
std::vector<OptionInfo> table_of() {
  std::vector<OptionInfo> table;
  Call().parts([&]<class Group>(Group&, const Names& names) {
    for (OptionInfo& row : rows<Group>(names)) table.push_back(std::move(row));
  });
  return table;
}

std::vector<OptionInfo> table_of_call(const std::string& call) {
  std::vector<OptionInfo> table;
  const auto try_call = [&]<class Call>(Call) {
    if (call == Call::name) table = table_of<Call>();
  };
  try_call(EstimatorCall()), try_call(EstimateCall()), try_call(EstimateIntoCall());
  try_call(DetectEdgesCall()), try_call(FilterCall()), try_call(PropagateCall());
  return table;
}

}  // namespace

template <class Call>
Call read(py::kwargs arguments) {
  Call call;
  call.parts([&]<class Group>(Group& group, const Names& names) {
    for (const OptionInfo& option : rows<Group>(names)) {
      const py::str name(option.name);
      if (!arguments.contains(name)) continue;
      const py::object value = arguments.attr("pop")(name);
      if constexpr (std::is_same_v<Group, Options>)
        if (option.kind == OptionKind::object && PyCallable_Check(value.ptr())) {
          group.networks = networks_of(value);
          continue;
        }
      set_option(group, option.name, value_of(option, value));
    }
  });
  if (!arguments.empty())
    throw py::type_error(std::string(Call::name) + "() got an unexpected keyword argument '" +
                         arguments.begin()->first.cast<std::string>() + "'");
  return call;
}

template EstimatorCall read(py::kwargs);
template EstimateCall read(py::kwargs);
template EstimateIntoCall read(py::kwargs);
template DetectEdgesCall read(py::kwargs);
template FilterCall read(py::kwargs);
template PropagateCall read(py::kwargs);

void define_options(py::module_& m) {
  static constexpr std::array kinds{"flag", "integer", "number", "name", "text", "path", "object"};
  py::class_<OptionInfo>(m, "Option")
      .def_readonly("name", &OptionInfo::name)
      .def_readonly("group", &OptionInfo::group)
      .def_property_readonly("kind", [](const OptionInfo& self) { return kinds[std::size_t(self.kind)]; })
      .def_readonly("optional", &OptionInfo::optional)
      .def_property_readonly("default", [](const OptionInfo& self) { return to_python(self.kind, self.default_value); })
      .def_property_readonly("minimum", [](const OptionInfo& self) { return self.accepted.minimum; })
      .def_property_readonly("maximum", [](const OptionInfo& self) { return self.accepted.maximum; })
      .def_property_readonly("names",
                             [](const OptionInfo& self) {
                               return std::vector<std::string>(self.accepted.names.begin(), self.accepted.names.end());
                             })
      .def_readonly("unit", &OptionInfo::unit)
      .def_readonly("text", &OptionInfo::text)
      .def_readonly("nothing", &OptionInfo::nothing)
      .def_property_readonly("expected", &OptionInfo::expected);
  m.def("option_table", &table_of_call, py::arg("call"));
  m.def("frame_options", [](const py::kwargs& arguments) {
    const FrameOptions frame = read<EstimateCall>(arguments).frame;
    py::dict values;
    for (const OptionInfo& option : option_table<FrameOptions>())
      values[py::str(option.name)] = to_python(option.kind, get_option(frame, option.name));
    return values;
  });
}

std::vector<double> numpy_gaussian(double sigma) {
  const int radius = int(4.0 * sigma + 0.5);
  if (radius == 0) return {1.0};  // below, the square of a tiny sigma would be 0
  const py::module_ numpy = py::module_::import("numpy");
  const py::object x = numpy.attr("arange")(-radius, radius + 1);
  const py::object kernel = numpy.attr("exp")(py::float_(-0.5 / (sigma * sigma)) * (x * x));
  return (kernel / kernel.attr("sum")()).cast<std::vector<double>>();
}

}  // namespace defocus_fast::python
