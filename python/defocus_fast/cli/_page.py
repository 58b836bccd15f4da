# SPDX-License-Identifier: Apache-2.0
"""The page of ``estimate --report``, while its photographs are worked on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._files import MARK, write_whole
from ._shared import fail, reason, refusal, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._report import Entry


class Page:
    """Collects what the page tells, from several threads, and writes it."""

    def __init__(self, file: Path, unit: str, photos: int) -> None:
        """Expect so many photographs: the more, the smaller are the pictures.

        Raises:
            click.UsageError: the page cannot be written there, or would replace what is no report.
        """
        self._file = file
        self._unit = unit
        self._photos = photos
        self._entries: dict[int, Entry] = {}
        problem = refusal(file, MARK)
        if file.suffix.lower() not in (".html", ".htm"):
            problem = f"expected a name that ends in .html, got {shown(file)}"
        if problem:
            raise click.UsageError(f"--report: {problem}")

    def add(
        self,
        place: int,
        name: str,
        photo: NDArray[Any],
        radii: NDArray[Any],
        scores: Mapping[str, int | float],
        ms: float | None = None,
    ) -> None:
        """Show a photograph, its map, (H, W) px of radius, and its scores at a place among the others."""
        from .. import _report

        side = _report.picture_side(self._photos)
        self._entries[place] = _report.make_entry(name, photo, radii, scores, side, ms)

    def write(self, settings: dict[str, Any], failures: list[tuple[str, str]]) -> None:
        from .. import _report

        entries = [entry for _, entry in sorted(self._entries.items())]
        values = {name: shown(value) for name, value in settings.items() if value is not None}
        try:
            write_whole(self._file, lambda file: _report.write_page(file, entries, failures, values, self._unit))
        except OSError as error:
            fail(f"--report: {shown(self._file)}: {reason(error)}")
