# SPDX-License-Identifier: Apache-2.0
"""The disk that out-of-focus blur spreads a point over."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def disk_areas(radius: float) -> NDArray[np.float64]:
    """Return the area, in px**2, that a disk of `radius` px around the middle pixel's centre covers in every pixel.

    The array is square with an odd side, and as small as it can be. Up to 0.5 px the disk lies in one pixel.
    """
    half = max(0, math.ceil(radius - 0.5))
    left = np.arange(-half, half + 1) - 0.5
    areas = np.empty((2 * half + 1, 2 * half + 1))
    for row, top in zip(areas, left, strict=True):
        # The strip method: 64 sub-rows a pixel, in each of them the covered length is exact.
        sub = (np.arange(64) + 0.5) / 64 + top
        reach = np.sqrt(np.maximum(radius**2 - sub**2, 0))
        cover = np.minimum(reach[:, None], left + 1) - np.maximum(-reach[:, None], left)
        row[:] = np.clip(cover, 0, 1).mean(0)
    mean: NDArray[np.float64] = (areas + areas.T) / 2
    return mean
