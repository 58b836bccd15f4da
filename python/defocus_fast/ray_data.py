# SPDX-License-Identifier: Apache-2.0
"""Blur scores of datasets that are spread over machines, with Ray Data: ``pip install "defocus_fast[ray]"``."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import fs

from . import _images
from ._files import check_regular
from .cli._pipeline import Skipped, overlapped
from .cli._shared import Estimators, reason

if TYPE_CHECKING:
    from ._results import BlurMap

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("blake2b", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("edges", pa.int64()),
        ("pattern_edges", pa.int64()),
        ("min_px", pa.float32()),
        ("median_px", pa.float32()),
        ("max_px", pa.float32()),
        ("precision", pa.string()),
        ("device", pa.string()),
        ("error", pa.string()),
    ]
)
"""Columns of the rows that :class:`EstimateBlur` returns: those of :meth:`BlurMap.scores`, and what is said there."""

MAPS = pa.field("map", pa.binary())


@dataclass
class Source:
    """A picture in a file that is still to be read."""

    path: str
    read: Callable[[], bytes]
    blake2b: str | None = None


@dataclass
class _Picture:
    image: NDArray[Any]

    def pixels(self) -> int:
        return int(self.image.shape[0] * self.image.shape[1])


class EstimateBlur:
    """Makes rows of scores of rows of pictures: ``dataset.map_batches(EstimateBlur, batch_size=16, num_cpus=1)``.

    The batch, a dict of arrays, has the column ``path``, and ``bytes`` with the content of image files, as
    ``ray.data.read_binary_files(..., include_paths=True)`` makes them. Without ``bytes`` the files are read here,
    which spares the way through Ray's memory.

    A call returns a ``pyarrow.Table`` with one row for every picture, in the same order: ``path``; ``blake2b``, 32
    hexadecimal digits of the file's content; the columns of :meth:`BlurMap.scores`; ``precision`` and ``device`` that
    "auto" became; ``error``, which is null, or why there are no scores; with maps ``map``, a 16-bit PNG file with
    radius = value / 500 px, at most 131 px.

    Every actor keeps its estimators and their threads, and reads one picture while it computes another.

    Args:
        maps: whether rows have the column ``map``.
        filesystem: where the paths are, a ``pyarrow.fs.FileSystem``; for None the local one, which every node must see.
        num_threads: of the estimators. Ray must be told: ``num_cpus`` of ``map_batches``.
        options: as of :class:`Estimator`, such as ``model``. A model folder must be there on every node.

    Raises:
        Unusable: the options cannot work on this node.
    """

    def __init__(
        self, *, maps: bool = False, filesystem: fs.FileSystem | None = None, num_threads: int = 1, **options: Any
    ) -> None:
        self._filesystem = filesystem or fs.LocalFileSystem()
        self._maps = maps
        self._workers = num_threads
        self._estimators = Estimators(num_threads=num_threads, **options)
        first = self._estimators.of_size(1, 1)
        self._facts = {"precision": first.precision, "device": first.device}

    def __call__(self, batch: dict[str, NDArray[Any]]) -> pa.Table:
        if "bytes" in batch:
            pairs = zip(batch["path"], batch["bytes"], strict=True)
            sources = [Source(str(path), partial(bytes, content)) for path, content in pairs]
        else:
            sources = [Source(str(path), partial(self._content, str(path))) for path in batch["path"]]
        rows = {id(source): self._row(source, outcome) for source, outcome in self._outcomes(sources)}
        schema = SCHEMA.append(MAPS) if self._maps else SCHEMA
        return pa.Table.from_pylist([rows[id(source)] for source in sources], schema)

    def _content(self, path: str) -> bytes:
        if isinstance(self._filesystem, fs.LocalFileSystem):
            check_regular(Path(path))
        with self._filesystem.open_input_stream(path, compression=None) as file:
            return bytes(file.read())

    def _outcomes(self, sources: Iterable[Source]) -> Iterator[tuple[Source, dict[str, Any] | Exception]]:
        """Yield sources in the order in which they are done."""
        return overlapped(sources, self._read, self._compute, self._finish, _Picture.pixels, workers=self._workers)

    def _row(self, source: Source, outcome: dict[str, Any] | Exception) -> dict[str, Any]:
        scores = {"error": reason(outcome)} if isinstance(outcome, Exception) else outcome
        return {"path": source.path, "blake2b": source.blake2b, **self._facts, **scores}

    def _read(self, source: Source) -> _Picture:
        content = source.read()
        source.blake2b = hashlib.blake2b(content, digest_size=16).hexdigest()
        if self._is_done(source):
            raise Skipped
        return _Picture(_images.read_photo(io.BytesIO(content), source.path))

    def _is_done(self, source: Source) -> bool:
        return False

    def _compute(self, _source: Source, picture: _Picture) -> BlurMap:
        height, width = picture.image.shape[:2]
        result: BlurMap = self._estimators.of_size(height, width).estimate(picture.image, expected_error=False)
        return result

    def _finish(self, _source: Source, _picture: _Picture, result: BlurMap) -> dict[str, Any]:
        scores: dict[str, Any] = result.scores()
        if self._maps:
            file = io.BytesIO()
            _images.write_png(file, result.map)
            scores["map"] = file.getvalue()
        return scores
