# SPDX-License-Identifier: Apache-2.0
"""Which of several photographs is sharp where it matters: radii in regions, the sharpest region, bursts and their best.

A radius of a region, or of a whole image, is a low percentile of the blur map over the edges in it. Between the edges
the map is only what spreads from them; and of what is in an image, the sharpest part is what the camera was to show.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._results import BlurMap

# Chosen on bursts of validation images: bench/culling.py --validation.
PERCENTILE = 15
# For the sharpest square: at 15, one that a sharp subject only reaches into would do as well as one in the subject.
SQUARE_PERCENTILE = 50
SQUARES, SPOTS = 6, 4  # the image's shorter side, divided by that of the squares, and of the region around a point
LEAST_SIDE = 32  # px, of both
ERROR_SHARE = 0.6  # of a radius: its mean error, beside the mean of the map's expected error at the edges up to it
LEAST_EDGES = 50  # in a region: fewer tell nothing of it
LIKENESS = 0.8  # of two photographs of one burst
_LOOK_SIDE = 32  # px
_LARGEST_SHIFT = 4  # px of a look, between two photographs of one burst


@dataclass(frozen=True)
class Region:
    """A rectangle of an image as it is seen: row 0 is the top. All in px."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Sharpness:
    """How sharp a region of an image is.

    Attributes:
        region: the rectangle.
        radius: the 15th percentile of the map over the region's edges, px; of the sharpest square the median.
        error: how far off that is likely to be, px: 0.6 times the mean of the map's expected error over those of the
            edges where the map is not more than the radius; some of their errors cancel out.
        edges: how many the region has.
    """

    region: Region
    radius: float
    error: float
    edges: int


def region_of(box: tuple[float, float, float, float], size: tuple[int, int]) -> Region:
    """Return the part of an image that is told in shares of its sides.

    Args:
        box: x and y of the left upper corner, width and height. What lies outside of [0, 1] is cut off. A point, whose
            width and height are 0, stands for a square around it, with a quarter of the image's shorter side.
        size: height and width of the image, px.
    """
    x, y, width, height = box
    if not (width and height):
        side = _side(size, SPOTS)
        x, y, width, height = x - side / 2 / size[1], y - side / 2 / size[0], side / size[1], side / size[0]
    left, top = (min(max(round(at * side), 0), side - 1) for at, side in ((x, size[1]), (y, size[0])))
    right, bottom = (
        min(max(round(end * side), first + 1), side)
        for end, side, first in ((x + width, size[1], left), (y + height, size[0], top))
    )
    return Region(left, top, right - left, bottom - top)


def _side(size: tuple[int, int], share: int) -> int:
    """Return the side of a square for an image of this height and width, px; an even number."""
    return max(LEAST_SIDE, min(size) // share) // 2 * 2


def radius_in(result: BlurMap, region: Region | None = None, percentile: float = PERCENTILE) -> Sharpness | None:
    """Return how sharp a region is, or the whole image, or None where it has fewer than 50 edges.

    `result` is an estimator's answer with ``expected_error=True``.
    """
    region = region or Region(0, 0, result.map.shape[1], result.map.shape[0])
    y, x = result.edges.T
    inside = (y >= region.y) & (y < region.y + region.height) & (x >= region.x) & (x < region.x + region.width)
    return _sharpness(result, region, np.flatnonzero(inside), percentile)


def _sharpness(result: BlurMap, region: Region, chosen: NDArray[np.intp], percentile: float) -> Sharpness | None:
    if len(chosen) < LEAST_EDGES:
        return None
    y, x = result.edges[chosen].T
    radii = result.map[y, x]
    radius = np.percentile(radii, percentile)
    errors = result.expected_error[y, x][radii <= radius]
    return Sharpness(region, float(radius), ERROR_SHARE * float(errors.mean(dtype=np.float64)), len(chosen))


def sharpest_region(result: BlurMap) -> Sharpness | None:
    """Return the square region whose radius and error together are least, or None where none has 50 edges.

    Squares with a sixth of the image's shorter side, at least 32 px, are compared, half a side apart, by the median of
    the map over their edges, which is their radius here. Of many radii the least is often one that was read too small;
    so one that is surer goes before. `result` is an estimator's answer with ``expected_error=True``.
    """
    height, width = result.map.shape
    step = _side((height, width), SQUARES) // 2
    rows, columns = -(-height // step), -(-width // step)
    cell = result.edges[:, 0] // step * columns + result.edges[:, 1] // step
    order = np.argsort(cell, kind="stable")
    begin = np.searchsorted(cell[order], np.arange(rows * columns + 1))

    def edges_of(row: int, column: int) -> NDArray[np.intp]:
        """Return the edges in 2 x 2 cells."""
        last = min(column + 2, columns)
        bands = (row * columns, min(row + 1, rows - 1) * columns)
        return np.concatenate([order[begin[band + column] : begin[band + last]] for band in dict.fromkeys(bands)])

    best: Sharpness | None = None
    for row in range(max(rows - 1, 1)):
        for column in range(max(columns - 1, 1)):
            x, y = column * step, row * step
            region = Region(x, y, min(2 * step, width - x), min(2 * step, height - y))
            found = _sharpness(result, region, edges_of(row, column), SQUARE_PERCENTILE)
            if found and (best is None or found.radius + found.error < best.radius + best.error):
                best = found
    return best


def share_in_focus(result: BlurMap, radius: float) -> float | None:
    """Return the share of the map's pixels whose radius is at most `radius` px, or None for an image without edges."""
    return float(np.mean(result.map <= radius)) if len(result.edges) else None


@dataclass(frozen=True, eq=False)
class Shot:
    """What tells whether two photographs are of one burst.

    Attributes:
        camera: any text that differs between cameras.
        taken: when, by the camera's clock; None where that is not known.
        look: what :func:`look_of` returns.
    """

    camera: str
    taken: datetime.datetime | None
    look: NDArray[np.float32]


def look_of(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return an image, (H, W) or (H, W, 3), uint8 or float32, reduced to (32, 32) float32, grey."""
    view = Image.fromarray(image)
    grey = view.convert("L") if image.dtype == np.uint8 else view
    return np.asarray(grey.resize((_LOOK_SIDE, _LOOK_SIDE), Image.Resampling.BOX), np.float32)


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the correlation coefficient of two looks, in [-1, 1], where they agree best.

    They may be shifted against each other by an eighth of the sides. Exposure and blur make little difference to it.
    A look without any contrast is like no other: -1.
    """

    def overlap(look: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
        side = _LOOK_SIDE
        part = look[max(down, 0) : side + min(down, 0), max(right, 0) : side + min(right, 0)]
        centred: NDArray[np.float32] = part - part.mean()
        return centred

    shifts = range(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1)
    best = -1.0
    for down in shifts:
        for right in shifts:
            a, b = overlap(one, down, right), overlap(other, -down, -right)
            energy = float((a * a).sum()) * float((b * b).sum())
            if energy > 0:
                best = max(best, float((a * b).sum()) / energy**0.5)
    return best


def bursts(shots: Sequence[Shot], gap: float) -> list[list[int]]:
    """Group photographs that were taken at about the same time and look alike; return their numbers in `shots`.

    Photographs of one camera are compared in the order in which they were taken, each with the one before: it is of the
    same burst if at most `gap` seconds lie between them and they look alike. Where the time is not known, the order is
    that of `shots`, and looks alone decide. Every number is in one group; groups have one member or more.
    """
    never = datetime.datetime.min
    order = sorted(range(len(shots)), key=lambda i: (shots[i].camera, shots[i].taken or never, i))
    groups: list[list[int]] = []
    for number in order:
        shot = shots[number]
        if groups and _same_burst(shots[groups[-1][-1]], shot, gap):
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def _same_burst(before: Shot, shot: Shot, gap: float) -> bool:
    if before.camera != shot.camera or (before.taken is None) != (shot.taken is None):
        return False
    if before.taken and shot.taken and (shot.taken - before.taken).total_seconds() > gap:
        return False
    return likeness(before.look, shot.look) >= LIKENESS
