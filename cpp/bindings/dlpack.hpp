// SPDX-License-Identifier: Apache-2.0
// Device memory in and out of DLPack capsules.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace dlpack {

namespace py = pybind11;

// The ABI of DLPack 1.1, github.com/dmlc/dlpack, include/dlpack/dlpack.h.

struct Device {
  std::int32_t type, index;
};
constexpr std::int32_t cuda = 2;  // of Device::type

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t dimensions;
  DataType type;
  std::int64_t *shape, *strides;  // in elements; null strides: without gaps
  std::uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);

  static constexpr const char *name = "dltensor", *used_name = "used_dltensor";
};

struct ManagedVersioned {
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;

  static constexpr const char *name = "dltensor_versioned", *used_name = "used_dltensor_versioned";
  static constexpr std::uint32_t own_major = 1, own_minor = 1;
  static constexpr std::uint64_t read_only = 1;
};

static_assert(sizeof(Managed) == 64 && sizeof(ManagedVersioned) == 80);

/// What the tensor's elements are to NumPy.
inline py::dtype element_type(const DataType& type, const char* name) {
  constexpr std::array kinds{'i', 'u', 'f', '\0', '\0', 'c', 'b'};
  if (type.code < kinds.size() && kinds[type.code] && type.bits % 8 == 0 && type.lanes == 1) try {
      return py::dtype(kinds[type.code] + std::to_string(type.bits / 8));
    } catch (const py::error_already_set&) {  // of a size that NumPy has not
    }
  throw py::type_error(std::string(name) + ": expected uint8 or float32, got DLPack type code " +
                       std::to_string(type.code) + " of " + std::to_string(type.bits) + " bits and " +
                       std::to_string(type.lanes) + " lanes");
}

/// The tensor as a NumPy array that owns it; the memory is not read.
inline py::array describe(const Tensor& tensor, bool read_only, const py::capsule& owner, const char* name) {
  const py::dtype type = element_type(tensor.type, name);
  std::vector<py::ssize_t> shape(tensor.shape, tensor.shape + tensor.dimensions), strides(shape.size());
  py::ssize_t without_gaps = type.itemsize();
  for (std::size_t i = shape.size(); i-- > 0; without_gaps *= shape[i])
    if (!tensor.strides)
      strides[i] = without_gaps;
    else if (__builtin_mul_overflow(py::ssize_t(tensor.strides[i]), type.itemsize(), &strides[i]))
      throw py::value_error(std::string(name) + ": expected strides of less than 2**63 bytes, got " +
                            std::to_string(tensor.strides[i]) + " elements");
  // NumPy would take null for a wish for memory of its own.
  if (!tensor.data && without_gaps > 0)
    throw py::value_error(std::string(name) + ": expected a pointer to pixels, got null");
  const auto* data = static_cast<const std::byte*>(tensor.data) + tensor.byte_offset;
  py::array array(type, std::move(shape), std::move(strides), data, owner);
  if (read_only) array.attr("flags").attr("writeable") = false;
  return array;
}

/// Takes the tensor out of the capsule. Until then it is the capsule's to delete.
template <class T>
py::array consume(const py::object& capsule, T* managed, bool read_only, const char* name) {
  const py::capsule owner(managed, [](void* owned) {
    auto* const tensor = static_cast<T*>(owned);
    if (tensor->deleter) tensor->deleter(tensor);
  });
  PyCapsule_SetName(capsule.ptr(), T::used_name);
  return describe(managed->tensor, read_only, owner, name);
}

/// Null if this is no unused capsule of a T.
template <class T>
T* tensor_in(const py::handle& capsule) {
  if (!PyCapsule_IsValid(capsule.ptr(), T::name)) return nullptr;
  return static_cast<T*>(PyCapsule_GetPointer(capsule.ptr(), T::name));
}

inline py::array from_capsule(const py::object& capsule, const char* name) {
  if (auto* const managed = tensor_in<Managed>(capsule)) return consume(capsule, managed, false, name);
  auto* const managed = tensor_in<ManagedVersioned>(capsule);
  if (!managed)
    throw py::value_error(std::string(name) + ": expected an unused DLPack capsule, got " +
                          py::repr(capsule).cast<std::string>());
  if (managed->major != ManagedVersioned::own_major)
    throw py::type_error(std::string(name) + ": expected DLPack " + std::to_string(ManagedVersioned::own_major) +
                         ", got " + std::to_string(managed->major) + '.' + std::to_string(managed->minor));
  return consume(capsule, managed, managed->flags & ManagedVersioned::read_only, name);
}

/// A plane of float32 in device memory without gaps, which the capsule, or who consumes it, keeps alive.
template <class T>
py::capsule to_capsule(std::shared_ptr<float> memory, int height, int width, int gpu) {
  struct Exported {
    T managed;
    std::array<std::int64_t, 2> shape, strides;
    std::shared_ptr<float> memory;
  };
  auto* const exported = new Exported{{}, {height, width}, {width, 1}, std::move(memory)};
  T& managed = exported->managed;
  managed.tensor = {
      exported->memory.get(), {cuda, gpu}, 2, {2, 32, 1}, exported->shape.data(), exported->strides.data(), 0};
  managed.context = exported;
  managed.deleter = [](T* of) { delete static_cast<Exported*>(of->context); };
  if constexpr (requires { managed.major; }) {
    managed.major = T::own_major;
    managed.minor = T::own_minor;
  }
  return py::capsule(&managed, T::name, [](PyObject* capsule) {
    if (T* const unused = tensor_in<T>(capsule)) unused->deleter(unused);  // else its consumer does
  });
}

}  // namespace dlpack
