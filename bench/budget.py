# SPDX-License-Identifier: Apache-2.0
"""Measure what frames of a video take that have a budget: ``python bench/budget.py`` writes bench/budget.json, of which
bench/report.py makes the section of BENCHMARK.md. A camera held by hand looks at the pictures of examples/, mirrored
out to size, with noise of 3 of 255; every 500 frames it looks at another one. Needs a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import conftest
import numpy as np
from numpy.typing import NDArray
from video import picture

import defocus_fast

ROOT = Path(__file__).parents[1]
CASES = ((720, 1280, 33.0), (1080, 1920, 66.0))  # px, px, ms
CUT, SHAKE, NOISES = 500, 12, 6  # frames, px, different pictures of noise
Picture = NDArray[np.uint8]


def scenes(height: int, width: int) -> list[list[Picture]]:
    """Pictures with a margin of SHAKE, each with several noises."""
    rng = np.random.default_rng(0)
    found = []
    for name in ("otters", "osprey", "wren", "periwinkle"):
        scene = picture(name, height + SHAKE, width + SHAKE)
        noisy = (scene + rng.normal(0, 3, scene.shape).astype(np.float32) for _ in range(NOISES))
        found.append([np.clip(np.rint(each), 0, 255).astype(np.uint8) for each in noisy])
    return found


def frames(height: int, width: int, count: int) -> Iterator[Picture]:
    """Views, which take no time to make."""
    pictures, rng = scenes(height, width), np.random.default_rng(1)
    at = np.full(2, SHAKE / 2)
    for number in range(count):
        at = np.clip(at + rng.normal(0, 0.5, 2), 0, SHAKE)
        y, x = np.rint(at).astype(int)
        noisy = pictures[number // CUT % len(pictures)][rng.integers(NOISES)]
        yield noisy[y : y + height, x : x + width]


def measure(height: int, width: int, budget_ms: float | None, count: int, model: str) -> dict[str, Any]:
    video = defocus_fast.VideoEstimator(height, width, model=model, num_threads=conftest.THREADS, budget_ms=budget_ms)
    video.warm_up()
    out = np.empty((height, width), np.float32)
    ms, read, resident_mb = np.empty(count), np.empty(count), []
    for number, frame in enumerate(frames(height, width, count)):
        start = time.perf_counter()
        change = video.estimate_into(frame, out)
        ms[number], read[number] = 1e3 * (time.perf_counter() - start), change.read
        if number in (0, count - 1):
            resident_mb.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {
        "height": height,
        "width": width,
        "model": model,
        "budget_ms": budget_ms,
        "frames": count,
        "ms": {name: float(np.percentile(ms, q)) for name, q in (("median", 50), ("p99", 99), ("p99.9", 99.9))}
        | {"max": float(ms.max())},
        "over": int((ms > budget_ms).sum()) if budget_ms else None,
        "read": float(read.mean()),
        "peak_mb": resident_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "budget.json")
    args = parser.parse_args()
    cases = []
    for height, width, budget_ms in CASES:
        # Without a budget a few hundred frames tell enough.
        for budget, count in ((None, min(args.frames, 300)), (budget_ms, args.frames)):
            cases.append(measure(height, width, budget, count, args.model))
            print(cases[-1], flush=True)
    result = {"machine": conftest.machine(), "date": str(datetime.date.today()), "cases": cases}
    args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
