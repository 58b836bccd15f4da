# SPDX-License-Identifier: Apache-2.0
"""The command ``defocus-fast``: blur maps of photographs in files, facts about the build, import of weights."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ._estimator import Estimator

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
PRECISIONS = ["auto", "float32", "bfloat16", "int8"]  # of the CPU
OUTPUTS = {"npy": ".blur.npy", "png": ".blur.png", "overlay": ".overlay.jpg", "error": ".error.npy"}
DEFAULT_OUTPUTS = ("npy", "png", "overlay")
INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="defocus_fast", prog_name="defocus-fast")
def main() -> None:
    """How much every pixel of a photograph is out of focus: the radius in pixels of the disk that blurred it."""


@main.command()
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("."),
    help="Folder for the results, made if absent.  [default: the current folder]",
)
@click.option(
    "--save",
    type=click.Choice(list(OUTPUTS)),
    multiple=True,
    help="What to write; give it more than once for several.  [default: all but error]",
)
@click.option("--model", default="fast", show_default=True, metavar="NAME|DIR", help="A shipped model or a folder.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    help="Of the networks.  [default: auto, bfloat16 where the CPU has AVX512-BF16]",
)
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="To compute with.  [default: all cores]")
@click.option(
    "--psi",
    type=click.FloatRange(0),
    default=100.0,
    show_default=True,
    metavar="X",
    help="How strongly depth edges keep radii from spreading across them.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="To compute on.  [default: auto, a GPU if everything that it needs is there]",
)
@click.option("--max-edges", type=click.IntRange(1), metavar="N", help="As Estimator(max_edges=...), for device cuda.")
def estimate(
    photos: tuple[Path, ...],
    output: Path,
    save: tuple[str, ...],
    model: str,
    precision: str,
    threads: int | None,
    psi: float,
    device: str,
    max_edges: int | None,
) -> None:
    """Write the blur maps of photographs.

    PHOTO is a JPEG, PNG, TIFF or WebP file, or a folder, which stands for the images directly in it. For every
    NAME.jpg (or .png, ...) the output folder gets

    \b
      NAME.blur.npy     the radius in px of every pixel, float32 (H, W)
      NAME.blur.png     the same as 16-bit greyscale: radius in px = value / 1000
      NAME.overlay.jpg  the photograph, and the map in colour over it, with a
                        bar from 0 to the model's largest radius in px; at
                        most 2048 px wide and high
      NAME.error.npy    with --save error: how far off every radius is likely
                        to be, px, as the first

    in place of results of an earlier run. If two photographs of one run have the same NAME, the later one's results
    are called NAME-2. No photograph of the run is ever overwritten.

    EXIF orientation is applied; transparent parts are laid on white; 16-bit greyscale is read as such, 16-bit colour
    with 8 bits. A photograph that cannot be read or written is reported and does not stop the others.

    Exit status: 0 all done, 1 some photographs failed, 2 wrong usage or model, 130 interrupted.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out, err = _console(), Console(stderr=True, highlight=False, soft_wrap=True)
    failures = 0

    def failed(path: Path, reason: object) -> None:
        nonlocal failures
        failures += 1
        err.print(f"{_shown(path)}: {reason}", style="red", markup=False)

    jobs = list(_plan(_pictures_of(photos, failed), output, [OUTPUTS[kind] for kind in save or DEFAULT_OUTPUTS]))
    estimators = _Estimators(
        model=_model(model), precision=precision, num_threads=threads, psi=psi, device=device, max_edges=max_edges
    )
    done: list[_Summary] = []
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=len(jobs) < 2 or not err.is_terminal,
    )
    if jobs:  # otherwise nothing will be written
        try:
            estimators.of_size(1, 1)  # options that cannot work for any photograph are known before the first
            output.mkdir(parents=True, exist_ok=True)
        except _Unusable as error:
            raise click.UsageError(str(error)) from None
        except OSError as error:
            raise click.UsageError(f"-o: cannot make the folder {_shown(output)}: {_reason(error)}") from None
    try:
        with progress:
            task = progress.add_task("", total=len(jobs))
            for job in jobs:
                progress.update(task, description=_shown(Path(job.photo.name)))
                try:
                    done.append(_process(job, estimators))
                except Exception as error:
                    failed(job.photo, _reason(error))
                progress.advance(task)
    except KeyboardInterrupt:
        _print_table(out, done)
        err.print(f"interrupted: {len(done)} of {len(jobs)} done", style="red", markup=False)
        # The core may still be computing in its thread, and it cannot be stopped: do not wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    _print_table(out, done)
    if done:
        out.print(f"Results in {_shown(output)}{os.sep}", markup=False, soft_wrap=True)
        if any(OUTPUTS["png"] in path.name for path in jobs[0].outputs):
            out.print("In the 16-bit PNG files, radius in px = value / 1000.", markup=False)
    if failures:
        err.print(f"{failures} of {len(done) + failures} failed", style="red", markup=False)
        raise SystemExit(1)


class _Unusable(Exception):
    """The options cannot work for any photograph: model missing, precision not available."""


class _Estimators:
    """Makes estimators and keeps the last one: photographs of one camera mostly share their size."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._last: Estimator | None = None

    def of_size(self, height: int, width: int) -> Estimator:
        from . import Error, Estimator

        if self._last is None or (self._last.height, self._last.width) != (height, width):
            self._last = None  # frees its buffers before the next one's are made
            try:
                self._last = Estimator(height, width, **self._options)
            except (Error, ValueError) as error:
                raise _Unusable(str(error)) from None
        return self._last


@dataclass
class _Job:
    photo: Path
    name: str  # of the results, without the suffixes
    outputs: list[Path]
    problem: str = ""  # why it cannot be done at all


@dataclass
class _Summary:
    name: str
    size: str
    edges: int
    pattern_edges: int
    radii: tuple[float, float, float]  # px: least, median, largest
    ms: float


def _pictures_of(photos: tuple[Path, ...], failed: Callable[[Path, object], None]) -> Iterator[Path]:
    """Yield the files meant by the arguments, folders expanded, each file once."""
    seen = set()
    for argument in photos:
        files = [argument]
        if argument.is_dir():
            try:
                files = photos_in(argument)
            except OSError as error:
                failed(argument, _reason(error))
                continue
            if not files:
                failed(argument, f"no images ({', '.join(SUFFIXES)}) in this folder")
        for path in files:
            if (key := path.absolute()) not in seen:
                seen.add(key)
                yield path


def photos_in(folder: Path) -> list[Path]:
    """Return the photographs in a folder, without other files, hidden ones, and results of earlier runs."""

    def is_photo(path: Path) -> bool:
        name = path.name.lower()
        results = tuple(OUTPUTS.values())
        return name.endswith(SUFFIXES) and not name.endswith(results) and not name.startswith(".") and path.is_file()

    return sorted(path for path in folder.iterdir() if is_photo(path))


def _key(path: Path) -> str:
    """Return the same text for paths that name one folder entry; upper and lower case are the same on some disks."""
    return str(path.parent.resolve() / path.name).casefold()


def _plan(photos: Iterator[Path], output: Path, suffixes: list[str]) -> list[_Job]:
    """Give every photograph names for its results: no name twice, none that is a photograph of this run."""
    files = list(photos)
    inputs = {_key(path) for path in files} | {str(path.resolve()).casefold() for path in files}
    taken: set[str] = set()
    jobs = []
    for photo in files:
        count, name = 1, photo.stem
        while name.casefold() in taken:
            count += 1
            name = f"{photo.stem}-{count}"
        taken.add(name.casefold())
        job = _Job(photo, name, [output / (name + suffix) for suffix in suffixes])
        for path in job.outputs:
            if _key(path) in inputs:
                job.problem = f"its result {_shown(path)} would overwrite a photograph of this run; use another -o"
        jobs.append(job)
    return jobs


def _process(job: _Job, estimators: _Estimators) -> _Summary:
    import numpy as np

    from . import _images

    if job.problem:
        raise ValueError(job.problem)
    photo = _images.read_photo(job.photo)
    height, width = photo.shape[:2]
    estimator = estimators.of_size(height, width)
    start = time.perf_counter()
    wants_error = any(path.name.endswith(OUTPUTS["error"]) for path in job.outputs)
    result = _in_thread(lambda: estimator.estimate(photo, expected_error=wants_error))
    ms = (time.perf_counter() - start) * 1000
    radii = result.map
    for path in job.outputs:
        if path.name.endswith(OUTPUTS["npy"]):
            _images.write_whole(path, lambda file: _images.write_npy(file, radii))
        elif path.name.endswith(OUTPUTS["png"]):
            _images.write_whole(path, lambda file: _images.write_png(file, radii))
        elif path.name.endswith(OUTPUTS["error"]):
            _images.write_whole(path, lambda file: _images.write_npy(file, result.expected_error))
        else:
            _images.write_whole(
                path, lambda file: _images.write_overlay(file, photo, radii, max(estimator.radius_bins))
            )
    return _Summary(
        name=_shown(job.photo) + (f" (as {_shown(Path(job.name))})" if job.name != job.photo.stem else ""),
        size=f"{width} x {height}",
        edges=len(result.edges),
        pattern_edges=int(np.count_nonzero(result.pattern_edges)),
        radii=(float(radii.min()), float(np.median(radii)), float(radii.max())),
        ms=ms,
    )


def _in_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns or raise what it raises, letting Ctrl-C through at once.

    Python's own handler waits until the core returns, which may take a minute for a large photograph.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)  # with a limit: on Windows a join without one cannot be interrupted
    if errors:
        raise errors[0]
    return results[0]


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a JPEG, PNG, TIFF or WebP image"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, ModuleNotFoundError):
        return f'the package {(error.name or "").split(".")[0]} is needed: pip install "defocus_fast[models]"'
    return str(error) or type(error).__name__


def _shown(path: Path) -> str:
    """Return the path as text that no terminal takes for a command and no encoding chokes on."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(path))


def _model(name: str) -> str:
    """Return `name` as the library wants it: shipped models win, a bare folder name gets its "./"."""
    from . import shipped_models

    return os.path.join(".", name) if name not in shipped_models() and os.path.isdir(name) else name


def _console(least: int = 0) -> Console:
    """Return a console of at least so many columns: terminals break lines, where rich leaves out digits."""
    from rich.console import Console

    # Without a terminal rich assumes 80 columns and breaks long file names over lines, which scripts cannot read.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.width = max(console.width, least)
    return console


def _print_table(console: Console, done: list[_Summary]) -> None:
    if not done:
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("photo", overflow="fold")
    for title in ("size", "edges", "pattern edges", "min px", "median px", "max px", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in done:
        radii = [f"{radius:.2f}" for radius in row.radii]
        numbers = [row.size, f"{row.edges}", f"{row.pattern_edges}", *radii, f"{row.ms:.0f}"]
        table.add_row(Text(row.name), *numbers)
    console.print(table)


@main.command(short_help="Print the build, the devices and the models.")
def info() -> None:
    """Print what was built in, what this machine offers, and the shipped models."""
    from importlib.metadata import PackageNotFoundError, version

    from rich import box
    from rich.table import Table

    from . import Error, Estimator, _tensorrt, available_kernels, build_config, model_io, shipped_models

    facts = {f"built: {key}" if key != "version" else key: value for key, value in build_config().items()}
    try:
        facts["OpenVINO here"] = version("openvino")
    except PackageNotFoundError:  # the C++ libraries may come from elsewhere
        facts["OpenVINO here"] = "not from a Python package"
    facts["kernels here"] = ", ".join(available_kernels()) + " (the first is used)"
    facts["device cpu"] = f"{len(_cores())} cores"
    try:
        Estimator(1, 1, device="cuda", networks=lambda *_: None)  # engines may take minutes to build
        _tensorrt.import_tensorrt()
        facts["device cuda"] = "available"
    except Error as error:
        facts["device cuda"] = f"not available: {error}"
    for name in shipped_models():
        lines = (model_io.shipped_folder() / name / "model.txt").read_text(encoding="utf-8").splitlines()
        facts[f"model {name}"] = "\n".join(line for line in lines if not line.startswith("tensor "))
    if not shipped_models():
        facts["models"] = "none shipped"

    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key, value, end_section=key == "device cuda")
    _console().print(table, markup=False)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


@main.command("import-weights", short_help="Convert the authors' published weights.")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
def import_weights(folder: Path, out: Path) -> None:
    """Convert the weights that the authors of the method published into a model folder.

    DIR holds blur/0.mat to blur/21.mat and edge/0.mat to edge/25.mat; OUT becomes a folder for `estimate --model`.
    These weights are under GPL-3.0, and so is the folder made from them. Needs: pip install "defocus_fast[models]"
    """
    from . import model_io

    try:
        weights = model_io.import_published_weights(folder)
        model_io.write_model(
            out, weights, name="published", crop_offset=1, trained="weights published by the authors, GPL-3.0"
        )
    except ModuleNotFoundError as error:
        _fail(_reason(error))
    except FileNotFoundError as error:
        _fail(f"no such file: {_shown(Path(str(error.filename)))}")
    except OSError as error:
        _fail(f"{error.filename or out}: {_reason(error)}")
    except Exception as error:  # scipy raises many kinds of errors on files that are not what they should be
        _fail(f"{_shown(folder)} does not hold the published weights: {type(error).__name__}: {error}")
    click.echo(f"{_shown(out)}: model of width {weights['branch1.conv1'].shape[0]}")
    click.echo("These weights were published by the authors under GPL-3.0; the model folder is under GPL-3.0 too.")


def _compute_capability(_context: click.Context, _option: click.Parameter, value: str) -> int:
    if not (found := re.fullmatch(r"(\d{1,2})\.(\d)", value)):
        raise click.BadParameter(f"expected a number such as 8.6, got {value}")
    return 10 * int(found[1]) + int(found[2])


@main.command(short_help="Build TensorRT-RTX engines for a GPU that is elsewhere.")
@click.option("--model", default="fast", show_default=True, metavar="NAME|DIR", help="A shipped model or a folder.")
@click.option("--height", required=True, type=click.IntRange(1), metavar="PX", help="Of the images.")
@click.option("--width", required=True, type=click.IntRange(1), metavar="PX", help="Of the images.")
@click.option("--precision", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option(
    "--evaluation",
    type=click.Choice(["shared", "patch"]),
    default="shared",
    show_default=True,
    help="As Estimator(evaluation=...).",
)
@click.option(
    "--compute-capability", required=True, callback=_compute_capability, metavar="X.Y", help="Of the GPU, such as 8.6."
)
@click.option("--max-edges", type=click.IntRange(1), metavar="N", help="As Estimator(max_edges=...).")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the engines.  [default: the cache]",
)
def build_engines(
    model: str,
    height: int,
    width: int,
    precision: str,
    evaluation: str,
    compute_capability: int,
    max_edges: int | None,
    output: Path | None,
) -> None:
    """Build the TensorRT-RTX engines that an estimator of one size needs, on a machine with or without a GPU.

    They are used where $DEFOCUS_FAST_CACHE is their folder, with the same version of TensorRT-RTX, model, size,
    precision, evaluation and max_edges. Without this command an estimator builds them when it is made.
    """
    from rich import box
    from rich.table import Table

    from . import Error, _core, _tensorrt

    folder = output or _tensorrt.cache_folder()
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("engine", "bytes", "seconds"):
        table.add_column(title, justify="left" if title == "engine" else "right", overflow="fold")
    try:
        trt = _tensorrt.import_tensorrt()
        if not _tensorrt.is_rtx(trt):
            _fail("TensorRT builds for the GPU that is there, when an estimator is made; this is for TensorRT-RTX")
        path = _model(model)
        found = Path(path) if os.sep in path else Path(__file__).parent / "models" / path
        graphs = _core.network_shapes(path, height, width, max_edges, evaluation)
        for request in _tensorrt.requests(found, precision, graphs, compute_capability):
            start = time.perf_counter()
            file, engine = folder / _tensorrt.file_name(trt, request), _tensorrt.build(trt, request)
            _tensorrt.write(file, engine)
            table.add_row(_shown(file), f"{len(engine.plan):,}", f"{time.perf_counter() - start:.2f}")
    except (Error, ValueError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{_shown(folder)}: {_reason(error)}")
    _console().print(table, markup=False)


VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "psi 0": {"psi": 0.0},
    "without E-NET": {"depth_threshold": 1.0},
    "the paper's form": {"labels": "hard"},
    "edge_stride 2": {"edge_stride": 2},
    "edge_stride 3": {"edge_stride": 3},
}


def _json_file(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """Measurements take minutes: what they cannot be written to is told before."""
    if file and not file.parent.is_dir():
        raise click.BadParameter(f"expected a file in an existing folder, got {_shown(file)}")
    if file and not os.access(file if file.exists() else file.parent, os.W_OK):
        raise click.BadParameter(f"cannot write {_shown(file)}")
    return file


def _write_json(file: Path, values: dict[str, Any]) -> None:
    """Write `values`, with null for what is not a number."""
    import json

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return None if value != value else value

    try:
        file.write_text(json.dumps(plain(values), indent=1), encoding="utf-8")
    except OSError as error:
        _fail(f"{_shown(file)}: {_reason(error)}")


def _number(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if value != value:  # which is in every range
        raise click.BadParameter("expected a number, got nan")
    return value


@main.command(short_help="Measure accuracy against ground truth.")
@click.argument("folder", metavar="IMAGES", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--truth",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the ground truth.  [default: IMAGES]",
)
@click.option(
    "--model", "models", default=["fast"], multiple=True, metavar="NAME|DIR", help="Give it once for every model."
)
@click.option(
    "--scale",
    type=click.FloatRange(0, 1e9, min_open=True),
    callback=_number,
    default=1.0,
    show_default=True,
    metavar="X",
    help="Radius in px of a value 1 of the ground truth.",
)
@click.option(
    "--mask",
    type=click.Choice(["sharp", "blurred"]),
    help="The ground truth is masks, and this is what the values above half of the largest stand for.",
)
@click.option(
    "--ablations",
    is_flag=True,
    help="Also with psi 0, without the edge network, in the paper's form, and of fewer edges.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=["auto"],
    help="Of the networks; give it once for every one. Ablations are of the first.",
)
@click.option(
    "--json",
    "json_file",
    callback=_json_file,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all figures there.",
)
def evaluate(
    folder: Path,
    truth: Path | None,
    models: tuple[str, ...],
    scale: float,
    mask: str | None,
    ablations: bool,
    precisions: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Measure accuracy on images with known blur.

    The ground truth of NAME.jpg (or .png, ...) is NAME.npy, NAME.mat or NAME.png: the radius in px of every pixel, or,
    with --mask, what is in or out of focus. Several models are scored on the same images in the same run. NAME.mat
    needs: pip install "defocus_fast[models]"

    \b
    With radii, means over the images of
      raw MAE       mean |map - truth|, px, and its standard deviation
      relative MAE  mean |map - truth| / truth
      at edges      mean |radius - truth| at edges that are true pattern edges, px,
                    and the share of them with the nearest bin
      recall        of true pattern and depth edges: those at which the true
                    radius jumps by at most 0.25, at least 1 px within 2 px
      balanced      the mean of both recalls
      expected      mean of the map's expected error, px
      ms            median time of all stages of an image
    With masks: precision, recall and F-measure (beta^2 = 0.3) at the adaptive
    threshold of the paper's equation 5, and the best F of any threshold.

    An image without what a measure is about (edges, anything out of focus) does not count in its mean.
    """
    import dataclasses

    import numpy as np
    from rich import box
    from rich.progress import track
    from rich.table import Table

    from . import _images, evaluation

    found, without = evaluation.pairs(folder, truth or folder)
    if not found:
        where = _shown(truth or folder)
        _fail(f"no image in {_shown(folder)} has ground truth (NAME.npy, NAME.mat or NAME.png) in {where}")
    variants = {
        name: {"precision": precisions[0], **options}
        for name, options in (VARIANTS if ablations else {"as shipped": {}}).items()
    }
    variants |= {precision: {"precision": precision} for precision in precisions if precision != precisions[0]}

    def read(picture: Path, known: Path) -> tuple[Any, Any]:
        """Return an image and its ground truth; a ValueError tells what of it is not fit."""
        file = picture
        try:
            photo = _images.read_photo(picture)
            file = known
            values = evaluation.read_truth(known, scale, mask=mask is not None)
            if values.shape != photo.shape[:2]:
                raise ValueError(f"expected shape {photo.shape[:2]} as of the image, got {values.shape}")
        except Exception as error:
            raise ValueError(f"{_shown(file)}: {_reason(error)}") from None
        return photo, values

    unfit = []  # told before measurements that take minutes
    for pair in track(found, "reading", transient=True, disable=not sys.stderr.isatty()):
        try:
            read(*pair)
        except ValueError as error:
            unfit.append(str(error))
    if unfit:
        _fail("\n".join(unfit))
    rows: list[dict[str, Any]] = []
    for model in dict.fromkeys(models):
        for variant, options in variants.items():
            estimators = _Estimators(model=_model(model), **options)
            scores: list[Any] = []
            for picture, known in track(found, f"{model}, {variant}", transient=True, disable=not sys.stderr.isatty()):
                photo, values = read(picture, known)
                try:
                    estimator = estimators.of_size(*values.shape)
                    result = estimator.estimate(photo, bin_probabilities=True)
                    if mask:
                        blurred = (values > values.max() / 2) == (mask == "blurred")
                        scores.append(evaluation.mask_scores(picture.name, result.map, blurred))
                    else:
                        scores.append(evaluation.radius_scores(picture.name, result, values, estimator.radius_bins))
                except _Unusable as error:
                    raise click.UsageError(str(error)) from None
                except Exception as error:
                    _fail(f"{_shown(picture)}: {_reason(error)}")
            rows.append({"model": model, "variant": variant, "images": [dataclasses.asdict(each) for each in scores]})

    def mean(row: dict[str, Any], key: str) -> float:
        values = np.array([picture[key] for picture in row["images"]], float)
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    left_out = f", {len(without)} more without ground truth" if without else ""
    table = Table(box=box.SIMPLE_HEAD, title=f"{len(found)} images{left_out}")
    measures: dict[str, Callable[[dict[str, Any]], str]]
    if mask:
        measures = {
            "precision": lambda row: f"{mean(row, 'adaptive_precision'):.3f}",
            "recall": lambda row: f"{mean(row, 'adaptive_recall'):.3f}",
            "F": lambda row: f"{mean(row, 'adaptive_f'):.3f}",
            "best F": lambda row: f"{_best_f(row['pictures']):.3f}",
        }
    else:
        measures = {
            "raw MAE": lambda row: f"{mean(row, 'mae'):.3f}",
            "std": lambda row: f"{np.std([picture['mae'] for picture in row['pictures']]):.3f}",
            "relative\nMAE": lambda row: f"{mean(row, 'relative'):.3f}",
            "at edges": lambda row: f"{mean(row, 'edge_mae'):.3f}",
            "accuracy": lambda row: f"{mean(row, 'edge_accuracy'):.3f}",
            "pattern\nrecall": lambda row: f"{mean(row, 'pattern_recall'):.3f}",
            "depth\nrecall": lambda row: f"{mean(row, 'depth_recall'):.3f}",
            "balanced": lambda row: f"{(mean(row, 'pattern_recall') + mean(row, 'depth_recall')) / 2:.3f}",
            "expected": lambda row: f"{mean(row, 'expected_error'):.3f}",
            "ms": lambda row: f"{np.median([picture['ms'] for picture in row['pictures']]):.0f}",
        }
    table.add_column("model", overflow="fold")
    for title in ("variant", *measures):
        table.add_column(title, justify="left" if title == "variant" else "right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(_shown(Path(row["model"])), row["variant"], *(measure(row) for measure in measures.values()))
    _console(least=120).print(table, markup=False)
    if json_file:
        _write_json(json_file, {"folder": str(folder), "results": rows})


def _size(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]]:
    sizes = [re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", value) for value in values]
    if not all(sizes):
        raise click.BadParameter(f"expected WIDTHxHEIGHT in pixels, such as 640x480, got {' '.join(values)}")
    return [(int(size[2]), int(size[1])) for size in sizes if size]


@main.command(short_help="Time frames on this machine.")
@click.argument("photo", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--size",
    "sizes",
    multiple=True,
    callback=_size,
    metavar="WxH",
    help="Give it once for every size.  [default: PHOTO's]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|DIR",
    help="Give it once for every model.  [default: the shipped ones]",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=["auto"],
    help="Of the networks; give it once for every one.",
)
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="To compute with.  [default: all cores]")
@click.option("--kernels", default="auto", show_default=True, metavar="NAME", help="See `defocus-fast info`.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu or cuda.")
@click.option("--seconds", type=click.FloatRange(0), default=2.0, show_default=True, help="Of measuring each.")
@click.option(
    "--json",
    "json_file",
    callback=_json_file,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all times there.",
)
def bench(
    photo: Path | None,
    sizes: list[tuple[int, int]],
    models: tuple[str, ...],
    precisions: tuple[str, ...],
    threads: int | None,
    kernels: str,
    device: str,
    seconds: float,
    json_file: Path | None,
) -> None:
    """Time whole frames and their stages.

    In ms: the stages' medians; median, 90th and 99th percentile and maximum of the frame; the first call apart. On a
    GPU the frame is from host memory to host memory; "device to device" is the map of an image that lies in device
    memory, and needs CuPy or PyTorch.

    The image is PHOTO, its middle or mirrored out where --size says so; without PHOTO, colour noise of several
    scales, of 640x480.
    """
    import dataclasses

    from rich import box
    from rich.table import Table

    from . import _images, benchmark, build_config, shipped_models

    try:
        picture = _images.read_photo(photo) if photo else benchmark.noise(480, 640)
    except Exception as error:
        _fail(f"{_shown(Path(str(photo)))}: {_reason(error)}")
    table = Table(box=box.SIMPLE_HEAD, caption=f"{threads or len(_cores())} threads; {build_config()['compiler']}")
    for title in ("size", "model", "precision"):
        table.add_column(title)
    rows = []
    titles: list[str] = []
    for height, width in sizes or [picture.shape[:2]]:
        for model in models or shipped_models():
            for precision in precisions:
                options = {"precision": precision, "num_threads": threads, "kernels": kernels, "device": device}
                try:
                    frame = benchmark.of_size(picture, height, width)
                    times = benchmark.time_frames(frame, seconds, model=_model(model), **options)
                except Exception as error:
                    _fail(f"{width}x{height}, {model}, {precision}: {_reason(error)}")
                rows.append({"size": [height, width], "model": model, **options, **dataclasses.asdict(times)})
                summary = times.summary()
                whole = summary.pop("whole frame")
                cells = {stage: values["median"] for stage, values in summary.items()}
                cells |= {"frame": whole["median"], **{key: whole[key] for key in ("p90", "p99", "max")}}
                cells |= {"first call": times.first_call, "frames/s": 1e3 / whole["median"]}
                if not titles:
                    titles = ["edges", *cells]
                    for title in titles:
                        table.add_column(title, justify="right")
                numbers = (f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in cells.values())
                table.add_row(f"{width}x{height}", _shown(Path(model)), precision, f"{times.edges}", *numbers)
    _console().print(table, markup=False)
    if json_file:
        facts = {"build": build_config(), "cores": len(_cores()), "time": time.strftime("%Y-%m-%d %H:%M:%S")}
        _write_json(json_file, {**facts, "frames": rows})


def _best_f(pictures: list[dict[str, Any]]) -> float:
    """Return the largest F-measure of the curves' means over the images."""
    import numpy as np

    from .evaluation import F_BETA_SQUARED

    counted = [picture for picture in pictures if not np.isnan(picture["recall"]).any()] or pictures
    precision, recall = (np.mean([picture[key] for picture in counted], axis=0) for key in ("precision", "recall"))
    both = F_BETA_SQUARED * precision + recall
    return float(np.max((1 + F_BETA_SQUARED) * precision * recall / np.maximum(both, 1e-12)))


def _fail(message: str) -> NoReturn:
    raise click.ClickException(message)
