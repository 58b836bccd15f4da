// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "gil.hpp"

namespace defocus_fast::python {

namespace py = pybind11;

/// Keeps a Python object for the core, which lets go of it without Python's lock.
class PythonObject {
 public:
  explicit PythonObject(py::object object) : object_(std::move(object)) {}
  ~PythonObject() {
    const GilAcquire acquire;
    object_ = {};
  }
  PythonObject(const PythonObject&) = delete;
  PythonObject& operator=(const PythonObject&) = delete;

  const py::object& operator*() const { return object_; }

 private:
  py::object object_;
};

/// By the C interface: Python may end while its code runs, and nothing of pybind11 must be unwound then.
inline void call(const py::object& function, const py::tuple& arguments) {
  PyObject* const result = call_python([&] { return PyObject_Call(function.ptr(), arguments.ptr(), nullptr); });
  if (!result) throw py::error_already_set();
  Py_DECREF(result);
}

}  // namespace defocus_fast::python
