# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast estimate --ray``: the pictures of an archive, on the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data
from numpy.typing import NDArray
from pyarrow import fs

from .. import __version__
from .._files import KINDS, OUTPUTS, SUFFIXES, is_result
from ..ray_data import MAPS, SCHEMA, EstimateBlur, Source
from ._pipeline import Skipped
from ._record import model_hash
from ._shared import Estimators, Unusable, console, error_console, fail, progress, reason, shown

_SETTINGS = b"defocus_fast.settings"  # key of the metadata of files of scores
_ROWS_A_FILE = 10_000
_SECONDS_A_FILE = 60  # that a run which is killed loses
_MOST_A_TASK = 16  # pictures, which are done again where a node dies
_TASKS_AN_ACTOR = 8  # or more: the last ones keep few actors waiting
_SCORES = SCHEMA.append(pa.field("map_file", pa.string()))
_ANSWERS = _SCORES.append(pa.field("skipped", pa.bool_()))
_MAPS = pa.schema([SCHEMA.field("path"), SCHEMA.field("blake2b"), MAPS])


class Refused(Exception):
    """The run cannot begin."""


def locate(name: str) -> tuple[fs.FileSystem, str, str]:
    """Return the file system of a path or URI, the path in it, and what makes the path a URI again."""
    scheme, separator, _ = name.partition("://")
    if not separator:
        return fs.LocalFileSystem(), os.path.abspath(name), ""
    filesystem, path = fs.FileSystem.from_uri(name)
    return filesystem, path, "" if scheme == "file" else scheme + separator


# ---- what is to be done


@dataclass
class Archive:
    """Files of pictures, and row groups of Parquet files with pictures."""

    filesystem: fs.FileSystem = field(default_factory=fs.LocalFileSystem)
    prefix: str = ""  # that makes paths URIs
    files: dict[tuple[str, int], None] = field(default_factory=dict)  # path; row group, or -1 for a picture
    pictures: int = 0


def find(photos: Iterable[str], results: tuple[fs.FileSystem, str], failed: Callable[[str, str], None]) -> Archive:
    """Find what the arguments stand for; a folder for all in and below it, but hidden files and results."""
    archive = Archive()
    for photo in photos:
        try:
            if not photo:
                raise ValueError("expected the name of a file or folder, got an empty one")
            filesystem, path, prefix = locate(photo)
            if archive.files and filesystem != archive.filesystem:
                raise ValueError("expected all photographs on one file system")
            archive.filesystem, archive.prefix = filesystem, prefix
            paths = [path]
            if filesystem.get_file_info(path).type == fs.FileType.Directory:
                inner = {found: found[len(path) :] for found in _below(filesystem, path, failed)}
                folder = results[1].rstrip("/") + "/" if results[0] == filesystem else None
                paths = sorted(
                    found
                    for found, name in inner.items()
                    if name.lower().endswith((*SUFFIXES, ".parquet"))
                    and "/." not in "/" + name
                    and not (folder and found.startswith(folder))
                    and not (
                        _local(filesystem) and name.lower().endswith(tuple(OUTPUTS.values())) and is_result(Path(found))
                    )
                )
                if not paths:
                    raise ValueError(f"no images ({KINDS}) and no .parquet files in this folder")
        except (OSError, ValueError) as error:
            failed(photo, reason(error))
            continue
        for path in paths:
            if path.lower().endswith(".parquet"):
                try:
                    metadata = pq.read_metadata(path, filesystem=filesystem)
                    _picture_column(metadata.schema.to_arrow_schema())
                except (OSError, ValueError) as error:
                    failed(archive.prefix + path, reason(error))
                    continue
                groups = {(path, group): metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)}
            else:
                groups = {(path, -1): 1}
            archive.pictures += sum(count for group, count in groups.items() if group not in archive.files)
            archive.files.update(dict.fromkeys(groups))
    return archive


def _below(filesystem: fs.FileSystem, folder: str, failed: Callable[[str, str], None]) -> Iterator[str]:
    if not _local(filesystem):
        infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
        yield from (info.path for info in infos if info.type != fs.FileType.Directory)
        return
    # Not Arrow, which gives up a whole folder for one name that is not UTF-8.
    for inner, _, names in os.walk(folder, onerror=lambda error: failed(error.filename, reason(error))):
        for path in (os.path.join(inner, name) for name in names):
            try:
                path.encode()
            except UnicodeEncodeError:
                failed(path, "expected a name in UTF-8")
            else:
                yield path


def _local(filesystem: fs.FileSystem) -> bool:
    return isinstance(filesystem, fs.LocalFileSystem)


def _picture_column(schema: pa.Schema) -> str:
    """Return the column of image files: "bytes", "image", or "bytes" in the structure "image" (Hugging Face)."""
    for name in ("bytes", "image"):
        kind = schema.field(name).type if name in schema.names else None
        if kind in (pa.binary(), pa.large_binary()):
            return name
        if kind is not None and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return f"{name}.bytes"
    raise ValueError(f"expected a column bytes or image of image files, got {', '.join(schema.names)}")


# ---- on the nodes


class Worker(EstimateBlur):
    """Answers a batch of an archive with the rows of its scores; maps go to files of their own."""

    def __init__(
        self, *, prefix: str, done: NDArray[np.uint64], results: fs.FileSystem, folder: str, **options: Any
    ) -> None:
        super().__init__(**options)
        self._prefix = prefix
        self._done = done
        self._results = results
        self._folder = folder

    def __call__(self, batch: dict[str, NDArray[Any]]) -> pa.Table:
        rows = []
        with contextlib.ExitStack() as stack:
            maps: tuple[str, pq.ParquetWriter] | None = None
            for source, outcome in self._outcomes(self._sources(batch)):
                row = self._row(source, outcome) | {"skipped": isinstance(outcome, Skipped)}
                if image := row.pop("map", None):
                    if maps is None:
                        name = f"maps-{uuid.uuid4().hex}.parquet"
                        file = stack.enter_context(_whole(self._results, f"{self._folder}/{name}"))
                        maps = name, stack.enter_context(pq.ParquetWriter(file, _MAPS, compression="none"))
                    facts = {"path": row["path"], "blake2b": row["blake2b"], "map": image}
                    maps[1].write_table(pa.Table.from_pylist([facts], _MAPS))
                    row["map_file"] = maps[0]
                rows.append(row)
        return pa.Table.from_pylist(rows, _ANSWERS)

    def _sources(self, batch: dict[str, NDArray[Any]]) -> Iterator[Source]:
        for path, group in zip(map(str, batch["path"]), batch["group"], strict=True):
            if group < 0:
                yield Source(self._prefix + path, partial(self._content, path))
            else:
                yield from self._rows_of_group(path, int(group))

    def _rows_of_group(self, path: str, group: int) -> Iterator[Source]:
        place, end = 0, 1
        try:
            with pq.ParquetFile(path, filesystem=self._filesystem) as file:
                place = sum(file.metadata.row_group(before).num_rows for before in range(group))
                end = place + file.metadata.row_group(group).num_rows
                column = _picture_column(file.schema_arrow)
                for batch in file.iter_batches(4, [group], [column], use_threads=False):
                    cells = batch.column(0)
                    for cell in cells.field("bytes") if pa.types.is_struct(cells.type) else cells:
                        yield Source(f"{self._prefix}{path}#{place}", partial(_bytes_of, cell))
                        place += 1
        except (OSError, ValueError) as error:
            for row in range(place, end):
                yield Source(f"{self._prefix}{path}#{row}", partial(_raise, error))

    def _is_done(self, source: Source) -> bool:
        key = _key(source.path, source.blake2b or "")
        place = np.searchsorted(self._done, key)
        return bool(place < len(self._done) and self._done[place] == key)


def _bytes_of(cell: pa.BinaryScalar) -> bytes:
    content: bytes | None = cell.as_py()
    if content is None:
        raise ValueError("no picture in this row")
    return content


def _raise(error: Exception) -> bytes:
    raise error


def _key(path: str, content: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{content} {path}".encode(), digest_size=8).digest(), "big")


@contextlib.contextmanager
def _whole(filesystem: fs.FileSystem, path: str) -> Iterator[pa.NativeFile]:
    """Open a file that appears under its name only when it is complete."""
    folder, _, name = path.rpartition("/")
    part = f"{folder}/.{name}.part"
    try:
        with filesystem.open_output_stream(part) as file:
            yield file
        filesystem.move(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            filesystem.delete_file(part)
        raise


# ---- results


class Results:
    """Files of scores in a folder; one process writes them, and every picture is in them once.

    A map file counts if a row of scores names it.
    """

    def __init__(self, filesystem: fs.FileSystem, folder: str, settings: dict[str, Any]) -> None:
        self.filesystem = filesystem
        self.folder = folder
        self._settings = {_SETTINGS: json.dumps(settings, sort_keys=True, default=str).encode()}
        self._tables: list[pa.Table] = []
        self._written = time.monotonic()
        self._next = 0

    def open(self, resume: bool) -> NDArray[np.uint64]:
        """Make the folder, or read what is done; return sorted keys of the pictures that need not be done again.

        Raises:
            Refused: the folder has results, and they are not to be gone on with, or are of other settings.
        """
        self.filesystem.create_dir(self.folder, recursive=True)
        parts = self._parts()
        if parts and not resume:
            raise Refused("the folder holds results: go on with them by --resume, or use another -o")
        for part in parts:
            metadata = pq.read_metadata(part, filesystem=self.filesystem).metadata or {}
            before = metadata.get(_SETTINGS, b"").decode()
            if before != (now := self._settings[_SETTINGS].decode()):
                raise Refused(f"the folder holds results of other settings, {before or 'unknown'}, not {now}")
        done = [
            _key(row["path"], row["blake2b"])
            for row in self.settle().select(["path", "blake2b", "error"]).to_pylist()
            if row["error"] is None
        ]
        if parts:
            self._next = 1 + int(re.findall(r"\d+", parts[-1])[-1])
        return np.sort(np.array(done, np.uint64))

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        rows, seconds = sum(map(len, self._tables)), time.monotonic() - self._written
        if rows >= _ROWS_A_FILE or seconds >= _SECONDS_A_FILE:
            self.flush()

    def flush(self) -> None:
        if rows := pa.concat_tables(self._tables) if self._tables else None:
            self._write(f"{self.folder}/scores-{self._next:08}.parquet", rows)
            self._next += 1
        self._tables = []
        self._written = time.monotonic()

    def settle(self) -> pa.Table:
        """Have every picture once, where it was done anew in its last row; remove what belongs to none. Return all."""
        tables, seen = [], set()
        for part in reversed(self._parts()):
            table = pq.read_table(part, filesystem=self.filesystem)
            last = []
            for path in reversed(table["path"].to_pylist()):
                last.append(path not in seen)
                seen.add(path)
            if not all(last):
                table = table.filter(pa.array(last[::-1]))
                if len(table):
                    self._write(part, table)
                else:
                    self.filesystem.delete_file(part)
            tables.append(table)
        everything = pa.concat_tables(tables) if tables else _SCORES.empty_table()
        named = set(everything["map_file"].to_pylist())
        for info in self.filesystem.get_file_info(fs.FileSelector(self.folder)):
            of_maps = info.base_name.startswith("maps-") and info.base_name.endswith(".parquet")
            half = re.fullmatch(r"\.(maps|scores)-\w+\.parquet\.part", info.base_name)
            if half or (of_maps and info.base_name not in named):
                self.filesystem.delete_file(info.path)
        return everything

    def _parts(self) -> list[str]:
        infos = self.filesystem.get_file_info(fs.FileSelector(self.folder))
        return sorted(info.path for info in infos if re.fullmatch(r"scores-\d{8}\.parquet", info.base_name))

    def _write(self, path: str, table: pa.Table) -> None:
        with _whole(self.filesystem, path) as file:
            pq.write_table(table.replace_schema_metadata(self._settings), file)


# ---- the run


def run(
    archive: Archive, results: Results, done: NDArray[np.uint64], address: str | None, device: str, **options: Any
) -> Iterator[pa.Table]:
    """Yield the rows of scores of an archive as they are done, with a column `skipped`; those are done already.

    Args:
        address: as of ``ray.init``; a cluster on this machine is started for None, unless $RAY_ADDRESS says another.
        options: of :class:`EstimateBlur`.

    Raises:
        Refused: no node has what the options need.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray Data's own actors bring warnings
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise Refused(f"no Ray cluster answers: {reason(error)}") from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    cpus, gpus = options["num_threads"], 0
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device != "cpu" and any(node.get("GPU", 0) >= 1 for node in nodes):
        gpus = 1
    elif device == "cuda":
        raise Refused("no node of the cluster has a GPU")
    actors = sum(int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) if gpus else np.inf)) for node in nodes)
    if not actors:
        raise Refused(f"no node of the cluster has {cpus} CPUs" + (" and a GPU" if gpus else ""))

    if not gpus:  # options that cannot work are known before the first picture
        Estimators(device="cpu", **{name: value for name, value in options.items() if name != "maps"}).of_size(1, 1)

    context = ray.data.DataContext.get_current()
    context.max_consecutive_actor_init_deaths = 3  # such as those of a node that dies
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    files = list(archive.files)
    # A row group is a task; pictures are as many a task as leaves every actor some tasks.
    size = min(_MOST_A_TASK, max(1, len(files) // (_TASKS_AN_ACTOR * actors)))
    groups = [file for file in files if file[1] >= 0]
    singles = [file for file in files if file[1] < 0]
    tasks = [[file] for file in groups] + [singles[i : i + size] for i in range(0, len(singles), size)]
    schema = pa.schema([("path", pa.string()), ("group", pa.int32())])
    blocks = [pa.table(list(map(list, zip(*task, strict=True))), schema) for task in tasks]
    answers = ray.data.from_arrow(blocks).map_batches(
        Worker,
        fn_constructor_kwargs={
            "prefix": archive.prefix,
            "filesystem": archive.filesystem,
            "done": done,
            "results": results.filesystem,
            "folder": results.folder,
            "device": device,
            **options,
        },
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    yield from answers.iter_batches(batch_size=None, batch_format="pyarrow")


def estimate(
    photos: tuple[str, ...], output: str, address: str | None, resume: bool, device: str, **options: Any
) -> None:
    """Do all of ``defocus-fast estimate --ray``; `options` are those of :class:`EstimateBlur`."""
    out, err = console(), error_console()
    begin = time.monotonic()
    count = {"done": 0, "skipped": 0, "failed": 0}

    def failed(photo: str, why: str) -> None:
        count["failed"] += 1
        err.print(f"{shown(photo)}: {why}", style="red", markup=False)

    try:
        weights = model_hash(options["model"])
    except OSError as error:
        raise click.UsageError(f"--model {shown(options['model'])}: {reason(error)}") from None
    try:
        filesystem, folder, _ = locate(output)
        archive = find(photos, (filesystem, folder), failed)
        total = archive.pictures + count["failed"]
        settings = {"version": __version__, "weights": weights, "device": device, **options}
        del settings["num_threads"]
        results = Results(filesystem, folder, settings)
        done = results.open(resume)
    except (OSError, ValueError, Refused) as error:
        raise click.UsageError(f"-o {shown(output)}: {reason(error)}") from None
    ours = not ray.is_initialized()
    try:
        with progress(err, total) as bar:
            task = bar.add_task("starting", total=total, completed=count["failed"])
            for table in run(archive, results, done, address, device, **options) if archive.files else ():
                rows = table.filter(pc.invert(table["skipped"])).drop_columns(["skipped"])
                results.add(rows)
                for row in rows.filter(pc.is_valid(rows["error"])).select(["path", "error"]).to_pylist():
                    failed(row["path"], row["error"])
                count["skipped"] += len(table) - len(rows)
                count["done"] += rows["error"].null_count
                bar.update(task, description="", advance=len(table))
        results.flush()
        results.settle()
    except (Refused, Unusable) as error:
        raise click.UsageError(f"--ray: {reason(error)}") from None
    except OSError as error:
        fail(f"-o {shown(output)}: {reason(error)}")
    except ray.exceptions.RayError as error:
        results.flush()
        fail(f"--ray: {shown(str(error).strip().splitlines()[-1])}; --resume goes on")
    except BaseException:  # such as Ctrl-C
        results.flush()
        err.print(f"{count['done'] + count['skipped']} of {total} done", style="red", markup=False)
        raise
    finally:
        if ours:
            ray.shutdown()
    seconds = time.monotonic() - begin
    out.print(f"{count['done']} done in {seconds:.1f} s, {count['done'] / seconds:.3g}/s", markup=False)
    if count["skipped"]:
        out.print(f"{count['skipped']} of {total} were done before", markup=False)
    out.print(f"Results in {shown(output)}", markup=False, soft_wrap=True)
    if count["failed"]:
        err.print(f"{count['failed']} of {total} failed", style="red", markup=False)
        raise SystemExit(1)
