# SPDX-License-Identifier: Apache-2.0
"""Times of frames, whole and by stage."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._estimator import Estimator

MOST_CALLS = 1000


@dataclass
class FrameTimes:
    """Times in ms."""

    precision: str  # what "auto" became
    construct: float
    first_call: float
    stages: dict[str, list[float]]  # by stage, "whole frame" and, on a GPU, "device to device"; one per warm call
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
    """Call ``Estimator(..., **options).estimate(frame)`` once, then for about `seconds` (3 to 1000 times).

    On a GPU these are times from host memory to host memory. For as long, the map of the frame in device memory is
    computed and waited for, if there is CuPy or PyTorch to bring the frame there; else "device to device" is NaN.
    """
    start = time.perf_counter()
    estimator = Estimator(*frame.shape[:2], **options)
    constructed = time.perf_counter()
    result = estimator.estimate(frame)
    first = time.perf_counter()
    stages: dict[str, list[float]] = {}
    for result, frame_ms in _timed(lambda: estimator.estimate(frame), seconds):
        for stage, ms in {**result.stage_ms, "whole frame": frame_ms}.items():
            stages.setdefault(stage, []).append(ms)
    if estimator.device == "cuda":
        stages["device to device"] = _device_to_device(estimator, frame, seconds)
    times = 1e3 * (constructed - start), 1e3 * (first - constructed)
    return FrameTimes(estimator.precision, *times, stages, len(result.edges))


def _timed(call: Callable[[], Any], seconds: float) -> Iterator[tuple[Any, float]]:
    """Yield what the calls return, and their times in ms."""
    first = begin = time.perf_counter()
    calls = 0
    while calls < 3 or (begin - first < seconds and calls < MOST_CALLS):
        result = call()
        yield result, 1e3 * (time.perf_counter() - begin)
        begin = time.perf_counter()
        calls += 1


def _device_to_device(estimator: Estimator, frame: NDArray[Any], seconds: float) -> list[float]:
    to_device = _to_device()
    if to_device is None:
        return [float("nan")]
    image, out = to_device(frame), to_device(np.empty(frame.shape[:2], np.float32))

    def call() -> None:
        estimator.estimate_into(image, out)
        estimator.edge_count()

    for _ in range(2):  # as it is, and captured into a graph
        call()
    return [ms for _, ms in _timed(call, seconds)]


def _to_device() -> Callable[[NDArray[Any]], Any] | None:
    if importlib.util.find_spec("cupy"):
        return importlib.import_module("cupy").asarray  # type: ignore[no-any-return]
    if importlib.util.find_spec("torch") and (torch := importlib.import_module("torch")).cuda.is_available():
        return lambda array: torch.as_tensor(array, device="cuda")
    return None


def of_size(picture: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return the image's middle (height, width), mirrored out where it is smaller."""
    size = np.array(picture.shape[:2])
    pad = np.maximum(np.array([height, width]) - size, 0)
    y, x = (size + pad - [height, width]) // 2
    whole = np.pad(picture, [(0, pad[0]), (0, pad[1]), (0, 0)][: picture.ndim], mode="symmetric")
    return np.ascontiguousarray(whole[y : y + height, x : x + width])


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """Return colour noise of several scales, (height, width, 3): every tenth pixel or so is an edge."""
    rng = np.random.default_rng(0)
    picture = np.zeros((height, width, 3))
    for scale in (4, 8, 16, 32):
        coarse = rng.random((-(-height // scale), -(-width // scale), 3))
        picture += scale * coarse.repeat(scale, 0).repeat(scale, 1)[:height, :width]
    return np.asarray(picture * (255 / picture.max()), np.uint8)
