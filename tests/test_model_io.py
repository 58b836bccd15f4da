# SPDX-License-Identifier: Apache-2.0
"""Model folders, read by an engine that the library does not use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defocus_fast.model_io import (
    RADIUS_BINS,
    add_propagation,
    expected_shapes,
    propagation_shapes,
    read_weights,
    write_model,
)

onnxruntime = pytest.importorskip("onnxruntime")


def weights(width: int = 4, bins: int = 23) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    widths = {
        "branch1.conv1": np.zeros((width, 3, 3, 3)),
        "blur.dense1.bias": np.zeros(9),
        "blur.dense2.bias": np.zeros(7),
        "blur.dense3.bias": np.zeros(bins),
        "edge.dense1.bias": np.zeros(6),
        "edge.dense2.bias": np.zeros(5),
    }
    shapes = expected_shapes(widths)
    return {key: rng.normal(0, 0.3, shape).astype(np.float32) for key, shape in shapes.items()}


def session(folder: Path, name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("crop_offset", [0, 1])
def test_trunk_and_head_are_the_patch_network(tmp_path: Path, crop_offset: int) -> None:
    """Features once per image give every patch's probabilities."""
    write_model(tmp_path, weights(), name="test", crop_offset=crop_offset, trained="at random")
    rng = np.random.default_rng(1)
    image = rng.random((1, 3, 60, 70), np.float32)
    features = session(tmp_path, "trunk").run(None, {"image": image})
    assert [f.shape for f in features] == [(1, 4, 32, 42)] * 4
    for head, u, v in (("blur", *features[:2]), ("edge", *features[2:])):
        for y, x in [(20, 20), (39, 49), (31, 27)]:
            near = [slice(y - 14 - 2 * step, y - 14 + 2 * step + 1, step) for step in (3, 1)]
            across = [slice(x - 14 - 2 * step, x - 14 + 2 * step + 1, step) for step in (3, 1)]
            fused = np.maximum(u[:, :, near[0], across[0]] + v[:, :, near[1], across[1]], 0)
            (found,) = session(tmp_path, f"{head}_head").run(None, {"features": fused})
            crops = {}
            for size in (41, 27, 15):
                first = [c - size // 2 + (crop_offset if size < 41 else 0) for c in (y, x)]
                crops[f"crop{size}"] = image[:, :, first[0] : first[0] + size, first[1] : first[1] + size]
            (expected,) = session(tmp_path, f"{head}_patch").run(None, crops)
            assert expected.std() > 1e-3  # the networks do answer something
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_weights_come_back(tmp_path: Path) -> None:
    written = weights()
    write_model(tmp_path, written, name="test", crop_offset=0, trained="at random")
    read = read_weights(tmp_path)
    assert read.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)
    with pytest.raises(FileNotFoundError, match="absent"):
        read_weights(tmp_path / "absent")


def test_a_network_of_distances_is_added_or_replaced(tmp_path: Path) -> None:
    before = weights()
    write_model(tmp_path, before, name="test", trained="at random")
    for seed in range(2):
        rng = np.random.default_rng(seed)
        added = {key: rng.normal(0, 0.1, shape).astype(np.float32) for key, shape in propagation_shapes().items()}
        add_propagation(tmp_path, added)
        read = read_weights(tmp_path)
        assert read.keys() == before.keys() | added.keys()
        for name, array in {**before, **added}.items():
            np.testing.assert_array_equal(read[name], array, err_msg=name)
    for name, wrong, message in (
        ("propagation.context.weight", None, "expected tensors of the shapes"),
        ("propagation.context.weight", np.zeros((48, 96), np.float32), "expected tensors of the shapes"),
        ("propagation.context.bias", np.zeros(48, np.float32), "expected tensors of the shapes"),
        ("propagation.0.bias", np.full(48, np.inf, np.float32), "expected finite values"),
    ):
        changed = {key: value for key, value in {**added, name: wrong}.items() if value is not None}
        with pytest.raises(ValueError, match=message):
            add_propagation(tmp_path, changed)


def test_metadata(tmp_path: Path) -> None:
    options = {"sigma_r": 0.75, "iterations": 4, "expected_error": (0.25, 2.0)}
    write_model(tmp_path, weights(), name="test", crop_offset=1, trained="at random", **options)
    lines = dict(line.split(": ", 1) for line in (tmp_path / "model.txt").read_text().splitlines())
    assert lines["format"] == "3"
    assert lines["crop_offset"] == "1"
    assert [float(bin) for bin in lines["radius_bins"].split()] == list(RADIUS_BINS)
    assert (lines["sigma_r"], lines["iterations"]) == ("0.75", "4")
    assert (lines["error_floor"], lines["error_slope"]) == ("0.25", "2.0")
    assert lines["tensor branch1.conv1"] == "0 4 3 3 3"
    assert lines["tensor branch1.conv2"] == "448 4 4 3 3"  # 4 * 108 bytes, to a multiple of 64


def test_the_index_is_that_of_the_graphs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    write_model(tmp_path, weights(), name="test", trained="at random")
    lines = dict(line.split(": ", 1) for line in (tmp_path / "model.txt").read_text().splitlines())
    index = {key.removeprefix("tensor "): value for key, value in lines.items() if key.startswith("tensor ")}
    for graph in tmp_path.glob("*.onnx"):
        for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                offset = {entry.key: entry.value for entry in tensor.external_data}["offset"]
                assert index[tensor.name] == " ".join([offset, *map(str, tensor.dims)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blur.conv2": None}, "missing or unknown tensors: .*blur.conv2"),
        ({"blur.conv9": np.zeros(3)}, "missing or unknown tensors: .*blur.conv9"),
        ({"branch1.conv1": None}, "branch1.conv1"),
        ({"edge.conv1": np.zeros((4, 12, 3, 3))}, r"expected edge.conv1 of shape \(4, 16, 3, 3\), got \(4, 12, 3, 3\)"),
        ({"branch3.conv4": np.full((4, 4, 3, 3), np.nan)}, "branch3.conv4 is not finite"),
    ],
)
def test_unfit_weights(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    changed = {key: value for key, value in {**weights(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        write_model(tmp_path / "model", changed, name="test", crop_offset=0, trained="")
    assert not (tmp_path / "model").exists()


def test_unfit_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crop_offset: expected 0 or 1, got 2"):
        write_model(tmp_path, weights(), name="test", crop_offset=2, trained="")
    with pytest.raises(ValueError, match="radius_bins: expected 5 radii, got 23"):
        write_model(tmp_path, weights(bins=5), name="test", crop_offset=0, trained="")
