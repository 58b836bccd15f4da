# SPDX-License-Identifier: Apache-2.0
"""Frames of cameras in plain NumPy: what their numbers stand for, as docs/frames.md defines it, and random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from images import texture
from numpy.typing import NDArray

FORMATS = [
    "gray8", "gray10", "gray16", "rgb", "bgr", "rgba", "bgra", "rgbx", "bgrx", "nv12", "nv21", "i420", "yuyv", "p010",
]  # fmt: skip
YUV = ["nv12", "nv21", "i420", "yuyv", "p010"]
BITS = {"gray10": 10, "gray16": 16, "p010": 10}


def exact(luma: Any, u: Any, v: Any, bits: int, range_: str, matrix: str) -> NDArray[np.float64]:
    """The recommendations' own formula, without rounding: red, green and blue in [0, 1]."""
    red, blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    unit, white = 2.0 ** (bits - 8), 2.0**bits - 1
    limited = range_ == "limited"
    y = (luma - 16 * unit) / (219 * unit) if limited else luma / white
    cb, cr = ((c - 128 * unit) / (224 * unit if limited else white) for c in (u, v))
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return np.clip(np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=-1), 0, 1)


def defined(luma: Any, u: Any, v: Any, bits: int, range_: str, matrix: str) -> NDArray[Any]:
    """The definition of docs/frames.md: factors in 2^-13, sums in integers."""
    red, blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    green, unit, white = 1 - red - blue, 2 ** (bits - 8), 2**bits - 1
    limited = range_ == "limited"
    ky, kc = (white / (219 * unit), white / (224 * unit)) if limited else (1, 1)

    def factor(value: float) -> int:
        return round(8192 * value)

    y, u, v = (np.asarray(luma, np.int64) - 16 * unit * limited) * factor(ky), u - 128 * unit, v - 128 * unit
    sums = np.stack(
        [
            y + factor(kc * 2 * (1 - red)) * v,
            y + factor(-kc * 2 * (1 - blue) * blue / green) * u + factor(-kc * 2 * (1 - red) * red / green) * v,
            y + factor(kc * 2 * (1 - blue)) * u,
        ],
        axis=-1,
    )
    if bits == 8:
        return np.clip((sums + 4096) >> 13, 0, 255).astype(np.uint8)
    return np.clip(sums, 0, white << 13).astype(np.float32) / np.float32(white << 13)


def rows_apart(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """The same numbers with gaps after the rows, or upside down."""
    if layout == "packed":
        return np.ascontiguousarray(array)
    rows, columns = array.shape[0], array[0].size
    wide = np.full((rows, columns + 10), 77, array.dtype)
    wide[:, :columns] = (array[::-1] if layout == "flipped" else array).reshape(rows, columns)
    strides = (wide.strides[0], *np.ascontiguousarray(array).strides[1:])
    view = np.lib.stride_tricks.as_strided(wide, array.shape, strides)
    return view[::-1] if layout == "flipped" else view


def make(
    format: str, height: int, width: int, layout: str = "packed", range_: str | None = None, matrix: str = "bt601"
) -> tuple[Any, NDArray[Any]]:
    """A textured frame's planes, and the image that it stands for."""
    bits = BITS.get(format, 8)
    type_ = np.uint8 if bits == 8 else np.uint16
    scale = (2**bits - 1) / 255
    picture = texture(height, width, seed=height + width)
    if format in ("rgb", "bgr", "rgba", "bgra", "rgbx", "bgrx"):
        fourth = np.random.default_rng(1).integers(0, 256, (height, width, 1), np.uint8)
        stored = np.concatenate([picture[..., :: -1 if format[0] == "b" else 1], fourth], axis=2)
        return rows_apart(stored[..., : len(format)], layout), picture
    # Not the conversion of the picture: what no camera would send is read by the same rules.
    luma = (picture[..., 0] * scale + np.random.default_rng(2).integers(0, 2, (height, width))).astype(type_)
    luma = np.minimum(luma, 2**bits - 1).astype(type_)
    range_ = range_ or ("limited" if format in YUV else "full")
    if format.startswith("gray"):
        none = np.full(luma.shape, 2 ** (bits - 1))
        image = defined(luma, none, none, bits, range_, matrix)[..., 0]
        return rows_apart(luma, layout), image
    down = 1 if format == "yuyv" else 2
    u, v = ((texture(height // down, width // 2, seed)[..., 1] * scale).astype(type_) for seed in (3, 4))
    full = [np.repeat(np.repeat(c, down, axis=0), 2, axis=1) for c in (u, v)]
    image = defined(luma, *(c.astype(np.int64) for c in full), bits, range_, matrix)
    if format == "p010":
        low = np.random.default_rng(5).integers(0, 64, luma.shape, np.uint16)  # which do not count
        luma, u, v = (luma << 6) + low, u << 6, v << 6
    if format == "yuyv":
        packed = np.empty((height, width, 2), np.uint8)
        packed[..., 0], packed[:, ::2, 1], packed[:, 1::2, 1] = luma, u, v
        return rows_apart(packed, layout), image
    interleaved = np.stack([v, u] if format == "nv21" else [u, v], axis=-1)
    planes = [luma, u, v] if format == "i420" else [luma, interleaved]
    return tuple(rows_apart(plane, layout) for plane in planes), image


def in_one(planes: Any) -> NDArray[Any]:
    """The planes of a frame of 3 / 2 * H rows in one array."""
    height, width = planes[0].shape
    return np.concatenate([np.asarray(plane).reshape(-1) for plane in planes]).reshape(height * 3 // 2, width)
