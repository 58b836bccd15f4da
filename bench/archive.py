# SPDX-License-Identifier: Apache-2.0
"""Time a plain loop and ``estimate --ray`` over the same photographs, and compute what a million of them take.

python bench/archive.py PHOTO... > docs/archive.md

The photographs are enlarged to 24 megapixels. Everything runs on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import math
import os
import platform
import re
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import ray
from PIL import Image
from pyarrow import fs

import defocus_fast
from defocus_fast import _images, benchmark
from defocus_fast.cli import _ray

MEGAPIXELS = 24
OPTIONS = {"model": "fast", "precision": "auto"}


PAGE = """# A million photographs

    defocus-fast estimate s3://bucket/photographs -o s3://bucket/scores --ray=head:6379

writes the scores of an archive, with the work on all nodes of a [Ray](https://docs.ray.io) cluster. This page says
what that takes. `python bench/archive.py PHOTO...` writes it.

## Measured

{n} photographs of {megapixels} megapixels (enlarged from smaller ones; JPEG, {megabytes:.1f} MB in the mean), model
`fast`, one thread a worker; {machine}, load before it {load:.1f}; {versions}; {date}.

| | s a photograph | photographs/s, plain loop = 1 |
|---|---:|---:|
{measured}

A worker reads ahead and makes the scores in threads of its own; the processes of Ray run on the same cores.

Starting is not in it: {starts[1]:.1f} s with one worker, {starts[2]:.1f} s with two. In CPU time
the loop takes {core:.2f} s a photograph: {parts}.

Enlarged photographs are soft: they have few edges for their size. {sharp_n} of them mirrored out to the same size
instead, as sharp at every pixel as photographs that were reduced, take the loop {sharp[CPU]:.2f} s of CPU time
({sharp_megabytes:.1f} MB in the mean). Photographs of cameras are between.

## Computed: a million

A million of the soft photographs are {terabytes:.1f} TB, and take {core_hours:,.0f} core hours.

| cores | soft: time | read from the store | sharp: time | read from the store |
|---:|---:|---:|---:|---:|
{computed}

- Time is the loop's CPU time times a million, by the cores: photographs do not wait for each other. The store must
  bring as much as the table says, or it is what sets the time. No cluster of this size has been measured.
- A run that goes on with `--resume` reads and hashes what is done again, {again:.1f} core hours for all of it, and
  computes none of it.
- A worker of one thread takes about 31 bytes for each pixel of the largest photograph, {gigabytes:.1f} GB here, and
  up to {ahead:.2f} GB for the photographs that it reads ahead. Ray is told of CPUs, not of memory: have 1.5 GB for
  each core.
- A photograph that takes a worker's life, such as one that needs more memory than the node has, is tried again and
  again, as Ray does with workers that die.

## Rows

`scores-*.parquet` have a row for every photograph: `path`; `blake2b` of its content; `height`, `width`, `edges`,
`pattern_edges`, `min_px`, `median_px`, `max_px` (as `BlurMap.scores`); `precision` and `device` that "auto" became;
`error`, null where all is well; `map_file`. With `--save png` the files `maps-*.parquet` hold 16-bit PNG files in the
column `map`. A file whose name is no UTF-8 has no row, as Parquet's texts are UTF-8; it is told on standard error, as
is a folder without photographs, and counts as failed.

Rows are written every minute, so a run that is killed loses a minute. With `--resume` a photograph whose path and
content have scores is left out; one with an error is tried again, and the new row takes the old one's place. One run
at a time may write into a folder.

In programs of your own:

```python
import ray
from defocus_fast.ray_data import EstimateBlur

photographs = ray.data.read_binary_files("s3://bucket/photographs", include_paths=True)  # columns bytes and path
scores = photographs.map_batches(EstimateBlur, batch_size=16, num_cpus=1, concurrency=(1, 64))
scores.write_parquet("s3://bucket/scores")
```
"""


def enlarged(photo: Path, folder: Path) -> Path:
    with Image.open(photo) as image:
        scale = (MEGAPIXELS * 1e6 / (image.width * image.height)) ** 0.5
        size = round(image.width * scale), round(image.height * scale)
        path = folder / f"{photo.stem}.jpg"
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(path, quality=92)
    return path


def repeated(photo: Path, folder: Path) -> Path:
    """As sharp as the photograph: mirrored out to 24 megapixels."""
    image = _images.read_photo(photo)
    path = folder / f"{photo.stem}.sharp.jpg"
    Image.fromarray(benchmark.of_size(image, 4000, MEGAPIXELS * 250)).save(path, quality=92)
    return path


def loop(paths: list[Path]) -> dict[str, float]:
    """Seconds of a picture in a plain loop on one thread, and their parts."""
    parts = {"read and hash": 0.0, "decode": 0.0, "estimate": 0.0, "scores": 0.0}
    estimator, start, cpu = None, time.perf_counter(), time.process_time()
    for path in paths:
        marks = [time.process_time()]
        content = path.read_bytes()
        hashlib.blake2b(content).digest()
        marks.append(time.process_time())
        image = _images.read_photo(io.BytesIO(content))
        marks.append(time.process_time())
        if estimator is None or (estimator.height, estimator.width) != image.shape[:2]:
            estimator = defocus_fast.Estimator.for_image(image, num_threads=1, **OPTIONS)
        result = estimator.estimate(image, expected_error=False)
        marks.append(time.process_time())
        result.scores()
        marks.append(time.process_time())
        for name, seconds in zip(parts, np.diff(marks), strict=True):
            parts[name] += seconds / len(paths)
    whole = {"wall": time.perf_counter() - start, "CPU": time.process_time() - cpu}
    return parts | {name: seconds / len(paths) for name, seconds in whole.items()}


def on_ray(paths: list[Path], workers: int, folder: Path) -> float:
    """Seconds of a run on a cluster of so many CPUs that is there already."""
    results = _ray.Results(fs.LocalFileSystem(), str(folder), {})
    done = results.open(False)
    archive = _ray.find(map(str, paths), (results.filesystem, results.folder), sys.exit)
    ray.init(num_cpus=workers, log_to_driver=False, include_dashboard=False)
    start = time.perf_counter()
    rows = 0
    for table in _ray.run(archive, results, done, None, "cpu", num_threads=1, **OPTIONS):
        rows += len(table) - (len(table) - table["error"].null_count)
        results.add(table.drop_columns(["skipped"]))
    results.flush()
    seconds = time.perf_counter() - start
    ray.shutdown()
    assert rows == len(paths)
    return seconds


def cpu() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.processor()


def duration(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds > 2 * 86400 else f"{seconds / 3600:.1f} hours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    photos = parser.parse_args().photos
    load = os.getloadavg()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [enlarged(photo, folder) for photo in photos]
        size = sum(path.stat().st_size for path in paths) / len(paths)
        Image.new("L", (1, 1)).save(folder / "tiny.png")
        sharp_paths = [repeated(photo, folder) for photo in photos[::2]]
        sharp_size = sum(path.stat().st_size for path in sharp_paths) / len(sharp_paths)
        sharp = loop(sharp_paths)
        loops, starts, runs = [], {1: math.inf, 2: math.inf}, {1: math.inf, 2: math.inf}
        for turn in range(2):  # the machine is not ours alone: the least of each
            loops.append(loop(paths))
            for workers in (1, 2):
                tiny = on_ray([folder / "tiny.png"], workers, folder / f"start{workers}{turn}")
                starts[workers] = min(starts[workers], tiny)
                runs[workers] = min(runs[workers], on_ray(paths, workers, folder / f"run{workers}{turn}"))
        plain = min(loops, key=lambda each: each["wall"])
    n, million = len(paths), 1e6
    rate = {workers: n / (runs[workers] - starts[workers]) for workers in runs}
    core = plain["CPU"]
    measured = [("plain loop, one thread", 1 / plain["wall"])]
    measured += [(f"`--ray`, workers: {workers}", rate[workers]) for workers in rate]
    print(
        PAGE.format(
            measured="\n".join(f"| {name} | {1 / rate:.2f} | {rate * plain['wall']:.2f} |" for name, rate in measured),
            computed="\n".join(
                f"| {cores:,} | {duration(million * core / cores)} | {size * cores / core / 1e9:.2f} GB/s "
                f"| {duration(million * sharp['CPU'] / cores)} | {sharp_size * cores / sharp['CPU'] / 1e9:.2f} GB/s |"
                for cores in (16, 64, 256, 1024)
            ),
            parts=", ".join(f"{name} {plain[name]:.2f} s" for name in list(plain)[:4]),
            n=n,
            megapixels=MEGAPIXELS,
            megabytes=size / 1e6,
            machine=f"{os.cpu_count()} cores of {cpu()}, kernels {defocus_fast.Estimator(1, 1).kernels}",
            load=load,
            versions=", ".join(f"{name} {version(name)}" for name in ("ray", "pyarrow", "pillow")),
            date=time.strftime("%Y-%m-%d"),
            starts=starts,
            core=core,
            sharp=sharp,
            sharp_megabytes=sharp_size / 1e6,
            sharp_n=len(sharp_paths),
            terabytes=million * size / 1e12,
            core_hours=million * core / 3600,
            again=million * plain["read and hash"] / 3600,
            gigabytes=31 * MEGAPIXELS / 1000,
            ahead=6 * MEGAPIXELS / 1000,
        ),
        end="",
    )


if __name__ == "__main__":
    main()
