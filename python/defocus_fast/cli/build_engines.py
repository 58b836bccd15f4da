# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast build-engines``."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import click

from . import _options
from ._shared import console, fail, model_path, new_table, reason, shown


def _compute_capability(_context: click.Context, _option: click.Parameter, value: str) -> int:
    if not (found := re.fullmatch(r"(\d{1,2})\.(\d)", value)):
        raise click.BadParameter(f"expected a number such as 8.6, got {shown(value)}")
    return 10 * int(found[1]) + int(found[2])


@click.command("build-engines", short_help="Build TensorRT-RTX engines for a GPU that is elsewhere.")
@_options.of_estimator("model")
@click.option("--height", required=True, type=click.IntRange(1), metavar="PX", help="Of the images.")
@click.option("--width", required=True, type=click.IntRange(1), metavar="PX", help="Of the images.")
@_options.of_estimator(
    "precision", type=click.Choice(["float32", "float16"]), default="float32", help="Of the networks."
)
@_options.of_estimator("evaluation")
@click.option(
    "--compute-capability", required=True, callback=_compute_capability, metavar="X.Y", help="Of the GPU, such as 8.6."
)
@_options.of_estimator("max_edges")
@_options.output("Folder for the engines.  [default: the cache]")
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
    from .. import Error, _core, _tensorrt, model_io

    folder = output or _tensorrt.cache_folder()
    table = new_table()
    for title in ("engine", "bytes", "seconds"):
        table.add_column(title, justify="left" if title == "engine" else "right", overflow="fold")
    try:
        trt = _tensorrt.import_tensorrt()
        if not _tensorrt.is_rtx(trt):
            fail("TensorRT builds for the GPU that is there, when an estimator is made; this is for TensorRT-RTX")
        path = model_path(model)
        found = Path(path) if os.sep in path else model_io.shipped_folder() / path
        graphs = _core.network_shapes(path, height, width, max_edges, evaluation)
        for request in _tensorrt.requests(found, precision, graphs, compute_capability):
            start = time.perf_counter()
            file, engine = folder / _tensorrt.file_name(trt, request), _tensorrt.build(trt, request)
            _tensorrt.write(file, engine)
            table.add_row(shown(file), f"{len(engine.plan):,}", f"{time.perf_counter() - start:.2f}")
    except (Error, ValueError) as error:
        fail(reason(error))
    except OSError as error:
        fail(f"{shown(folder)}: {reason(error)}")
    console().print(table, markup=False)
