# SPDX-License-Identifier: Apache-2.0
"""Arrays of numbers in MATLAB's files of version 5, as MATLAB's and SciPy's ``save`` write them, compressed or not.

Read here, because SciPy's reader brings the process down on damaged files. "MAT-File Format" of The MathWorks says
what is in them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX, _COMPRESSED = 14, 15  # types of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_CLASSES = range(6, 16)  # of full matrices of numbers
_COMPLEX = 8  # flag of a matrix
_MOST_BYTES = 2**30  # of what was compressed


def read_mat(path: Path) -> dict[str, NDArray[Any]]:
    """Return name -> array of the real numbers in a file, of the types that they are stored in; the rest is left out.

    Raises:
        ValueError: the file is damaged, or of another version or byte order.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if content[124:128] != b"\0\1IM":
        raise ValueError("expected a MATLAB file of version 5 to 7, little-endian")
    arrays = {}
    room = _MOST_BYTES
    try:
        for kind, data in _elements(content[128:]):
            if kind == _COMPRESSED:
                matrix = zlib.decompressobj().decompress(data, max(room, 1))  # 0 would be without a limit
                room -= len(matrix)
                kind, data = next(_elements(matrix))
            if kind != _MATRIX:
                continue
            parts = _elements(data)
            matrix_class, flags = struct.unpack("<BB", next(parts)[1][:2])
            if matrix_class not in _CLASSES or flags & _COMPLEX:
                continue
            shape = np.frombuffer(next(parts)[1], "<i4")
            name = next(parts)[1].decode("ascii")
            kind, data = next(parts)
            arrays[name] = np.frombuffer(data, _NUMBERS[kind]).reshape(shape, order="F")
    except (KeyError, StopIteration, ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"a damaged MATLAB file: {error or 'its end is missing'}") from None
    return arrays


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each of the elements in `content`."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from("<II", content, at)
        begin = at + 8
        if kind >> 16:  # up to four bytes, in the place of the size
            kind, size, begin = kind & 0xFFFF, kind >> 16, at + 4
        data = content[begin : begin + size]
        if len(data) < size or (begin == at + 4 and size > 4):
            raise ValueError(f"expected an element of {size} bytes, got {len(data)}")
        yield kind, data
        at = begin + size
        if kind != _COMPRESSED:
            at += -at % 8
