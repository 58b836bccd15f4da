# SPDX-License-Identifier: Apache-2.0
"""Times of frames, whole and by stage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._estimator import Estimator

MOST_CALLS = 1000


@dataclass
class FrameTimes:
    """Times in ms."""

    construct: float
    first_call: float
    stages: dict[str, list[float]]  # by stage and "whole frame", one per warm call
    edges: int

    def summary(self) -> dict[str, dict[str, float]]:
        """Median, p90, p99 and maximum of every stage and of the whole frame."""
        return {
            name: {
                "median": float(np.median(values)),
                "p90": float(np.percentile(values, 90)),
                "p99": float(np.percentile(values, 99)),
                "max": max(values),
            }
            for name, values in self.stages.items()
        }


def time_frames(frame: NDArray[Any], seconds: float, **options: Any) -> FrameTimes:
    """Call ``Estimator(..., **options).estimate(frame)`` once, then for about `seconds` (3 to 1000 times)."""
    start = time.perf_counter()
    estimator = Estimator(*frame.shape[:2], **options)
    constructed = time.perf_counter()
    result = estimator.estimate(frame)
    first = begin = time.perf_counter()
    stages: dict[str, list[float]] = {}
    calls = 0
    while calls < 3 or (begin - first < seconds and calls < MOST_CALLS):
        result = estimator.estimate(frame)
        end = time.perf_counter()
        for stage, ms in {**result.stage_ms, "whole frame": 1e3 * (end - begin)}.items():
            stages.setdefault(stage, []).append(ms)
        begin = end
        calls += 1
    return FrameTimes(1e3 * (constructed - start), 1e3 * (first - constructed), stages, len(result.edges))


def of_size(picture: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return the picture's middle (height, width), mirrored out where it is smaller."""
    size = np.array(picture.shape[:2])
    pad = np.maximum(np.array([height, width]) - size, 0)
    y, x = (size + pad - [height, width]) // 2
    whole = np.pad(picture, [(0, pad[0]), (0, pad[1]), (0, 0)], mode="symmetric")
    return np.ascontiguousarray(whole[y : y + height, x : x + width])


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """Return colour noise of several scales, (height, width, 3): every tenth pixel or so is an edge."""
    rng = np.random.default_rng(0)
    picture = np.zeros((height, width, 3))
    for scale in (4, 8, 16, 32):
        coarse = rng.random((-(-height // scale), -(-width // scale), 3))
        picture += scale * coarse.repeat(scale, 0).repeat(scale, 1)[:height, :width]
    return np.asarray(picture * (255 / picture.max()), np.uint8)
