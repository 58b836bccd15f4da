# SPDX-License-Identifier: Apache-2.0
"""Fetch the training images named in ``manifest.tsv`` from Debian packages, without installing anything.

``python -m training.fetch DIR`` leaves ``DIR/photo/*`` (sharp photographs) and ``DIR/cutout/*`` (cut-outs with alpha).
Needs apt-get (with a package list, after ``apt-get update``) and dpkg-deb.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from training import run

MANIFEST = Path(__file__).with_name("manifest.tsv")


class Entry(NamedTuple):
    """One row of the manifest."""

    use: str  # photo | cutout
    name: str  # file name it gets below DIR/<use>/
    package: str
    version: str
    file: str  # path in the package; "archive.rcc:path" for a member of a Qt resource archive
    licence: str
    sha256: str


def read_manifest(path: Path = MANIFEST) -> list[Entry]:
    """Return the rows of the manifest."""
    with open(path, newline="") as file:
        return [Entry(**row) for row in csv.DictReader(file, delimiter="\t")]


def rcc_members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (path, contents) of each file of a binary Qt resource archive; members in zstd are passed over."""
    if archive[:4] != b"qres":
        raise ValueError(f"Qt resource archive: expected it to start with b'qres', got {archive[:4]!r}")
    version, tree, data, names = struct.unpack(">IIII", archive[4:20])
    node_bytes = 14 if version < 2 else 22

    def walk(node: int, parent: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * node_bytes
        name_at, flags = struct.unpack(">IH", archive[at : at + 6])
        path = parent
        if node:
            (length,) = struct.unpack(">H", archive[names + name_at : names + name_at + 2])
            start = names + name_at + 6
            path = f"{parent}/{archive[start : start + 2 * length].decode('utf-16-be')}".lstrip("/")
        if flags & 2:
            count, first = struct.unpack(">II", archive[at + 6 : at + 14])
            for child in range(first, first + count):
                yield from walk(child, path)
        elif not flags & 4:
            start = data + struct.unpack(">I", archive[at + 10 : at + 14])[0]
            (length,) = struct.unpack(">I", archive[start : start + 4])
            contents = archive[start + 4 : start + 4 + length]
            yield path, zlib.decompress(contents[4:]) if flags & 1 else contents

    yield from walk(0, "")


def _read_package(package: str, version: str, files: list[str], work: Path) -> dict[str, bytes]:
    """Download and unpack one package below `work`; return file -> contents for the files wanted."""
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"{package}={version}"]
    subprocess.run(command, cwd=work, check=True)
    (deb,) = work.glob(f"{package}_*.deb")
    root = work / package
    subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    contents: dict[str, bytes] = {}
    for archive in {file.split(":")[0] for file in files if ".rcc:" in file}:
        for path, member in rcc_members((root / archive).read_bytes()):
            contents[f"{archive}:{path}"] = member
    for file in files:
        if file not in contents:
            contents[file] = (root / file).read_bytes()
    return contents


def fetch(folder: Path) -> int:
    """Fetch every image of the manifest into `folder`; return how many. Raises ValueError on a wrong checksum."""
    entries = read_manifest()
    for package, version in sorted({(entry.package, entry.version) for entry in entries}):
        wanted = [entry for entry in entries if entry.package == package]
        with tempfile.TemporaryDirectory() as work:
            contents = _read_package(package, version, [entry.file for entry in wanted], Path(work))
        for entry in wanted:
            found = hashlib.sha256(contents[entry.file]).hexdigest()
            if found != entry.sha256:
                raise ValueError(f"{entry.package}: {entry.file}: expected sha256 {entry.sha256}, got {found}")
            target = folder / entry.use / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(contents[entry.file])
    return len(entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="created if absent")
    run(parser, lambda args: print(f"{fetch(args.folder)} images fetched and verified"))


if __name__ == "__main__":
    main()
