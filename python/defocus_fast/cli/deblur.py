# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast deblur``: photographs with their blur taken off."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._files import DEBLURRED, write_whole
from . import _options
from ._shared import Estimators, Unusable, console, error_console, model_path, progress, reason, shown
from .estimate import _files_of, _in_thread, _Job, _plan

if TYPE_CHECKING:
    from rich.table import Table


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
    where the photograph is that. It takes the place of a result of an earlier run. Names, turned photographs and what
    cannot be read are treated as by estimate; colour profiles and other metadata are not kept.

    Needs SciPy: pip install "defocus_fast[deblur]".

    Exit status: 0 all done, 1 some photographs failed, 2 wrong usage or model, 130 Ctrl-C, 143 SIGTERM.
    """
    out, err = console(), error_console()
    failures = done = 0

    def failed(path: Path | str, why: str) -> None:
        nonlocal failures
        failures += 1
        err.print(f"{shown(path)}: {why}", style="red", markup=False)

    jobs = _plan(list(_files_of(photos, failed)), output, {"deblurred": DEBLURRED})
    estimators = Estimators(model=model_path(model), num_threads=threads, **estimator_options)
    if jobs:  # otherwise nothing will be written
        from .._deblur import require_scipy

        try:
            require_scipy()
            estimators.of_size(1, 1)  # options that cannot work for any photograph are known before the first
            output.mkdir(parents=True, exist_ok=True)
        except (ImportError, Unusable) as error:
            raise click.UsageError(str(error)) from None
        except OSError as error:
            raise click.UsageError(f"-o: cannot make the folder {shown(output)}: {reason(error)}") from None
        if not os.access(output, os.W_OK | os.X_OK):
            raise click.UsageError(f"-o: cannot write into the folder {shown(output)}")
    table = _table()
    try:
        with progress(err, len(jobs)) as bar:
            task = bar.add_task("", total=len(jobs))
            for job in jobs:
                bar.update(task, description=shown(job.photo.name))
                try:
                    row = _process(job, estimators, noise=noise, linear_light=linear_light, num_threads=threads)
                    table.add_row(*row)
                    done += 1
                except Exception as error:
                    failed(job.photo, reason(error))
                bar.advance(task)
    except BaseException:  # a signal, such as Ctrl-C
        if done:
            out.print(table)
        err.print(f"{done} of {len(jobs)} done", style="red", markup=False)
        raise
    if done:
        out.print(table)
        out.print(f"Results in {shown(output)}{os.sep}", markup=False, soft_wrap=True)
    if failures:
        err.print(f"{failures} of {done + failures} failed", style="red", markup=False)
        raise SystemExit(1)


def _table() -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("photo", overflow="fold")
    for title in ("size", "median px", "max px", "map ms", "deblurring ms"):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _process(job: _Job, estimators: Estimators, **options: Any) -> list[Any]:
    """Write the deblurred photograph; return its row of the table."""
    import numpy as np
    from rich.text import Text

    from .. import _images
    from .._deblur import deblur

    if job.problem:
        raise ValueError(job.problem)
    photo = _images.read_photo(job.photo)
    height, width = photo.shape[:2]
    estimator = estimators.of_size(height, width)
    times = [time.perf_counter()]
    radii = _in_thread(lambda: estimator.estimate(photo, expected_error=False)).map
    times.append(time.perf_counter())
    sharp = _in_thread(lambda: deblur(photo, radii, **options))
    times.append(time.perf_counter())
    write_whole(job.outputs["deblurred"], lambda file: _images.write_deblurred(file, sharp))
    name = shown(job.photo) + (f" (as {shown(job.name)})" if job.name != job.photo.stem else "")
    numbers = [f"{np.median(radii):.2f}", f"{radii.max():.2f}", *(f"{ms:.0f}" for ms in np.diff(times) * 1000)]
    return [Text(name), f"{width} x {height}", *numbers]
