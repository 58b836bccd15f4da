# SPDX-License-Identifier: Apache-2.0
"""Names of files: which are photographs, what results are called; and files that are whole or not there.

Apart from ``_images``, so that the command line knows the names before Pillow and NumPy are loaded.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
OUTPUTS = {"npy": ".blur.npy", "png": ".blur.png", "overlay": ".overlay.jpg", "error": ".error.npy"}


def photos_in(folder: Path) -> list[Path]:
    """Return the photographs in a folder, without other files, hidden ones, and results of earlier runs."""

    def is_photo(path: Path) -> bool:
        name = path.name.lower()
        results = tuple(OUTPUTS.values())
        if not name.endswith(SUFFIXES) or name.endswith(results) or name.startswith("."):
            return False
        try:
            return stat.S_ISREG(path.stat().st_mode)
        except PermissionError:  # which reading will tell
            return True
        except OSError:  # a link that leads nowhere
            return False

    return sorted(path for path in folder.iterdir() if is_photo(path))


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have `write` fill a file that appears under its name only when it is complete, in place of an earlier one."""
    part = path.with_name(f".{path.name[:40]}.{threading.get_native_id()}.part")  # others may be writing the same one
    try:
        with open(part, "wb") as file:
            write(file)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
