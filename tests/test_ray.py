# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast estimate --ray`` on a cluster of several nodes on this machine: every picture once, whatever dies."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from images import texture
from PIL import Image

import defocus_fast
from defocus_fast import _images, cli

ray = pytest.importorskip("ray", reason='needs Ray: pip install "defocus_fast[ray]"')
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
from ray.cluster_utils import Cluster  # noqa: E402

from defocus_fast.cli import _ray  # noqa: E402
from defocus_fast.ray_data import EstimateBlur  # noqa: E402

Estimate = Callable[..., Result]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, where nothing runs, and two nodes of one CPU."""
    # By default Ray takes half a minute to be sure that a node is dead.
    health = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": health}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def estimate(cluster: Any, random_model: str) -> Estimate:
    def run(*arguments: str, error: type[BaseException] | None = None) -> Result:
        options = ["--model", random_model, "--precision", "float32", f"--ray={cluster.address}"]
        result = CliRunner().invoke(cli.main, ["estimate", *options, *arguments])
        if error is None:
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        else:
            assert isinstance(result.exception, error)
        return result

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A tree of 40 pictures of five sizes, of which one is broken."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for i in range(40):
        path = folder / ("sub" if i % 2 else "") / f"p {i:02}.png"
        Image.fromarray(texture(200 + 8 * (i % 5), 240)[::-1] if i % 2 else texture(200 + 8 * (i % 5), 240)).save(path)
    (folder / "p 00.png").write_bytes((folder / "p 00.png").read_bytes()[:3000])
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("scores-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def check(found: list[dict[str, Any]], pictures: Path, random_model: str) -> None:
    """Every picture has one row, with the scores that it has in this process."""
    paths = sorted(str(path) for path in pictures.rglob("*.png"))
    assert sorted(row["path"] for row in found) == paths
    for row in found:
        if row["path"].endswith("p 00.png"):
            assert "truncated" in row["error"]
            continue
        image = _images.read_photo(Path(row["path"]))
        options: dict[str, Any] = {"model": random_model, "precision": "float32", "num_threads": 1}
        expected = defocus_fast.Estimator.for_image(image, **options).estimate(image).scores()
        assert row["error"] is None
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6), name


def test_a_node_dies_and_every_picture_is_there_once(
    estimate: Estimate, cluster: Any, pictures: Path, random_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = cluster.add_node(num_cpus=1)
    add, tables = _ray.Results.add, []

    def kill(self: Any, table: Any) -> None:
        tables.append(len(table))
        add(self, table)
        if len(tables) == 3:
            # Until every node has a worker, which takes long on a busy machine.
            deadline = time.monotonic() + 60
            while ray.available_resources().get("CPU", 0) > 0 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert ray.available_resources().get("CPU", 0) == 0, "every node has a worker"
            cluster.remove_node(victim, allow_graceful=False)

    monkeypatch.setattr(_ray.Results, "add", kill)
    result = estimate(str(pictures), "-o", str(tmp_path / "out"), "--save", "png")
    assert result.exit_code == 1, result.output
    assert "1 of 40 failed" in result.stderr
    assert len(tables) > 6, "there was much to do when the node died"
    assert sum(node["Alive"] for node in ray.nodes()) == 3
    found = rows(tmp_path / "out")
    check(found, pictures, random_model)

    maps = Counter(
        (row["path"], row["blake2b"])
        for name in {row["map_file"] for row in found} - {None}
        for row in pq.read_table(tmp_path / "out" / name).to_pylist()
    )
    assert maps == Counter((row["path"], row["blake2b"]) for row in found if not row["error"])
    assert {row["map_file"] for row in found} - {None} == {path.name for path in (tmp_path / "out").glob("maps-*")}


def test_a_stopped_run_goes_on(
    estimate: Estimate, pictures: Path, random_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    add, tables = _ray.Results.add, []

    def stop(self: Any, table: Any) -> None:
        tables.append(len(table))
        add(self, table)
        if len(tables) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_ray.Results, "add", stop)
        estimate(str(pictures), "-o", str(out))
    before = rows(out)
    assert len(before) == sum(tables[:4])
    assert "--resume" in estimate(str(pictures), "-o", str(out)).stderr
    assert "other settings" in estimate(str(pictures), "-o", str(out), "--resume", "--psi", "3").stderr
    assert rows(out) == before

    changed = next(row["path"] for row in before if not row["error"])
    Image.fromarray(texture(64, 80)).save(changed)
    result = estimate(str(pictures), "-o", str(out), "--resume")
    kept = sum(not row["error"] and row["path"] != changed for row in before)
    assert f"{kept} of 40 were done before" in result.stdout
    assert f"{39 - kept} done in" in result.stdout
    check(rows(out), pictures, random_model)


def test_pictures_in_parquet_files(estimate: Estimate, tmp_path: Path) -> None:
    def content(height: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(texture(height, 64)).save(file, "PNG")
        return file.getvalue()

    images = [content(40 + i) for i in range(7)] + [b"broken", None]
    pq.write_table(pa.table({"bytes": images}), tmp_path / "a.parquet", row_group_size=4)
    structs = [{"bytes": image, "path": "x.png"} for image in images]
    pq.write_table(pa.table({"image": structs, "label": range(9)}), tmp_path / "b.parquet", row_group_size=5)
    pq.write_table(pa.table({"label": range(9)}), tmp_path / "c.parquet")
    result = estimate(f"file://{tmp_path}", "-o", f"file://{tmp_path}/out")
    assert result.exit_code == 1
    assert "c.parquet: expected a column bytes or image of image files, got label" in result.stderr
    found = {row["path"]: row for row in rows(tmp_path / "out")}
    assert set(found) == {f"{tmp_path}/{name}.parquet#{row}" for name in "ab" for row in range(9)}
    for name in "ab":
        assert [found[f"{tmp_path}/{name}.parquet#{row}"]["height"] for row in range(7)] == list(range(40, 47))
        assert "not a JPEG" in found[f"{tmp_path}/{name}.parquet#7"]["error"]
        assert "no picture" in found[f"{tmp_path}/{name}.parquet#8"]["error"]


def test_the_callable_takes_what_ray_reads(cluster: Any, pictures: Path, random_model: str) -> None:
    dataset = ray.data.read_binary_files(str(pictures), include_paths=True)
    options = {"model": random_model, "precision": "float32"}
    answers = dataset.map_batches(EstimateBlur, fn_constructor_kwargs=options, batch_size=8, concurrency=1, num_cpus=1)
    check(answers.take_all(), pictures, random_model)


def test_the_callable_keeps_the_order(pictures: Path, random_model: str) -> None:
    paths = sorted(str(path) for path in pictures.rglob("*.png"))
    table = EstimateBlur(model=random_model, precision="float32", maps=True)({"path": np.array(paths, object)})
    assert table["path"].to_pylist() == paths
    for image, height in zip(table["map"].to_pylist(), table["height"].to_pylist(), strict=True):
        assert (image is None) == (height is None)
        assert image is None or Image.open(io.BytesIO(image)).height == height


def test_what_ray_cannot_do_is_status_2(estimate: Estimate, pictures: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["--save", "npy"], "--save: expected png with --ray"),
        (["--threads", "5"], "no node of the cluster has 5 CPUs"),
        (["--device", "cuda"], "no node of the cluster has a GPU"),
        (["--model", "nope"], "nope"),
    ):
        result = estimate(str(pictures), "-o", str(tmp_path / "out"), *arguments)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
