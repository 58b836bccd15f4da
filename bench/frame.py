# SPDX-License-Identifier: Apache-2.0
"""Time of a frame, whole and by stage: ``python bench/frame.py PICTURE [--edges MASK] [--model MODEL]``.

Prints the machine, the settings and, for each precision and form of evaluation, median and p99 of every stage over
warm calls of ``estimate``, the first call apart. With ``--check REFERENCE`` (the published program's recorded answers,
golden_image_01.npz) it also prints how far the map is from the recorded one, so that a fast wrong answer shows.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import defocus_fast


def processor() -> str:
    """The CPU's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--edges", type=Path, help="mask of edge pixels to use in place of the detector's")
    parser.add_argument("--model", default="tip22")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--evaluation", nargs="+", default=["auto"])
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--psi", type=float, default=100.0)
    parser.add_argument("--labels", default="posterior")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--check", type=Path, help="npz with the map to compare with")
    arguments = parser.parse_args()

    image = np.asarray(Image.open(arguments.picture).convert("RGB"))
    edges = None if arguments.edges is None else np.asarray(Image.open(arguments.edges).convert("L")) > 0
    console = Console()
    console.print(f"{processor()}, {os.cpu_count()} cores; {datetime.date.today()}; {defocus_fast.build_config()}")
    table = Table(title=f"ms per frame, {image.shape[1]} x {image.shape[0]}, {arguments.repeat} warm calls")
    for column in ("precision", "evaluation", "stage", "median", "p99"):
        table.add_column(column, justify="right" if column in ("median", "p99") else "left")

    for precision, evaluation in itertools.product(arguments.precision, arguments.evaluation):
        start = time.perf_counter()
        estimator = defocus_fast.Estimator(
            *image.shape[:2],
            model=arguments.model,
            precision=precision,
            evaluation=evaluation,
            kernels=arguments.kernels,
            num_threads=arguments.threads,
            psi=arguments.psi,
            labels=arguments.labels,
        )
        constructed = time.perf_counter()
        result = estimator.estimate(image, edges=edges)
        first = time.perf_counter()
        rows: dict[str, list[float]] = {
            "construct": [1e3 * (constructed - start)],
            "first call": [1e3 * (first - constructed)],
        }
        for _ in range(arguments.repeat):
            begin = time.perf_counter()
            result = estimator.estimate(image, edges=edges)
            for stage, ms in {**result.stage_ms, "whole frame": 1e3 * (time.perf_counter() - begin)}.items():
                rows.setdefault(stage, []).append(ms)
        for stage, values in rows.items():
            table.add_row(precision, evaluation, stage, f"{np.median(values):.1f}", f"{np.percentile(values, 99):.1f}")
        table.add_section()
        console.print(f"{estimator}: {len(result.edges)} edges, {result.pattern_edges.sum()} of them pattern edges")
        if arguments.check:
            difference = np.abs(result.map - np.load(arguments.check)["map"])
            console.print(
                f"  map against the recorded one: mean {difference.mean():.2g} px, max {difference.max():.2g} px"
            )
    console.print(table)


if __name__ == "__main__":
    main()
