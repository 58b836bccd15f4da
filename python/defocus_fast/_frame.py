# SPDX-License-Identifier: Apache-2.0
"""Frames as cameras give them; what their numbers stand for is decided in the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from numpy.typing import NDArray

from . import _core

PixelFormat = Literal[
    "gray8", "gray10", "gray16", "rgb", "bgr", "rgba", "bgra", "rgbx", "bgrx", "nv12", "nv21", "i420", "yuyv", "p010"
]  # fmt: skip
ColourRange = Literal["full", "limited"]
ColourMatrix = Literal["bt601", "bt709"]


class Frame:
    """A frame as cameras and decoders give it, read where it is, in place of an image of red, green and blue.

    :meth:`Estimator.estimate`, :meth:`Estimator.estimate_into`, :func:`estimate_blur`, :func:`detect_edges` and
    :func:`propagate` take it. It stands for a uint8 image, or, where it has more than 8 bits, for a float32 one: the
    answer is the very one that this image has. `docs/frames.md` has the formulas.

    Args:
        planes: one array, or the planes one by one, in host memory or, for an estimator of device "cuda", in the
            GPU's; not copied, and kept. Rows may be any distance apart, or upside down; in a row there are no gaps:

            - "gray8": (H, W) uint8; "gray10" (the low 10 bits), "gray16": (H, W) uint16.
            - "rgb", "bgr": (H, W, 3) uint8; "rgba", "bgra", "rgbx", "bgrx": (H, W, 4) uint8, the fourth does not
              count.
            - "nv12", "nv21": (H * 3 / 2, W) uint8, or (H, W) and (H / 2, W) or (H / 2, W / 2, 2). "p010" is the same
              as uint16, of which the high 10 bits count.
            - "i420": (H * 3 / 2, W) uint8, here without gaps between rows, or (H, W), (H / 2, W / 2) and
              (H / 2, W / 2).
            - "yuyv": (H, W, 2) uint8.

            H is even for the formats with H / 2, and W for all of YUV.
        format: one of these names.
        range: "full" or "limited", where black is 16 of 255 and white 235. None: "limited" for YUV, "full" for grey
            and RGB; RGB has no other.
        matrix: of YUV: "bt601" or "bt709".

    Raises, when it is used:
        TypeError: an array has another dtype, or is no array.
        ValueError: an unknown name, or arrays of other shapes, with gaps in rows, or that overlap.

    Notes:
        The words of a "gray10" frame must be at most 1023, which is not checked in device memory.
    """

    def __init__(
        self, planes: Any, format: PixelFormat, *, range: ColourRange | None = None, matrix: ColourMatrix = "bt601"
    ) -> None:
        self.planes = tuple(planes) if isinstance(planes, (tuple, list)) else (planes,)
        self.format = format
        self.range = range
        self.matrix = matrix

    def view(self, describe: Callable[[Any], NDArray[Any]]) -> _core.Frame:
        """Return what the core reads; `describe` makes a plane a NumPy array that shows its memory."""
        for name, value in {"format": self.format, "range": self.range or "full", "matrix": self.matrix}.items():
            if not isinstance(value, str):
                raise TypeError(f"{name}: expected a name, got {value!r}")
        return _core.Frame(self.format, [describe(plane) for plane in self.planes], self.range, self.matrix)

    def __repr__(self) -> str:
        return f"Frame(..., {self.format!r}, range={self.range!r}, matrix={self.matrix!r})"
