# SPDX-License-Identifier: Apache-2.0
"""Folders of photographs: steps overlap, memory is bounded, estimators are kept, and a stopped run goes on."""

from __future__ import annotations

import fcntl
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from click.testing import Result
from images import texture
from PIL import Image
from test_cli import names, start, wait_for

import defocus_fast
from defocus_fast import _files
from defocus_fast.cli._pipeline import overlapped
from defocus_fast.cli._record import FILE, Record
from defocus_fast.cli._shared import Estimators

Estimate = Callable[..., Result]
SECONDS = 20


def test_reading_computing_and_writing_overlap() -> None:
    """Each step of a picture waits for the step before of the next one, which would never come one after the other."""
    begun: dict[tuple[str, int], threading.Event] = {
        (step, item): threading.Event() for step in ("read", "compute") for item in range(5)
    }

    def step(name: str, then: str | None) -> Callable[..., int]:
        def run(item: int, *_: Any) -> int:
            if name in ("read", "compute"):
                begun[name, item].set()
            assert item == 4 or then is None or begun[then, item + 1].wait(SECONDS)
            return item

        return run

    steps = step("read", None), step("compute", "read"), step("write", "compute")
    assert dict(overlapped(range(5), *steps, pixels=lambda _: 1, workers=2)) == {i: i for i in range(5)}


@pytest.mark.parametrize(("megapixels", "most"), [(40, 4), (1, 8)])
def test_no_more_is_read_than_memory_holds(megapixels: int, most: int) -> None:
    """While nothing is written, pictures of 40 megapixels are read four times at most, whatever the workers."""
    read: list[int] = []
    go = threading.Event()

    def write(item: int, *_: int) -> int:
        assert go.wait(SECONDS)
        return item

    def look() -> None:
        time.sleep(0.5)
        counts.append(len(read))
        go.set()

    counts: list[int] = []
    threading.Thread(target=look).start()
    results = overlapped(range(50), lambda item: read.append(item) or item, lambda item, _: item, write,
                         pixels=lambda _: megapixels << 20, workers=2)  # fmt: skip
    assert sorted(dict(results)) == list(range(50))
    assert 1 < counts[0] <= most


def test_an_error_is_that_of_its_picture_in_every_step() -> None:
    def step(name: str) -> Callable[..., int]:
        def run(item: int, *_: Any) -> int:
            if ("read", "compute", "write").index(name) == item % 4:
                raise ValueError(f"{name} {item}")
            return item

        return run

    results = list(overlapped(range(40), step("read"), step("compute"), step("write"), lambda _: 1, workers=2))
    assert Counter(item for item, _ in results) == Counter(range(40))
    for item, result in results:
        assert str(result) == (f"{('read', 'compute', 'write')[item % 4]} {item}" if item % 4 < 3 else f"{item}")


def test_estimators_of_several_sizes_are_kept(random_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    original = defocus_fast.Estimator.__init__

    def count(self: defocus_fast.Estimator, height: int, width: int, **options: Any) -> None:
        made.append((height, width))
        original(self, height, width, **options)

    monkeypatch.setattr(defocus_fast.Estimator, "__init__", count)
    estimators = Estimators(model=random_model, precision="float32", num_threads=1)
    sizes = [(40 + i, 64) for i in range(5)]
    for size in [*sizes, (1500, 2000), *sizes, (1500, 2000), (2100, 2000), *sizes, (2000, 2100)]:
        estimator = estimators.of_size(*size)
        assert (estimator.height, estimator.width) == size
    assert made == [*sizes, (1500, 2000), (2100, 2000), (2000, 2100)]
    estimators.of_size(2100, 2000)
    assert made[-1] == (2100, 2000), "of those of more than 4 megapixels only the last is kept"
    for i in range(20):
        estimators.of_size(10 + i, 10)
    assert len(estimators._kept) == Estimators.MOST + 1


def pictures(count: int) -> None:
    Path("in").mkdir()
    for i in range(count):
        Image.fromarray(texture(40 + 8 * i, 64, seed=i)).save(f"in/{i}.png")


def test_resume_leaves_out_what_is_done(estimate: Estimate, folder: Path) -> None:
    pictures(4)

    def run(*options: str) -> set[str]:
        """Return the photographs that are done anew."""
        before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.npy")}
        result = estimate("in", "-o", "out", "--resume", *options)
        assert result.exit_code == 0, result.output
        after = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.npy")}
        anew = {path.name[0] for path, changed in after.items() if before.get(path) != changed}
        assert (f"{4 - len(anew)} of 4 were done before" in result.stdout) == (len(anew) < 4)
        return anew

    everything = {"0", "1", "2", "3"}
    assert estimate("in", "-o", "out").exit_code == 0
    assert run() == set()
    assert run("--save", "npy") == set(), "files that are not asked for are not missed"
    Image.fromarray(texture(48, 64, seed=9)).save("in/1.png")
    Path("out/2.blur.png").unlink()
    Path("out/3.blur.npy").write_bytes(Path("out/3.blur.npy").read_bytes()[:200])
    assert run() == {"1", "2", "3"}
    assert run() == set()
    assert run("--psi", "3") == everything
    assert run() == everything, "results of other settings took their place"
    assert run("--save", "npy", "--save", "error") == everything
    assert run() == set(), "files of the same settings are added to those before"
    Path("out", FILE).write_text(2 * Path("out", FILE).read_text())
    assert run() == set(), "the last line of a name counts"
    Path("out", FILE).write_text(Path("out", FILE).read_text()[: Path("out", FILE).stat().st_size // 2])

    lines = Path("out", FILE).read_text().splitlines()
    content = {json.loads(line)["name"]: json.loads(line) for line in lines}
    assert content["1"]["blake2b"] == _files.content_hash(Path("in/1.png"))
    Path("out", FILE).write_text("\n".join([*lines[-4:-1], lines[-1][:-20]]))
    assert len(run("--save", "error")) == 1, "a line that is cut off counts for nothing, and breaks nothing"
    Path("out", FILE).write_bytes(b'\x00\xff\n[]\n{"name": 1}\n')
    assert run() == everything


def test_resume_knows_the_version_and_the_weights(
    estimate: Estimate,
    random_model: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures(1)
    assert estimate("in", "-o", "out").exit_code == 0
    monkeypatch.setattr(defocus_fast, "__version__", "0.0.1")
    assert "were done before" not in estimate("in", "-o", "out", "--resume").stdout
    assert "were done before" in estimate("in", "-o", "out", "--resume").stdout
    description = Path(random_model, "model.txt")
    before = description.read_text()
    description.write_text(before.replace("random weights", "another's weights"))
    try:
        assert "were done before" not in estimate("in", "-o", "out", "--resume").stdout
    finally:
        description.write_text(before)


def test_a_killed_run_goes_on(random_model: str, folder: Path) -> None:
    """What has a line in the record is done, whatever ended the run."""
    pictures(4)
    noise = np.random.default_rng(0).integers(0, 256, (2000, 3000), dtype=np.uint8)
    Image.fromarray(noise).save("in/9.png", compress_level=0)
    command = ["estimate", "in", "-o", "out", "--model", random_model, "--threads", "1"]
    with start(*command) as process:
        wait_for(lambda: Path("out", FILE).exists() and Path("out", FILE).read_text().count("\n") == 4)
        process.kill()
    Path("in/9.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    with start(*command, "--resume") as process:
        assert "4 of 4 were done before" in process.communicate()[0]
    assert process.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == before
    assert {name[0] for name in names(folder / "out")} - {"."} == {"0", "1", "2", "3"}


def test_one_run_at_a_time_writes_into_a_folder(estimate: Estimate, folder: Path) -> None:
    pictures(1)
    Path("out").mkdir()
    record = Record(folder / "out", {})
    try:
        result = estimate("in", "-o", "out")
        assert result.exit_code == 2
        assert "-o: another run is writing into out" in result.stderr
        assert names(folder / "out") == set()
    finally:
        record.close()
    for _ in range(2):
        assert estimate("in", "-o", "out").exit_code == 0


def test_what_killed_runs_have_half_written_is_removed(estimate: Estimate, folder: Path) -> None:
    """But nothing that another process is writing, and nothing of other files."""
    pictures(1)
    Path("out").mkdir()
    left, written = Path("out/.0.blur.npy.123.part"), Path("out/.0.blur.npy.124.part")
    others = {".1.blur.npy.123.part", ".0.blur.npy.part", "0.blur.npy.123.part"}
    for name in (left.name, written.name, *others):
        Path("out", name).touch()

    def see(file: IO[bytes]) -> None:
        if not (folder / "out/0.blur.npy").exists():
            assert estimate("in", "-o", "out", "--save", "npy").exit_code == 0
            assert (folder / written).exists()
            assert list(Path("out").glob(".other*")), "it is being written"

    with open(written) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _files.write_whole(folder / "out/other", see)
    assert not left.exists()
    assert names(folder / "out") == {"0.blur.npy", "other", written.name, *others}


def test_uris_need_ray(estimate: Estimate, folder: Path) -> None:
    result = estimate("a.png", "-o", "s3://bucket/out")
    assert result.exit_code == 2
    assert "-o: expected a folder without --ray, got s3://bucket/out" in result.stderr
    assert names(folder) == set()
    result = estimate("--ray", "a.png")
    assert result.exit_code == 2
    assert "--ray=ADDRESS" in result.stderr


def test_without_ray_the_extra_is_named(
    estimate: Estimate,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in [name for name in sys.modules if name in ("defocus_fast.cli._ray", "ray")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("defocus_fast.cli._ray", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = estimate("a.png", "--ray")
    assert result.exit_code == 2
    assert 'pip install "defocus_fast[ray]"' in result.stderr
