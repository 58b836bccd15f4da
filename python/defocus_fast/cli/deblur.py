# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast deblur``: photographs with their blur taken off."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._files import DEBLURRED, write_whole
from . import _options
from ._jobs import Job, files_of, make_folder, plan
from ._pipeline import overlapped
from ._shared import (
    Estimators,
    Unusable,
    console,
    cores,
    error_console,
    model_path,
    new_table,
    progress,
    reason,
    shown,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console


@click.command()
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True, type=click.Path(readable=False))
@_options.output("Folder for the results, made if absent.  [default: the current folder]", Path("."))
@click.option(
    "--noise",
    type=_options.Number(0, 1),
    metavar="X",
    default=0.005,
    show_default=True,
    help="Standard deviation of the photographs' noise; 1 is white. The larger, the smoother the results.",
)
@click.option(
    "--linear-light", is_flag=True, help="Undo the blur in light, as a lens makes it, not in the files' sRGB values."
)
@_options.of_estimator("model")
@_options.of_estimator("precision")
@_options.threads
@_options.of_estimator("octaves")
@_options.of_estimator("psi")
@_options.of_estimator("device")
@_options.of_estimator("max_edges")
def deblur(
    photos: tuple[str, ...],
    output: Path,
    noise: float,
    linear_light: bool,
    model: str,
    threads: int | None,
    **estimator_options: Any,
) -> None:
    """Sharpen photographs by their blur maps.

    PHOTO is as for estimate. For every NAME.jpg (or .png, ...) the output folder gets NAME.deblurred.png, as it would
    be if everything were in focus, as far as the blur map and the noise allow: 8 bits a channel, or 16-bit greyscale
    where the photograph is that. It takes the place of a result of an earlier run, and of no other file. Names,
    orientation, colour profiles and what cannot be read are treated as by estimate; other metadata is not kept.

    Needs SciPy: pip install "defocus_fast[deblur]".

    Exit status: 0 all done, 1 some photographs failed, 2 wrong usage or model, 130 Ctrl-C, 143 SIGTERM.
    """
    out, err = console(), error_console()
    failures = 0
    done: dict[int, list[str]] = {}  # by place among the jobs

    def failed(path: Path | str, why: str) -> None:
        nonlocal failures
        failures += 1
        err.print(f"{shown(path)}: {why}", style="red", markup=False)

    jobs = plan(list(files_of(photos, failed)), output, {"deblurred": DEBLURRED})
    estimators = Estimators(model=model_path(model), num_threads=threads, **estimator_options)
    if jobs:  # otherwise nothing will be written
        from .._deblur import require_scipy

        try:
            require_scipy()
            estimators.of_size(1, 1)  # options that cannot work for any photograph are known before the first
        except (ImportError, Unusable) as error:
            raise click.UsageError(str(error)) from None
        make_folder(output, jobs)
    work = _Work(estimators, {"noise": noise, "linear_light": linear_light, "num_threads": threads})
    try:
        with progress(err, len(jobs)) as bar:
            task = bar.add_task("", total=len(jobs))
            steps = work.read, work.compute, work.write, _pixels
            for job, result in overlapped(jobs, *steps, workers=cores()):
                bar.update(task, description=shown(job.photo.name), advance=1)
                if isinstance(result, Exception):
                    failed(job.photo, reason(result))
                else:
                    done[job.place] = result
    except BaseException:  # a signal, such as Ctrl-C
        _print_table(out, done)
        err.print(f"{len(done)} of {len(jobs)} done", style="red", markup=False)
        raise
    _print_table(out, done)
    if done:
        out.print(f"Results in {shown(output)}{os.sep}", markup=False, soft_wrap=True)
    if failures:
        err.print(f"{failures} of {len(done) + failures} failed", style="red", markup=False)
        raise SystemExit(1)


@dataclass
class _Result:
    sharp: NDArray[Any]
    facts: list[str]  # of the table


class _Work:
    """What is done with every photograph, in three steps."""

    def __init__(self, estimators: Estimators, options: dict[str, Any]) -> None:
        self.estimators = estimators
        self.options = options  # of deblur

    def read(self, job: Job) -> NDArray[Any]:
        from .. import _images

        if job.problem:
            raise ValueError(job.problem)
        return _images.read_photo(job.photo)

    def compute(self, job: Job, photo: NDArray[Any]) -> _Result:
        import numpy as np

        from .._deblur import deblur

        height, width = photo.shape[:2]
        estimator = self.estimators.of_size(height, width)
        start = time.perf_counter()
        radii = estimator.estimate(photo, expected_error=False).map
        between = time.perf_counter()
        sharp = deblur(photo, radii, **self.options)
        times = [f"{1000 * seconds:.0f}" for seconds in (between - start, time.perf_counter() - between)]
        facts = [job.shown_name(), f"{width} x {height}", f"{np.median(radii):.2f}", f"{radii.max():.2f}", *times]
        return _Result(sharp, facts)

    def write(self, job: Job, _photo: NDArray[Any], result: _Result) -> list[str]:
        from .. import _images

        write_whole(job.outputs["deblurred"], lambda file: _images.write_deblurred(file, result.sharp))
        return result.facts


def _pixels(photo: NDArray[Any]) -> int:
    return int(photo.shape[0] * photo.shape[1])


def _print_table(console: Console, done: dict[int, list[str]]) -> None:
    if not done:
        return
    from rich.text import Text

    table = new_table()
    table.add_column("photo", overflow="fold")
    for title in ("size", "median px", "max px", "map ms", "deblurring ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for _, (name, *numbers) in sorted(done.items()):
        table.add_row(Text(name), *numbers)
    console.print(table)
