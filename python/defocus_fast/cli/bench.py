# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast bench``."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from . import _options
from ._shared import console, cores, fail, model_path, new_table, reason, shown, write_json


def _size(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]]:
    sizes = [re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", value) for value in values]
    if not all(sizes):
        raise click.BadParameter(f"expected WIDTHxHEIGHT in pixels, such as 640x480, got {shown(' '.join(values))}")
    return [(int(size[2]), int(size[1])) for size in sizes if size]


@click.command(short_help="Time frames on this machine.")
@click.argument("photo", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--size",
    "sizes",
    multiple=True,
    callback=_size,
    metavar="WxH",
    help="Give it once for every size.  [default: PHOTO's]",
)
@_options.models("the shipped ones")
@_options.precisions
@_options.threads
@_options.of_estimator("octaves")
@_options.of_estimator("kernels")
@_options.of_estimator("device")
@click.option(
    "--seconds",
    type=_options.Number(0, 1e6),
    metavar="S",
    default=2.0,
    show_default=True,
    help="How long each is measured, in seconds.",
)
@_options.json_file
def bench(
    photo: Path | None,
    sizes: list[tuple[int, int]],
    models: tuple[str, ...],
    precisions: tuple[str, ...],
    threads: int | None,
    octaves: int | None,
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

    from .. import _images, benchmark, build_config, shipped_models

    try:
        image = _images.read_photo(photo) if photo else benchmark.noise(480, 640)
    except Exception as error:
        fail(f"{shown(photo)}: {reason(error)}")
    table = new_table(caption=f"{threads or cores()} threads; {build_config()['compiler']}")
    for title in ("size", "model", "precision"):
        table.add_column(title)
    rows = []
    titles: list[str] = []
    for height, width in sizes or [image.shape[:2]]:
        for model in models or shipped_models():
            for precision in precisions:
                options = {"precision": precision, "num_threads": threads, "octaves": octaves}
                options |= {"kernels": kernels, "device": device}
                try:
                    frame = benchmark.of_size(image, height, width)
                    times = benchmark.time_frames(frame, seconds, model=model_path(model), **options)
                except Exception as error:
                    fail(f"{width}x{height}, {shown(model)}, {precision}: {reason(error)}")
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
                table.add_row(f"{width}x{height}", shown(model), times.precision, f"{times.edges}", *numbers)
    console().print(table, markup=False)
    if json_file:
        facts = {"build": build_config(), "cores": cores(), "time": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(json_file, {**facts, "frames": rows})
