# SPDX-License-Identifier: Apache-2.0
"""Producers and consumers of arrays in device memory for the emulated device, whose memory is the host's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import defocus_fast

CPU, CUDA = (1, 0), (2, 0)  # DLPack's (device type, index)
_DEVICE_OFFSET = {b"dltensor": 8, b"dltensor_versioned": 40}
_TYPE_OFFSET = 12  # after the device

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]


def capsule_name(capsule: Any) -> str:
    return _name(capsule).decode()


def relabel(capsule: Any, device: tuple[int, int]) -> Any:
    """Write another device into a DLPack capsule."""
    address = _pointer(capsule, _name(capsule)) + _DEVICE_OFFSET[_name(capsule)]
    (ctypes.c_int32 * 2).from_address(address)[:] = device
    return capsule


def set_type_code(capsule: Any, code: int) -> Any:
    address = _pointer(capsule, _name(capsule)) + _DEVICE_OFFSET[_name(capsule)]
    ctypes.c_uint8.from_address(address + _TYPE_OFFSET).value = code
    return capsule


def set_bits(capsule: Any, bits: int) -> Any:
    address = _pointer(capsule, _name(capsule)) + _DEVICE_OFFSET[_name(capsule)]
    ctypes.c_uint8.from_address(address + _TYPE_OFFSET + 1).value = bits
    return capsule


def set_major_version(capsule: Any, major: int) -> Any:
    ctypes.c_uint32.from_address(_pointer(capsule, b"dltensor_versioned")).value = major
    return capsule


@dataclass
class DLPackArray:
    """Has ``__dlpack__`` only, as PyTorch's tensors seem to us; NumPy makes the capsules."""

    array: np.ndarray
    device: tuple[int, int] = CUDA
    change: Callable[[Any], Any] = lambda capsule: capsule  # what becomes of the capsule
    log: list[Any] = field(default_factory=list)

    def __setitem__(self, where: Any, values: Any) -> None:
        self.array[where] = values.array if isinstance(values, DLPackArray) else values

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, copy: Any = None) -> Any:
        self.log.append(("__dlpack__", stream))
        assert copy is False
        return self.change(relabel(self.array.__dlpack__(max_version=max_version), self.device))


class OldDLPackArray(DLPackArray):
    """From before DLPack 1.0."""

    def __dlpack__(self, stream: Any = None) -> Any:
        self.log.append(("__dlpack__", stream))
        return self.change(relabel(self.array.__dlpack__(), self.device))


class CudaArray:
    """Has ``__cuda_array_interface__`` only, as Numba's and PyCUDA's arrays have."""

    def __init__(self, array: np.ndarray, **changes: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, not array.flags.writeable),
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            **changes,
        }


def of_pycuda(array: np.ndarray) -> CudaArray:
    """PyCUDA's GPUArray: version 2, strides always given."""
    return CudaArray(array, strides=array.strides, version=2)


PRODUCERS = {
    "dlpack": DLPackArray,
    "old dlpack": OldDLPackArray,
    "cuda array interface": CudaArray,
    "pycuda": of_pycuda,
}


@dataclass
class HostDLPack:
    """What NumPy and PyTorch take for an array in host memory."""

    array: defocus_fast.DeviceArray
    versioned: bool

    def __dlpack_device__(self) -> tuple[int, int]:
        assert self.array.__dlpack_device__() == CUDA
        return CPU

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self.array.__dlpack__(stream=-1, max_version=(1, 1) if self.versioned else None)
        assert capsule_name(capsule) == ("dltensor_versioned" if self.versioned else "dltensor")
        return relabel(capsule, CPU)


@dataclass
class _HostArrayInterface:
    __array_interface__: dict[str, Any]
    owner: Any


def by_dlpack(array: defocus_fast.DeviceArray) -> np.ndarray:
    return np.from_dlpack(HostDLPack(array, versioned=True))


def by_old_dlpack(array: defocus_fast.DeviceArray) -> np.ndarray:
    return np.from_dlpack(HostDLPack(array, versioned=False))


def by_cuda_array_interface(array: defocus_fast.DeviceArray) -> np.ndarray:
    return np.asarray(_HostArrayInterface(array.__cuda_array_interface__, array))


CONSUMERS = {"dlpack": by_dlpack, "old dlpack": by_old_dlpack, "cuda array interface": by_cuda_array_interface}
