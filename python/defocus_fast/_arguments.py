# SPDX-License-Identifier: Apache-2.0
"""Arguments of the public calls, as the core takes them. Options are checked there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._device import on_device
from ._frame import Frame

_core.load_numpy()


def as_array(image: Any, name: str) -> NDArray[Any]:
    """View `image` as a NumPy array without a copy, or raise TypeError."""
    if type(image) is np.ndarray:  # first: NumPy loads numpy.ma when it is named, which is not for a frame to wait for
        return image
    if isinstance(image, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got a masked one: the pixels behind a mask count")
    if isinstance(image, np.ndarray):
        return image
    if on_device(image):
        reason = "Estimator(..., device='cuda') takes it, or tells what is missing for that"
        raise TypeError(
            f"{name}: expected an array in host memory, got {type(image).__name__}, which is on a device: {reason}"
        )
    if hasattr(image, "__dlpack__"):
        try:
            return np.from_dlpack(image)
        except (BufferError, RuntimeError) as error:
            raise TypeError(f"{name}: expected an array in host memory, got {type(image).__name__}: {error}") from None
    if hasattr(image, "__array_interface__"):
        return np.asarray(image)
    accepted = "a NumPy array or an object with __dlpack__ or __array_interface__"
    raise TypeError(f"{name}: expected {accepted}, got {type(image).__name__}")


def as_image(image: Any) -> NDArray[Any] | _core.Frame:
    """View an image, or a frame of a camera, without a copy, or raise TypeError or ValueError."""
    return image.view(lambda plane: as_array(plane, "image")) if isinstance(image, Frame) else as_array(image, "image")


def side(name: str, value: Any) -> int:
    """Return an int or a NumPy integer as int; anything else would get pybind11's message."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if not 1 <= value <= 2**30:
        raise ValueError(f"{name}: expected 1 to 1073741824 px, got {value}")
    return int(value)


def host_frame(image: Any, edges: Any, stream: Any) -> tuple[NDArray[Any] | _core.Frame, NDArray[Any] | None]:
    """View an image in host memory, and the mask that may come with it; for a stream raise ValueError."""
    arrays = as_image(image), None if edges is None else as_array(edges, "edges")
    if stream is not None:
        raise ValueError(
            f"stream: expected None for an image in host memory, whose frame is waited for, got {stream!r}"
        )
    return arrays
