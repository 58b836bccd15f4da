# SPDX-License-Identifier: Apache-2.0
"""Arrays in device memory, in and out, without copies.

They come and go by DLPack (the array API standard's ``__dlpack__``) and by the CUDA Array Interface, version 3
(https://nvidia.github.io/numba-cuda/user/cuda_array_interface.html), whose numbers for streams are used here too:
1 is the legacy default stream, 2 the calling thread's, others are handles. Where an array has both, DLPack is asked:
PyTorch's CUDA Array Interface does not tell on which stream the array will be ready.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._frame import Frame

LEGACY_DEFAULT_STREAM, PER_THREAD_DEFAULT_STREAM = 1, 2
_LARGEST_HANDLE = 2**64 - 1
_CUDA, _CUDA_MANAGED = 2, 13  # DLPack's device types; pinned host memory is taken for what it is, host memory


def on_device(array: Any) -> bool:
    """Tell whether this is an array, or a frame of such, in the memory of a GPU."""
    if isinstance(array, Frame):
        return any(on_device(plane) for plane in array.planes)
    if hasattr(array, "__dlpack_device__"):
        return array.__dlpack_device__()[0] in (_CUDA, _CUDA_MANAGED)
    return hasattr(array, "__cuda_array_interface__")


def describe_image(image: Any, stream: int, core: _core.Estimator) -> NDArray[Any] | _core.Frame:
    """Describe an image in device memory as :func:`describe` does."""
    if isinstance(image, Frame):
        return image.view(lambda plane: describe(plane, "image", stream, core))
    return describe(image, "image", stream, core)


def stream_handle(stream: Any) -> int:
    """Return the handle of a stream of any library."""
    if stream is None:
        return LEGACY_DEFAULT_STREAM
    if hasattr(stream, "__cuda_stream__"):
        _, handle = stream.__cuda_stream__()  # the protocol's version
    else:  # CuPy, PyTorch, PyCUDA and Numba, whose handles are of ctypes
        names = [name for name in ("ptr", "cuda_stream", "handle") if hasattr(stream, name)]
        handle = getattr(stream, names[0]) if names else stream
        if isinstance(handle, ctypes.c_void_p):
            handle = handle.value or 0
    if isinstance(handle, bool) or not isinstance(handle, (int, np.integer)):
        accepted = "a handle or an object with __cuda_stream__, ptr, cuda_stream or handle"
        raise TypeError(f"stream: expected {accepted}, got {stream!r}")
    if not 0 <= handle <= _LARGEST_HANDLE:
        raise ValueError(f"stream: expected a handle from 0 to 2**64 - 1, got {handle}")
    return int(handle) or LEGACY_DEFAULT_STREAM


def shape(array: Any) -> tuple[int, ...]:
    """Return the shape of an array in device memory."""
    if hasattr(array, "shape"):
        return tuple(array.shape)
    if hasattr(array, "__cuda_array_interface__"):
        return tuple(_interface(array, "image")["shape"])
    raise TypeError(f"image: expected an array with a shape, got {type(array).__name__}")


def describe(array: Any, name: str, stream: int, core: _core.Estimator) -> NDArray[Any]:
    """Describe an array in device memory as a NumPy array, which keeps it alive and must not be read.

    The core checks the description as it checks arrays in host memory. What is enqueued on `stream` from now on finds
    the array ready.
    """
    if not on_device(array):
        raise TypeError(f"{name}: expected an array in device memory, as image is, got {type(array).__name__}")
    if hasattr(array, "__dlpack__"):
        kind, gpu = array.__dlpack_device__()
        if kind == _CUDA and gpu != core.gpu:
            raise ValueError(f"{name}: expected memory of GPU {core.gpu}, got memory of GPU {gpu}")
        return _core.from_dlpack(_capsule(array, name, stream), name)
    interface = _interface(array, name)
    version, ready = interface.get("version"), interface.get("stream")
    if version not in (2, 3):
        raise TypeError(f"{name}: expected __cuda_array_interface__ of version 2 or 3, got {version!r}")
    if interface.get("mask") is not None:
        raise TypeError(f"{name}: expected an array without a mask, got one with a mask")
    if ready is not None and not (isinstance(ready, int) and 0 < ready <= _LARGEST_HANDLE):
        raise ValueError(
            f"{name}: expected a stream from 1 to 2**64 - 1 or None in __cuda_array_interface__, got {ready!r}"
        )
    data = interface.get("data")
    if not (isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], int)):
        raise TypeError(f"{name}: expected data (pointer, read-only) in __cuda_array_interface__, got {data!r}")
    # NumPy would take null for a wish for memory of its own.
    if data[0] == 0 and all(interface["shape"]):
        raise ValueError(f"{name}: expected a pointer to pixels, got null")
    if ready is not None:
        core.order(ready, stream)
    try:
        return np.asarray(_Description(interface, array))
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name}: expected an array that __cuda_array_interface__ describes, got: {error}") from None


def _interface(array: Any, name: str) -> dict[str, Any]:
    """Return its CUDA Array Interface, checked where NumPy would complain about its own protocol."""
    interface = array.__cuda_array_interface__
    if not isinstance(interface, dict):
        raise TypeError(f"{name}: expected a dict as __cuda_array_interface__, got {interface!r}")
    shape, typestr = interface.get("shape"), interface.get("typestr")
    if not (isinstance(shape, tuple) and all(isinstance(n, (int, np.integer)) and n >= 0 for n in shape)):
        raise TypeError(f"{name}: expected a shape (integer >= 0, ...) in __cuda_array_interface__, got {shape!r}")
    if not isinstance(typestr, str):
        raise TypeError(f"{name}: expected a text as typestr in __cuda_array_interface__, got {typestr!r}")
    return interface


@dataclass
class _Description:
    __array_interface__: dict[str, Any]
    owner: Any


def _capsule(array: Any, name: str, stream: int) -> Any:
    try:
        try:
            return array.__dlpack__(stream=stream, max_version=(1, 1), copy=False)
        except TypeError:  # producers older than DLPack 1.0
            return array.__dlpack__(stream=stream)
    except (BufferError, RuntimeError) as error:
        raise TypeError(f"{name}: {type(array).__name__} does not export its memory: {error}") from None


class DeviceArray:
    """(H, W) float32 in device memory, for ``cupy.asarray``, ``torch.from_dlpack`` and the like, without a copy.

    Exports ``__dlpack__`` and ``__cuda_array_interface__``; both tell the consumer's stream to wait for the frame. The
    memory is freed with the last array that shows it, which waits for the device.
    """

    def __init__(self, core: _core.Estimator, stream: Any) -> None:
        self._core = core
        handle = stream_handle(stream)
        # A consumer in another thread would take 2 for that thread's stream. The legacy one waits for those of all.
        self._stream = LEGACY_DEFAULT_STREAM if handle == PER_THREAD_DEFAULT_STREAM else handle
        self._stream_owner = stream  # consumers will be told to wait for it
        self._map = core.make_map()

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self._core.height, self._core.width

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """float32."""
        return np.dtype(np.float32)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._map.pointer, False),
            "strides": None,
            "stream": self._stream,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self._map.gpu

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"only exported as it is, on device {self.__dlpack_device__()}")
        if stream is not None and not (isinstance(stream, int) and (stream == -1 or 0 < stream <= _LARGEST_HANDLE)):
            raise ValueError(f"stream: expected -1, 1, 2 or a handle, got {stream!r}")
        if stream != -1:
            self._core.order(self._stream, LEGACY_DEFAULT_STREAM if stream is None else stream)
        return self._map.to_dlpack(max_version is not None and max_version[0] >= 1)

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise TypeError(
            "expected an array in host memory, got one in device memory: see cupy.asarray, torch.from_dlpack"
        )

    def __repr__(self) -> str:
        return f"DeviceArray({self.shape[0]} x {self.shape[1]}, GPU {self._map.gpu})"
