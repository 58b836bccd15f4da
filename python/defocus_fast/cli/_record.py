# SPDX-License-Identifier: Apache-2.0
"""What is done already: a file of one line for each result, beside the results."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from io import FileIO
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
    files have the sizes that they were written with. Of several lines of one name the last counts.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Open the record, which no other run may have open: it would do the same again, or use the same names.

        Raises:
            BlockingIOError: another run has.
            OSError: the file cannot be opened.
        """
        self._settings = json.loads(json.dumps(settings, default=str))
        self._done: dict[str, dict[str, Any]] = {}  # lines by name
        self._file = FileIO(folder / FILE, "a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise
        except OSError:  # not every file system has locks
            pass

    def close(self) -> None:
        self._file.close()

    def load(self) -> None:
        """Read what earlier runs have noted. Lines that were cut off, as by a full disk, count for nothing."""
        self._file.seek(0)
        for text in self._file.read().decode(errors="replace").splitlines():
            try:
                line = json.loads(text)
                name, content, files = line["name"], line["blake2b"], dict(line["files"])
                same = line["settings"] == self._settings
            except (ValueError, TypeError, KeyError):
                continue
            before = self._done.pop(name, None)
            if same:  # files of other settings may have been replaced
                if before and before["blake2b"] == content:
                    line["files"] = before["files"] | files
                self._done[name] = line

    def line(self, name: str, content: str, files: Iterable[Path]) -> dict[str, Any] | None:
        """Return what is noted of a result, or None if it is not done."""
        done = self._done.get(name)
        if not done or done["blake2b"] != content:
            return None
        return done if all(_size(path) == done["files"].get(path.name, -1) for path in files) else None

    def add(self, name: str, photo: str, content: str, files: Iterable[Path], scores: dict[str, Any]) -> None:
        sizes = {path.name: _size(path) for path in files}
        line = {"name": name, "photo": photo, "blake2b": content, **scores, "files": sizes, "settings": self._settings}
        data = (json.dumps(line) + "\n").encode()
        # One call: lines of several threads do not mix.
        if (written := self._file.write(data)) < len(data):
            self._file.write(data[written:])  # raises why, such as a full disk


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
