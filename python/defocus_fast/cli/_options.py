# SPDX-License-Identifier: Apache-2.0
"""Options of several commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ._shared import shown

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


class Number(click.FloatRange):
    """A number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if number != number:  # which is in every range
            self.fail("expected a number, got nan", param, ctx)
        return number


FOLDER = click.Path(file_okay=False, path_type=Path)
FOLDER_WITH_FILES = click.Path(exists=True, file_okay=False, path_type=Path)
PRECISION = click.Choice(["auto", "float32", "bfloat16", "int8"])  # of the CPU

model = click.option(
    "--model", default="fast", show_default=True, metavar="NAME|DIR", help="A shipped model or a folder."
)
precision = click.option(
    "--precision",
    type=PRECISION,
    default="auto",
    help="Of the networks.  [default: auto, bfloat16 where the CPU has AVX512-BF16]",
)
precisions = click.option(
    "--precision",
    "precisions",
    type=PRECISION,
    multiple=True,
    default=["auto"],
    help="Of the networks; give it once for every one.  [default: auto]",
)
threads = click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="To compute with.  [default: all cores]"
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="To compute on.  [default: auto, a GPU if everything that it needs is there]",
)
max_edges = click.option(
    "--max-edges", type=click.IntRange(1), metavar="N", help="As Estimator(max_edges=...), for device cuda."
)


def models(default: str, *names: str) -> Option:
    return click.option(
        "--model",
        "models",
        multiple=True,
        default=names,
        metavar="NAME|DIR",
        help=f"A shipped model or a folder; give it once for every one.  [default: {default}]",
    )


def output(help: str, default: Path | None = None) -> Option:
    return click.option("-o", "--output", metavar="DIR", type=FOLDER, default=default, help=help)


def _writable(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """Measurements take minutes: what they cannot be written to is told before."""
    if file and not os.path.isdir(file.parent):
        raise click.BadParameter(f"expected a file in an existing folder, got {shown(file)}")
    if file and not (os.access(file, os.W_OK) if os.path.exists(file) else os.access(file.parent, os.W_OK | os.X_OK)):
        raise click.BadParameter(f"cannot write {shown(file)}")
    return file


json_file = click.option(
    "--json",
    "json_file",
    callback=_writable,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all figures there.",
)
