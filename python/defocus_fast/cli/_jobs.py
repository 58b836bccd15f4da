# SPDX-License-Identifier: Apache-2.0
"""Which files a command over many photographs reads, and where their results go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from .._files import KINDS, is_free, photos_in, remove_parts
from ._shared import entry_key, reason, shown


@dataclass
class Job:
    place: int  # among the jobs
    photo: Path
    name: str  # of the results, without the suffixes
    outputs: dict[str, Path]  # by kind
    problem: str = ""  # why it cannot be done at all

    def shown_name(self) -> str:
        return shown(self.photo) + (f" (as {shown(self.name)})" if self.name != self.photo.stem else "")


def files_of(photos: tuple[str, ...], failed: Callable[[Path | str, str], None]) -> Iterator[Path]:
    """Yield the files meant by the arguments, folders expanded, each file once."""
    seen = set()
    for argument in photos:
        if not argument:  # of which Path makes "."
            failed('""', "expected the name of a file or folder")
            continue
        files = [Path(argument)]
        if os.path.isdir(argument):  # not Path.is_dir, which raises what reading will tell
            try:
                files = photos_in(Path(argument))
            except OSError as error:
                failed(Path(argument), reason(error))
                continue
            if not files:
                failed(Path(argument), f"no images ({KINDS}) in this folder")
        for path in files:
            if (key := path.absolute()) not in seen:
                seen.add(key)
                yield path


def plan(photos: list[Path], output: Path, suffixes: dict[str, str]) -> list[Job]:
    """Give every photograph names for its results: no name twice, none of what is there and no earlier result."""
    # Not Path.resolve, which raises at a loop of links.
    inputs = {entry_key(path) for path in photos} | {os.path.realpath(path).casefold() for path in photos}
    taken: set[str] = set()
    jobs: list[Job] = []
    for photo in photos:
        count, name = 1, photo.stem
        while name.casefold() in taken:
            count += 1
            name = f"{photo.stem}-{count}"
        taken.add(name.casefold())
        job = Job(len(jobs), photo, name, {kind: output / (name + suffix) for kind, suffix in suffixes.items()})
        for path in job.outputs.values():
            if entry_key(path) in inputs:
                job.problem = f"its result {shown(path)} would overwrite a photograph of this run; use another -o"
            elif not is_free(path):
                job.problem = f"{shown(path)} is there and is no result of an earlier run; use another -o"
        jobs.append(job)
    return jobs


def make_folder(output: Path, jobs: list[Job]) -> None:
    """Make the folder of the results, without what killed runs have half written of them.

    Raises:
        click.UsageError: nothing can be written into it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"-o: cannot make the folder {shown(output)}: {reason(error)}") from None
    if not os.access(output, os.W_OK | os.X_OK):
        raise click.UsageError(f"-o: cannot write into the folder {shown(output)}")
    remove_parts(output, (path.name for job in jobs for path in job.outputs.values()))
