# SPDX-License-Identifier: Apache-2.0
"""What an estimator answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._device import DeviceArray


@dataclass(frozen=True, eq=False, repr=False)
class BlurMap:
    """One image's answer. Arrays over edges have one entry per edge pixel: octave by octave, in an octave row by row.

    Attributes:
        map: (H, W) radius in px of the disk that blurred each pixel.
        expected_error: (H, W) expected absolute error of the map in px, calibrated on synthetic scenes; (0, 0) if not
            wanted. sqrt(a**2 + (b * s)**2): s is the standard deviation of the mixture of all edges' posteriors that
            the filter brings to the pixel, and the less weight it brings, the more of 0.58 times the map + 1 px, which
            stands for a radius that is not known; a and b belong to the model. ``labels="hard"`` leaves it
            uncalibrated, and it knows nothing of blur beyond the largest radius.
        pattern_edges: (H, W) edges of the first octave at which the radius was read.
        depth_edges: (H, W) edges of the first octave at which the blur changes.
        edges: (n, 2) row and column of every edge that was read, of all octaves. With more than one, an octave is not
            asked about edges that would count nothing beside what its neighbour says.
        octave: (n,) the edge was found in the image reduced by ``2**octave``.
        depth_probability: (n,) probability that the edge is a depth edge.
        radii: (n,) radius in px, by the estimator's `labels`; at depth edges that of the nearer side.
        radius_std: (n,) standard deviation in px of the blur network's probabilities.
        radius_probability: (n,) probability of the most probable radius.
        bin_probabilities: (n, bins) probability of every radius, ``radius_bins * 2**octave``; (0, 0) unless asked
            for.
        stage_ms: milliseconds of each stage, in the order in which they run; on a GPU by its own clock, without copies.
    """

    map: NDArray[np.float32]
    expected_error: NDArray[np.float32]
    pattern_edges: NDArray[np.bool_]
    depth_edges: NDArray[np.bool_]
    edges: NDArray[np.int32]
    octave: NDArray[np.uint8]
    depth_probability: NDArray[np.float32]
    radii: NDArray[np.float32]
    radius_std: NDArray[np.float32]
    radius_probability: NDArray[np.float32]
    bin_probabilities: NDArray[np.float32]
    stage_ms: dict[str, float]

    def scores(self) -> dict[str, int | float]:
        """Return the image as numbers, under the names that they have in JSON and Parquet files.

        ``height`` and ``width`` in px; ``edges``, how many were read, of all octaves; ``pattern_edges``, how many of
        them in the first octave give a radius; ``min_px``, ``median_px`` and ``max_px`` of the map.
        """
        height, width = self.map.shape
        return {
            "height": height,
            "width": width,
            "edges": len(self.edges),
            "pattern_edges": int(np.count_nonzero(self.pattern_edges)),
            "min_px": float(self.map.min()),
            "median_px": float(np.median(self.map)),
            "max_px": float(self.map.max()),
        }

    def __repr__(self) -> str:
        return f"BlurMap({self.map.shape[0]} x {self.map.shape[1]}, {len(self.edges)} edges)"


@dataclass(frozen=True)
class DeviceBlurMap:
    """One image's answer in device memory.

    Attributes:
        map: (H, W) radius in px of the disk that blurred each pixel.
        expected_error: (H, W) expected absolute error of the map in px, see :class:`BlurMap`; None if not wanted.
    """

    map: DeviceArray
    expected_error: DeviceArray | None
