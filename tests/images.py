# SPDX-License-Identifier: Apache-2.0
"""Images made on the spot: textured, tied, flat and hostile ones, of awkward sizes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

SIZES = [
    (1, 1), (1, 2), (2, 1), (1, 97), (97, 1), (2, 2), (3, 3), (3, 200), (5, 7), (15, 15), (17, 31), (31, 33),
    (32, 32), (40, 41), (63, 65), (64, 64), (65, 63), (101, 203), (128, 31), (193, 191),
]  # fmt: skip


def texture(height: int, width: int, seed: int = 0) -> Picture:
    """Smooth colour noise of several scales: edges of every strength and direction."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for scale in (1, 2, 4, 8, 16):
        noise = rng.random((height // scale + 2, width // scale + 2, 3))
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * scale
    picture -= picture.min()
    return (255 * picture / max(picture.max(), 1e-9)).astype(np.uint8)


def _noise(height: int, width: int, seed: int) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _binary(height: int, width: int, seed: int) -> Picture:
    return (np.random.default_rng(seed).integers(0, 2, (height, width)) * 255).astype(np.uint8)


def _blocks(height: int, width: int, seed: int) -> Picture:
    size = 2 + seed % 10
    grid = np.random.default_rng(seed).integers(0, 256, (height // size + 1, width // size + 1), dtype=np.uint8)
    return np.kron(grid, np.ones((size, size), np.uint8))[:height, :width]


def _ramps(height: int, width: int, seed: int) -> Picture:
    y, x = np.mgrid[:height, :width]
    return ((x * (1 + seed % 7) + y * (1 + seed % 5)) % 256).astype(np.uint8)


def _disk(height: int, width: int, seed: int) -> Picture:
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 3) ** 2
    return (inside * (20 + seed % 200)).astype(np.uint8)


KINDS: dict[str, Callable[[int, int, int], Picture]] = {
    "texture": texture,
    "noise": _noise,
    "binary": _binary,  # ties between neighbours: rounding decides
    "blocks": _blocks,
    "ramps": _ramps,
    "disk": _disk,
}
