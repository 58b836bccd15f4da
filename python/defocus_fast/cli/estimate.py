# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast estimate``: blur maps of photographs in files."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from .._files import OUTPUTS, content_hash, write_whole
from .._units import FACTORS
from . import _options
from ._jobs import Job, files_of, make_folder, plan
from ._page import Page
from ._pipeline import Skipped, overlapped
from ._record import FILE as RECORD
from ._record import Record, model_hash
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
    require,
    shown,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from .. import BlurMap, Estimator


def _address(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value and not re.fullmatch(r"auto|local|(ray://)?[^/:\s]+:\d+", value):
        raise click.BadParameter(
            f"expected --ray=ADDRESS, such as --ray=head:6379, got {shown(value)}; photographs first"
        )
    return value


@click.command()
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True, type=click.Path(readable=False))
@_options.output(
    "Folder for the results, made if absent.  [default: the current folder]", Path("."), _options.FOLDER_OR_URI
)
@click.option(
    "--save",
    type=click.Choice(list(OUTPUTS)),
    multiple=True,
    help="What to write; give it more than once for several.  [default: npy, png and overlay]",
)
@click.option(
    "--unit",
    type=click.Choice(list(FACTORS)),
    default="radius",
    show_default=True,
    help="What every value is, in px: radius or diameter of the disk that blurred the pixel, or sigma of the Gaussian "
    "of the same variance, which is half of the radius.",
)
@click.option(
    "--alpha",
    type=_options.Number(0, 1),
    metavar="X",
    help="With --save mask: out of focus is what is at least alpha * maximum + (1 - alpha) * minimum of the map, the "
    "paper's equation 5.  [default: 0.3]",
)
@click.option(
    "--threshold",
    type=_options.Number(0, 1e9),
    metavar="PX",
    help="With --save mask, in place of --alpha: out of focus is what is at least so many px of the unit.",
)
@click.option(
    "--report",
    metavar="FILE.html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a page that shows all photographs with their maps. It replaces an earlier report only.",
)
@_options.of_estimator("model")
@_options.of_estimator("precision")
@_options.threads
@_options.of_estimator("octaves")
@_options.of_estimator("psi")
@_options.of_estimator("device")
@_options.of_estimator("max_edges")
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[=ADDRESS]",
    callback=_address,
    help="Work on a Ray cluster: that of ADDRESS or $RAY_ADDRESS, or one that is started on this machine.",
)
@click.option("--resume", is_flag=True, help="Leave out what an earlier run has done with the same settings.")
def estimate(
    photos: tuple[str, ...],
    output: Path | str,
    save: tuple[str, ...],
    unit: str,
    alpha: float | None,
    threshold: float | None,
    report: Path | None,
    model: str,
    precision: str,
    threads: int | None,
    octaves: int | None,
    psi: float | None,
    device: str,
    max_edges: int | None,
    ray: str | None,
    resume: bool,
) -> None:
    """Write the blur maps of photographs.

    PHOTO is a JPEG, PNG, TIFF, WebP, HEIC or RAW file, or a folder, which stands for the images directly in it but
    hidden ones and results of earlier runs. For every NAME.jpg (or .png, ...) the output folder gets

    \b
      NAME.blur.npy     the radius in px of every pixel, float32 (H, W)
      NAME.blur.png     the same as 16-bit greyscale: radius in px = value / 500,
                        at most 131
      NAME.overlay.jpg  the photograph, and the map in colour over it, with a
                        logarithmic bar from 0 to 8 px, or the largest
                        radius of it; at most 2048 px wide and high
      NAME.error.npy    with --save error: how far off every radius is likely
                        to be, px, as the first
      NAME.mask.png     with --save mask: white where the photograph is out of
                        focus, black elsewhere, 1 bit
      NAME.blur.tif     with --save tif: as the first, float32 TIFF
      NAME.blur.exr     with --save exr: as the first, float32 OpenEXR

    in place of results of an earlier run. If two photographs of one run have the same NAME, the later one's results
    are called NAME-2. A photograph of the run, and any other file that is no earlier result, is never overwritten: the
    photograph whose result would have its name is reported. Earlier results have a mark in them, but NAME.blur.npy and
    NAME.error.npy, for which any .npy of float32 (H, W) is taken.

    The output folder's defocus_fast.jsonl gets a line for every photograph that is done, with the settings; the last
    line of a name is of the results that are there. --resume leaves out those whose content, settings and version of
    the library are the same, and whose results are there. One run at a time may write into a folder.

    --unit sets what all values are, but those of defocus_fast.jsonl, which are radii. PNG, TIFF and OpenEXR files have
    the unit in them; of .npy files it is "unit" of the settings in defocus_fast.jsonl. The report shows every
    photograph with its map, a table to sort, and histograms.

    EXIF orientation and colour profiles are applied; transparent parts are laid on white; 16-bit greyscale is read as
    such, 16-bit colour with 8 bits; of several pages or frames the first is read. RAW files are developed with 8 bits,
    the camera's white balance, and brightness by their content. A photograph that cannot be read or written is reported
    and does not stop the others.

    HEIC, RAW, OpenEXR and the report need pip install "defocus_fast[heic,raw,exr,report]".

    With --ray, PHOTO may also be the URI of a folder or file, such as s3://bucket/folder, and a Parquet file with a
    column "bytes" or "image" of image files. Folders stand for all that is in and below them. The results are
    scores-*.parquet in the output folder, or URI: a row for every photograph, with its scores or the error; with
    --save png also maps-*.parquet. --threads is that of each worker, by default 1, and all nodes must see the files.

    Exit status: 0 all done, 1 some photographs failed, 2 wrong usage or model, 130 Ctrl-C, 143 SIGTERM.
    """
    options = {"precision": precision, "octaves": octaves, "psi": psi, "max_edges": max_edges}
    if ray is not None:
        of_files = {"--unit": unit != "radius", "--report": report, "--alpha": alpha, "--threshold": threshold}
        for name, value in of_files.items():
            if value is not None and value is not False:
                raise click.UsageError(f"{name} is not of --ray, whose results are radii")
        options |= {"model": model, "num_threads": threads or 1}
        _on_ray(photos, output, save, ray or None, resume, device, options)
        return
    if isinstance(output, str):
        raise click.UsageError(f"-o: expected a folder without --ray, got {shown(output)}")
    out, err = console(), error_console()
    not_done: list[tuple[str, str]] = []

    def failed(path: Path | str, why: str) -> None:
        not_done.append((shown(path), why))
        err.print(f"{shown(path)}: {why}", style="red", markup=False)

    kinds = save or ("npy", "png", "overlay")
    for name, value in (("--alpha", alpha), ("--threshold", threshold)):
        if value is not None and "mask" not in kinds:
            raise click.UsageError(f"{name} is of --save mask, which is not asked for")
    if alpha is not None and threshold is not None:
        raise click.UsageError("expected --alpha or --threshold, got both")
    if "exr" in kinds:
        require("--save exr", "OpenEXR")
    if report and resume and "npy" not in kinds:
        raise click.UsageError("--report with --resume shows the maps of earlier runs, and needs --save npy for it")
    if report:
        require("--report", "jinja2")
    page: Page | None = None
    jobs = plan(list(files_of(photos, failed)), output, {kind: OUTPUTS[kind] for kind in kinds})
    estimators = Estimators(model=model_path(model), num_threads=threads, device=device, **options)
    done: dict[int, _Summary] = {}  # by place among the jobs
    skipped = 0
    if not jobs:
        err.print(f"{len(not_done)} of {len(not_done)} failed", style="red", markup=False)
        raise SystemExit(1)
    try:
        first = estimators.of_size(1, 1)  # options that cannot work for any photograph are known before the first
    except Unusable as error:
        raise click.UsageError(str(error)) from None
    make_folder(output, jobs)
    settings = _settings(first)
    if report:
        page = Page(report, unit, len(jobs))
    try:
        record = Record(output, settings)
        click.get_current_context().call_on_close(record.close)
        if resume:
            record.load()
    except BlockingIOError:
        raise click.UsageError(f"-o: another run is writing into {shown(output)}") from None
    except OSError as error:
        raise click.UsageError(f"-o: {shown(output / RECORD)}: {reason(error)}") from None
    work = _Work(estimators, record, page, unit, alpha, threshold)
    try:
        with progress(err, len(jobs)) as bar:
            task = bar.add_task("", total=len(jobs))
            steps = work.read, work.compute, work.write, _Picture.pixels
            for job, result in overlapped(jobs, *steps, workers=cores()):
                bar.update(task, description=shown(job.photo.name), advance=1)
                if isinstance(result, _Summary):
                    done[job.place] = result
                elif isinstance(result, Skipped):
                    skipped += 1
                else:
                    failed(job.photo, reason(result))
    except BaseException:  # a signal, such as Ctrl-C
        _print_table(out, done, unit)
        err.print(f"{len(done) + skipped} of {len(jobs)} done", style="red", markup=False)
        raise
    _print_table(out, done, unit)
    if skipped:
        out.print(f"{skipped} of {len(jobs)} were done before", markup=False)
    if done or skipped:
        out.print(f"Results in {shown(output)}{os.sep}", markup=False, soft_wrap=True)
        if "png" in kinds:
            from .._images import UNITS_PER_PX

            out.print(f"In the 16-bit PNG files, {unit} in px = value / {UNITS_PER_PX}.", markup=False)
    if page:
        page.write(settings, not_done)
        out.print(f"Report in {shown(report)}", markup=False, soft_wrap=True)
    if not_done:
        err.print(f"{len(not_done)} of {len(done) + skipped + len(not_done)} failed", style="red", markup=False)
        raise SystemExit(1)


@dataclass
class _Summary:
    name: str
    scores: dict[str, int | float]
    ms: float


def _on_ray(
    photos: tuple[str, ...],
    output: Path | str,
    save: tuple[str, ...],
    address: str | None,
    resume: bool,
    device: str,
    options: dict[str, Any],
) -> None:
    if set(save) - {"png"}:
        raise click.UsageError("--save: expected png with --ray, or nothing for scores alone")
    try:
        from . import _ray
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        raise click.UsageError(f'--ray: the package {package} is needed: pip install "defocus_fast[ray]"') from None
    path = model_path(options["model"])
    if os.path.dirname(path):
        path = os.path.abspath(path)  # nodes have other current folders
    _ray.estimate(photos, str(output), address, resume, device, maps="png" in save, **options | {"model": path})


def _settings(estimator: Estimator) -> dict[str, Any]:
    """Return all that results depend on, beside the photograph."""
    from .. import __version__

    params = click.get_current_context().params
    settings = {
        name: value
        for name, value in params.items()
        if name not in ("photos", "output", "save", "report", "threads", "resume", "ray")
    }
    model = model_hash(model_path(params["model"]))
    return settings | {
        "version": __version__,
        "weights": model,
        "precision": estimator.precision,
        "device": estimator.device,
    }


@dataclass
class _Picture:
    content: str  # hash
    image: NDArray[Any]

    def pixels(self) -> int:
        return int(self.image.shape[0] * self.image.shape[1])


@dataclass
class _Result:
    blur: BlurMap
    ms: float


class _Work:
    """What is done with every photograph, in three steps."""

    def __init__(
        self,
        estimators: Estimators,
        record: Record,
        page: Page | None,
        unit: str,
        alpha: float | None,
        threshold: float | None,
    ) -> None:
        self.estimators = estimators
        self.record = record
        self.page = page
        self.unit = unit
        self.alpha = alpha
        self.threshold = threshold

    def read(self, job: Job) -> _Picture:
        import numpy as np

        from .. import _images

        if job.problem:
            raise ValueError(job.problem)
        content = content_hash(job.photo)
        if scores := self.record.line(job.name, content, job.outputs.values()):
            if self.page:
                radii = np.load(job.outputs["npy"], allow_pickle=False) / np.float32(FACTORS[self.unit])
                self.page.add(job.place, job.shown_name(), _images.read_photo(job.photo), radii, scores)
            raise Skipped
        return _Picture(content, _images.read_photo(job.photo))

    def compute(self, job: Job, picture: _Picture) -> _Result:
        estimator = self.estimators.of_size(*picture.image.shape[:2])
        start = time.perf_counter()
        result = estimator.estimate(picture.image, expected_error="error" in job.outputs)
        return _Result(result, (time.perf_counter() - start) * 1000)

    def write(self, job: Job, picture: _Picture, result: _Result) -> _Summary:
        import numpy as np

        from .. import _images, evaluation

        photo, radii, scores = picture.image, result.blur.map, result.blur.scores()
        factor = np.float32(FACTORS[self.unit])
        blur = radii if factor == 1 else radii * factor

        def write_mask(file: IO[bytes]) -> None:
            threshold = self.threshold
            if threshold is None:
                threshold = evaluation.threshold(blur, evaluation.ADAPTIVE_ALPHA if self.alpha is None else self.alpha)
            _images.write_mask(file, blur, threshold, self.unit)

        writers: dict[str, Callable[[IO[bytes]], None]] = {
            "npy": lambda file: _images.write_npy(file, blur),
            "png": lambda file: _images.write_png(file, blur, self.unit),
            "overlay": lambda file: _images.write_overlay(file, photo, blur, max(8.0, float(blur.max())), self.unit),
            "error": lambda file: _images.write_npy(file, result.blur.expected_error * factor),
            "mask": write_mask,
            "tif": lambda file: _images.write_tif(file, blur, self.unit),
            "exr": lambda file: _images.write_exr(file, blur, self.unit),
        }
        for kind, path in job.outputs.items():
            write_whole(path, writers[kind])
        self.record.add(job.name, str(job.photo), picture.content, job.outputs.values(), scores)
        if self.page:
            self.page.add(job.place, job.shown_name(), photo, radii, scores, result.ms)
        return _Summary(job.shown_name(), scores, result.ms)


def _print_table(console: Console, done: dict[int, _Summary], unit: str) -> None:
    if not done:
        return
    from rich.text import Text

    table = new_table()
    table.add_column("photo", overflow="fold")
    measure = "" if unit == "radius" else f"{unit} "
    names = (f"{which} {measure}px" for which in ("min", "median", "max"))
    for title in ("size", "edges", "pattern edges", *names, "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for _, row in sorted(done.items()):
        size, edges = "{width} x {height}", ("{edges}", "{pattern_edges}")
        numbers = [text.format(**row.scores) for text in (size, *edges)]
        blur = [f"{row.scores[name] * FACTORS[unit]:.2f}" for name in ("min_px", "median_px", "max_px")]
        table.add_row(Text(row.name), *numbers, *blur, f"{row.ms:.0f}")
    console.print(table)
