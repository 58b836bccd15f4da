# SPDX-License-Identifier: Apache-2.0
"""What is done already: a file of one line for each result, beside the results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = "defocus_fast.jsonl"


def model_hash(model: str) -> str:
    """Return a hash of the model's weights: a folder of one name may hold others later."""
    from .._files import content_hash
    from ..model_io import shipped_folder

    folder = Path(model) if os.path.dirname(model) else shipped_folder() / model
    return content_hash(folder / "weights.bin") + content_hash(folder / "model.txt")


class Record:
    """Tells what is done, and notes what is done now.

    A result is done if its photograph's content, all settings and the library's version are those of now, and its
    files have the sizes that they were written with.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._settings = json.loads(json.dumps(settings, default=str))
        self._done: dict[str, tuple[str, dict[str, int]]] = {}  # by name: hash of the photograph, sizes of files

    def load(self) -> None:
        """Read what earlier runs have noted. Lines that were cut off, as by a full disk, count for nothing."""
        try:
            lines = (self._folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return
        for text in lines:
            try:
                line = json.loads(text)
                name, content, files = line["name"], line["blake2b"], dict(line["files"])
                same = line["settings"] == self._settings
            except (ValueError, TypeError, KeyError):
                continue
            before = self._done.pop(name, None)
            if same:  # files of other settings may have been replaced
                self._done[name] = content, (before[1] if before and before[0] == content else {}) | files

    def holds(self, name: str, content: str, files: Iterable[Path]) -> bool:
        done = self._done.get(name)
        return (
            done is not None and done[0] == content and all(_size(path) == done[1].get(path.name, -1) for path in files)
        )

    def add(self, name: str, photo: str, content: str, files: Iterable[Path], scores: dict[str, Any]) -> None:
        sizes = {path.name: _size(path) for path in files}
        line = {"name": name, "photo": photo, "blake2b": content, **scores, "files": sizes, "settings": self._settings}
        data = (json.dumps(line) + "\n").encode()
        # One call: lines of several processes do not mix.
        descriptor = os.open(self._folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if (written := os.write(descriptor, data)) < len(data):
                os.write(descriptor, data[written:])  # raises why, such as a full disk
        finally:
            os.close(descriptor)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
