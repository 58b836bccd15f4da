# SPDX-License-Identifier: Apache-2.0
"""What several commands do: show names and reasons, print tables, make estimators, write figures."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .._files import KINDS, is_free, write_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task
    from rich.table import Table

    from .._estimator import Estimator


def shown(text: object) -> str:
    """Return text, or a path as text, that no terminal takes for a command and no encoding chokes on."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def entry_key(path: Path) -> str:
    """Return the same text for paths that name one folder entry; upper and lower case are the same on some disks."""
    return os.path.join(os.path.realpath(path.parent), path.name).casefold()


def refusal(file: Path, mark: str) -> str:
    """Return why `file` cannot be written, before work that takes long, or "": what is there must have the mark."""
    if file.name == "-":
        return "expected the name of a file, got -"
    if not os.path.isdir(file.parent):
        return f"expected a file in an existing folder, got {shown(file)}"
    if not os.access(file.parent, os.W_OK | os.X_OK):
        return f"cannot write into the folder {shown(file.parent)}"
    if not is_free(file, mark):
        return f"{shown(file)} is there and was not written by this option; give another name"
    return ""


EXTRAS = {
    "rawpy": "raw",
    "pillow_heif": "heic",
    "OpenEXR": "exr",
    "jinja2": "report",
    "lxml": "xmp",
    "matplotlib": "plot",
}
"""The extra of each package that is not one of "models"."""


def reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if type(error).__name__ == "UnidentifiedImageError":
        return f"not a {KINDS} image"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        return f'the package {package} is needed: pip install "defocus_fast[{EXTRAS.get(package, "models")}]"'
    return shown(" ".join(str(error).split())) or type(error).__name__


def require(option: str, package: str) -> None:
    """Load a package without which an option cannot be used, before work that takes long."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{option}: {reason(error)}") from None


def fail(message: str) -> NoReturn:
    raise click.ClickException(message)


def console(least: int = 0) -> Console:
    """Return a console of at least so many columns: terminals break lines, where rich leaves out digits."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.file.isatty():
        # Without a terminal rich assumes 80 columns and breaks long file names over lines, which scripts cannot read.
        console.width = 200
    console.width = max(console.width, least)
    return console


def error_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def new_table(**options: Any) -> Table:
    """Return a table as all commands print them."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, **options)


def progress(console: Console, steps: int) -> Progress:
    """Return a bar that is seen in terminals only, and only if there is more than one step.

    It tells how many are done, how many a second, and the time left.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g}/s")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TextColumn("time left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=steps < 2 or not console.is_terminal,
    )


def model_path(name: str) -> str:
    """Return `name` as the library wants it: shipped models win, a bare folder name gets its "./"."""
    from .. import shipped_models

    return os.path.join(".", name) if name not in shipped_models() and os.path.isdir(name) else name


class Unusable(Exception):
    """The options cannot work for any photograph: model missing, precision not available."""


class Estimators:
    """Makes estimators and keeps the last ones: photographs of one camera mostly share their size."""

    MOST = 8  # beside the one in use; each has its own threads
    MOST_PIXELS = 4 << 20  # of those; to make one for larger images takes no time beside a frame's

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._first: Estimator | None = None  # keeps the weights, which all share, if it is small itself
        self._kept: dict[tuple[int, int], Estimator] = {}  # the last is the one that was used last

    def of_size(self, height: int, width: int) -> Estimator:
        from .. import Error, Estimator

        estimator = self._kept.pop((height, width), None)
        count, pixels = 0, 0
        for size in list(reversed(self._kept)):
            fits = count < self.MOST and pixels + size[0] * size[1] <= self.MOST_PIXELS
            if fits:
                count, pixels = count + 1, pixels + size[0] * size[1]
            else:
                del self._kept[size]  # frees its buffers before the next one's are made
        if estimator is None:
            try:
                estimator = Estimator(height, width, **self._options)
            except (Error, ValueError) as error:
                raise Unusable(reason(error)) from None
        if self._first is None and height * width <= self.MOST_PIXELS:
            self._first = estimator
        self._kept[height, width] = estimator
        return estimator


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


JSON_MARK = '"software": "defocus_fast'


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Write `values`, with null for what is not a number, behind the mark."""
    import json

    from .. import __version__

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return None if value != value else value

    whole = {"software": f"defocus_fast {__version__}", **values}
    try:
        write_whole(file, lambda target: target.write(json.dumps(plain(whole), indent=1).encode()))
    except OSError as error:
        fail(f"{shown(file)}: {reason(error)}")
