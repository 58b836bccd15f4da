# SPDX-License-Identifier: Apache-2.0
"""Names of files: which are photographs, what results are called; and files that are whole or not there.

Apart from ``_images``, so that the command line knows the names before Pillow and NumPy are loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", *HEIC_SUFFIXES, *RAW_SUFFIXES)
KINDS = "JPEG, PNG, TIFF, WebP, HEIC or RAW"
"""What these suffixes are of."""
OUTPUTS = {
    "npy": ".blur.npy",
    "png": ".blur.png",
    "overlay": ".overlay.jpg",
    "error": ".error.npy",
    "mask": ".mask.png",
    "tif": ".blur.tif",
    "exr": ".blur.exr",
}
DEBLURRED = ".deblurred.png"
MARK = "blur radius by defocus_fast"
"""Stands at the beginning of every result that is a picture: a photograph may have a name like a result's."""
_MAP = re.compile(rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, 'shape': \(\d+, \d+\), \}", re.DOTALL)
"""What an .npy result begins with, in which there is no room for the mark."""


def photos_in(folder: Path) -> list[Path]:
    """Return the photographs in a folder: all files of such names but hidden ones, and results of earlier runs.

    What cannot be read is among them, so that reading tells why: links that lead nowhere, pipes.
    """

    def is_photo(path: Path) -> bool:
        name = path.name.lower()
        if not name.endswith(SUFFIXES) or name.startswith(".") or os.path.isdir(path):
            return False
        return not (name.endswith((*OUTPUTS.values(), DEBLURRED)) and is_result(path))

    return sorted(path for path in folder.iterdir() if is_photo(path))


def is_result(path: Path, mark: str = MARK) -> bool:
    """Tell whether a file is one that this program has written, a picture, a map or a page, or one of another mark."""
    try:
        if not os.path.isfile(path):  # from a pipe there may never come anything
            return False
        with open(path, "rb") as file:
            head = file.read(512)
            file.seek(max(0, os.path.getsize(path) - 4096))  # PDF has it at the end
            return mark.encode() in head + file.read() or (mark == MARK and _MAP.match(head) is not None)
    except OSError:
        return False


def is_free(path: Path, mark: str = MARK) -> bool:
    """Tell whether a result may have this name: nothing is there, or an empty file, or an earlier result."""
    empty = os.path.isfile(path) and not os.path.getsize(path)
    return not os.path.lexists(path) or empty or is_result(path, mark)


def content_hash(path: Path) -> str:
    """Return BLAKE2b of a regular file's content: 32 hexadecimal digits."""
    check_regular(path)
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_regular(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):  # from a pipe there may never come anything
        raise ValueError("not a regular file")


_parts: set[Path] = set()  # files that are being written
_parts_begin = threading.Lock()


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have `write` fill a file that appears under its name only when it is complete, in place of an earlier one."""
    part = path.with_name(f".{path.name[:40]}.{threading.get_native_id()}.part")  # others may be writing the same one
    try:
        with _parts_begin:
            file = open(part, "wb")  # noqa: SIM115
            _parts.add(part)
        with file:
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write(file)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        _parts.discard(part)


def remove_parts(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed runs have half written of such files. What is being written is locked, and stays."""
    begins = {name[:40] for name in names}
    for path in folder.iterdir() if os.access(folder, os.R_OK) else ():
        found = re.fullmatch(r"\.(.{1,40})\.\d+\.part", path.name, re.DOTALL)
        if found and found[1] in begins:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def discard_parts() -> None:
    """Remove what other threads have half written, and have none of them begin again: the process is about to end."""
    _parts_begin.acquire(timeout=1)
    for part in list(_parts):
        with contextlib.suppress(OSError):
            part.unlink()
