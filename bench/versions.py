# SPDX-License-Identifier: Apache-2.0
"""Time frames of two versions of this package, which are installed in two virtual environments: ``python
bench/versions.py OLD/bin/python NEW/bin/python``. It needs `pip install ".[bench]"`, and a machine with nothing else to
do.

Each version has a process of its own; their frames take turns, and ratios are taken within rounds.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SECONDS, MOST_ROUNDS = 6, 60  # of each case
CASES: list[tuple[tuple[int, int], dict[str, Any]]] = [
    (size, options)
    for size in ((360, 360), (480, 640), (1080, 1920), (5184, 7776))
    for options in ({"model": "fast"}, {"model": "fast", "octaves": 1}, {"model": "tip22", "octaves": 1})
]


def answer() -> None:
    """Answer each line by the time of a frame in ms. A version that has no octaves reads the first one only."""
    import defocus_fast

    last = ""
    for line in sys.stdin:
        if line != last:
            last, (file, options) = line, json.loads(line)
            known = inspect.signature(defocus_fast.Estimator).parameters
            frame = np.load(file)
            estimator = defocus_fast.Estimator(
                *frame.shape[:2], **{name: value for name, value in options.items() if name in known}
            )
        begin = time.perf_counter()
        estimator.estimate(frame)
        print(1e3 * (time.perf_counter() - begin), flush=True)


def megabytes(python: str) -> float:
    """Return what the files of the virtual environment take."""
    return sum(file.lstat().st_size for file in Path(python).absolute().parents[1].rglob("*") if file.is_file()) / 1e6


def main() -> None:
    import test_speed

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("old")
    parser.add_argument("new")
    args = parser.parse_args()
    versions = [args.old, args.new]
    print("environment:", " -> ".join(f"{megabytes(python):.0f} MB" for python in versions), flush=True)
    print("| image | frames of | rounds | old, ms | new, ms | new / old | its quartiles |")
    print("|---|---|---:|---:|---:|---:|---:|")
    processes = [
        subprocess.Popen([python, __file__], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for python in versions
    ]

    def play(line: str) -> list[float]:
        times = []
        for process in processes:
            time.sleep(test_speed.PAUSE)
            print(line, file=process.stdin, flush=True)
            times.append(float(process.stdout.readline()))
        return times

    with tempfile.TemporaryDirectory() as folder:
        for size, options in CASES:
            file = Path(folder) / "frame.npy"
            np.save(file, test_speed.photo(size))
            line = json.dumps([str(file), options])
            trial = sum(play(line)) / 1e3
            rounds = int(np.clip(SECONDS / trial, 5 if trial < SECONDS else 3, MOST_ROUNDS))
            times = np.array([play(line) for _ in range(rounds)])
            old, new = np.median(times, 0)
            low, ratio, high = np.quantile(times[:, 1] / times[:, 0], [0.25, 0.5, 0.75])
            named = ", ".join(f"{name}={value}" for name, value in options.items())
            print(f"| {size[1]}x{size[0]} | {named} | {len(times)} | {old:.1f} | {new:.1f} ", end="")
            print(f"| {ratio:.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    main() if len(sys.argv) > 1 else answer()
