# SPDX-License-Identifier: Apache-2.0
"""Print how long the first calls of `propagate` take in a fresh process, beside OpenCV's three dtFilter in another.

``python bench/fresh.py`` needs `pip install ".[bench]"`, and a machine with nothing else to do.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

FIRST, LATER = 10, 30
PROCESSES = 5


def calls(which: str) -> Callable[[], object]:
    import cv2
    import test_speed

    import defocus_fast

    cv2.setNumThreads(test_speed.THREADS)
    frame, none = test_speed.photo(test_speed.HD), np.zeros(test_speed.HD, bool)
    radii = np.random.default_rng(0).uniform(0.5, 6, test_speed.HD).astype(np.float32)
    # Canny by OpenCV: a call of ours would warm up what is measured.
    edges = cv2.Canny(frame, 50, 100) > 0
    if which == "opencv":
        return test_speed.dt_filter_propagate(frame, radii, edges)()
    threads = test_speed.THREADS
    return functools.partial(defocus_fast.propagate, frame, radii, edges, none, sigma_r=0.75, num_threads=threads)


def measure(which: str) -> None:
    call = calls(which)
    times = []
    for _ in range(FIRST + LATER):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    print(*times)


def main() -> None:
    medians: dict[str, list[float]] = {}
    for _ in range(PROCESSES):
        for which in ("ours", "opencv"):
            command = [sys.executable, __file__, which]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            times = [float(word) for word in output.split()]
            medians.setdefault(which, []).append(float(np.median(times[:FIRST])))
            medians.setdefault(f"{which}, later", []).append(float(np.median(times[FIRST:])))
            print(f"{which}: first calls {' '.join(f'{each:.0f}' for each in times[:FIRST])} ms")
    ours, later, opencv = (float(np.median(medians[key])) for key in ("ours", "ours, later", "opencv"))
    print(f"propagate of 1920x1080, medians of {PROCESSES} processes:")
    print(f"the first {FIRST} calls {ours:.1f} ms, {ours / later:.2f}x those after them ({later:.1f} ms);")
    print(f"OpenCV's first {FIRST} calls {opencv:.1f} ms, {opencv / ours:.2f}x ours")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        main()
