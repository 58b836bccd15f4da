# SPDX-License-Identifier: Apache-2.0
"""Options of several commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import _core
from ._shared import JSON_MARK, entry_key, refusal, shown

ESTIMATOR = {option.name: option for option in _core.option_table("Estimator")}
Option = Callable[[Callable[..., Any]], Callable[..., Any]]


class Number(click.FloatRange):
    """A number in a range."""

    def __init__(self, least: float, most: float, min_open: bool = False) -> None:
        """Show ends that are integers, of which the core's table makes floats, as such."""
        least, most = (int(end) if end == int(end) else end for end in (least, most))
        super().__init__(least, most, min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if number != number:  # which is in every range
            self.fail("expected a number, got nan", param, ctx)
        return number


class Folder(click.Path):
    """A folder, of which an empty name is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":  # which pathlib takes for the current one
            self.fail("expected a folder, got an empty name", param, ctx)
        return super().convert(value, param, ctx)


class FolderOrUri(Folder):
    """A folder, or a URI as text, of whose slashes pathlib would take one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if "://" in str(value) else super().convert(value, param, ctx)


FOLDER = Folder(file_okay=False, path_type=Path)
FOLDER_OR_URI = FolderOrUri(file_okay=False, path_type=Path)
FOLDER_WITH_FILES = Folder(exists=True, file_okay=False, path_type=Path)


def of_estimator(name: str, *flags: str, **changes: Any) -> Option:
    """Return an option of Estimator as the table describes it."""
    row = ESTIMATOR[name]
    kinds: dict[str, Any] = {
        "integer": click.IntRange(int(row.minimum), int(row.maximum)),
        "number": Number(row.minimum, row.maximum),
        "name": click.Choice(row.names),
    }
    attributes = {
        "type": kinds.get(row.kind),
        "default": row.default,
        "show_default": row.nothing or True,
        "metavar": {"integer": "N", "number": "X", "path": "NAME|DIR", "text": "NAME"}.get(row.kind),
        "help": row.text,
    }
    return click.option(*(flags or ["--" + name.replace("_", "-")]), **attributes | changes)


precisions = of_estimator(
    "precision",
    "--precision",
    "precisions",
    multiple=True,
    default=[ESTIMATOR["precision"].default],
    help=ESTIMATOR["precision"].text + " Give it once for every one.",
)
threads = of_estimator("num_threads", "--threads")


def models(default: str, *names: str) -> Option:
    return click.option(
        "--model",
        "models",
        multiple=True,
        default=names,
        metavar="NAME|DIR",
        help=f"{ESTIMATOR['model'].text} Give it once for every one.  [default: {default}]",
    )


def output(help: str, default: Path | None = None, type: Folder = FOLDER) -> Option:
    return click.option("-o", "--output", metavar="DIR", type=type, default=default, help=help)


def file(flag: str, mark: str, help: str) -> Option:
    """Return the option of a file of figures; it takes the place of no file but an earlier one with the mark."""

    def check(context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
        if file:
            others = context.meta.setdefault(__name__, {})
            if problem := refusal(file, mark):
                raise click.BadParameter(problem)
            if (other := others.setdefault(entry_key(file), flag)) != flag:
                raise click.BadParameter(f"{shown(file)} is the file of {other}")
        return file

    path = click.Path(dir_okay=False, path_type=Path)
    return click.option(flag, flag.strip("-") + "_file", callback=check, type=path, help=help)


json_file = file("--json", JSON_MARK, "Write all figures there. It replaces such a file of an earlier run only.")
