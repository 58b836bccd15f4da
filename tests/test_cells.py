# SPDX-License-Identifier: Apache-2.0
"""The architecture "cells" against its own graphs, run by an engine that the library does not use."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from images import texture

import defocus_fast
from defocus_fast.model_io import write_model

onnxruntime = pytest.importorskip("onnxruntime")

DEPTH = 2
BEYOND = 3 * (DEPTH + 1)  # px of the image's surroundings that its outermost cells see


def expected(folder: str, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of every cell: (rows, columns, 23) and (rows, columns, 2)."""
    height, width = picture.shape[:2]
    rows, columns = -(-height // 3), -(-width // 3)
    after = (3 * rows - height + BEYOND, 3 * columns - width + BEYOND)
    mirrored = np.pad(picture, ((BEYOND, after[0]), (BEYOND, after[1]), (0, 0)), mode="symmetric")

    def run(graph: str, name: str, value: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(f"{folder}/{graph}.onnx", providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {name: value})[0])

    image = mirrored.transpose(2, 0, 1)[None].astype(np.float32) / 255
    features = run("trunk", "image", image)[0]
    assert features.shape[1:] == (rows, columns)
    blur, edge = (run(f"{head}_head", "features", features[None]) for head in ("blur", "edge"))
    return blur.reshape(rows, columns, -1), edge.reshape(rows, columns, 2)


@pytest.mark.parametrize("kernels", defocus_fast.available_kernels())
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (3, 3), (31, 40), (97, 2), (100, 386), (390, 389)])
def test_every_edge_gets_its_cells_answer(random_cells: str, size: tuple[int, int], kernels: str) -> None:
    """Sizes around multiples of 3 and beyond a tile of 384 px."""
    picture = texture(*size, seed=3)
    edges = np.random.default_rng(0).random(size) < 0.05
    edges[-1, -1] = edges[0, 0] = True
    blur, edge = expected(random_cells, picture)
    y, x = np.argwhere(edges).T
    threshold = float(np.median(edge[y // 3, x // 3, 1]))
    estimator = defocus_fast.Estimator(
        *size, model=random_cells, precision="float32", kernels=kernels, depth_threshold=threshold
    )
    result = estimator.estimate(picture, edges=edges, bin_probabilities=True)
    # Another order of summation over up to 243 products a layer.
    np.testing.assert_allclose(result.depth_probability, edge[y // 3, x // 3, 1], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(result.depth_edges[y, x], result.depth_probability > threshold)
    assert len(y) < 10 or 0.2 < result.depth_edges[y, x].mean() < 0.8
    np.testing.assert_allclose(result.bin_probabilities, blur[y // 3, x // 3], rtol=0, atol=1e-5)


def test_threads_and_repetition_change_no_bit(random_cells: str) -> None:
    picture = texture(130, 400, seed=5)
    maps = []
    for threads in (1, 2, 3):
        estimator = defocus_fast.Estimator(130, 400, model=random_cells, num_threads=threads)
        maps += [estimator.estimate(picture).map for _ in range(2)]
    for other in maps[1:]:
        np.testing.assert_array_equal(other, maps[0])


def test_bfloat16_is_close(random_cells: str) -> None:
    picture = texture(90, 130)
    try:
        rough = defocus_fast.Estimator(90, 130, model=random_cells, precision="bfloat16", depth_threshold=1.0)
    except defocus_fast.BackendUnavailable as error:
        pytest.skip(str(error))
    exact = defocus_fast.Estimator(90, 130, model=random_cells, precision="float32", depth_threshold=1.0)
    found, reference = (each.estimate(picture, bin_probabilities=True).bin_probabilities for each in (rough, exact))
    # Four layers of values kept to 8 bits: each moves a logit of about 1 by less than 2 ** -8.
    np.testing.assert_allclose(found, reference, rtol=0, atol=4 * 2**-8)
    assert not np.array_equal(found, reference)


RANGES = {"stem": 0.7, "convs.0": 0.5}  # many values lie above and are cut


def in_integers(folder: str, picture: np.ndarray) -> np.ndarray:
    """Probabilities of every cell's bins by the trunk as precision "int8" is to compute it, (rows, columns, 23)."""
    onnx = pytest.importorskip("onnx")
    tensors = onnx.load(f"{folder}/trunk.onnx").graph.initializer
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}
    x = np.pad(picture, ((BEYOND, BEYOND), (BEYOND, BEYOND), (0, 0)), mode="symmetric").transpose(2, 0, 1)
    x = x.astype(np.float64)
    step = np.float32(1 / np.float32(255))
    for name in ("stem", "convs.0", "convs.1"):
        real = weights[name] * step
        largest = np.abs(real).max(axis=(1, 2, 3), keepdims=True)
        integers = np.rint(real / largest * np.float32(127))
        stride = 3 if name == "stem" else 1
        windows = np.lib.stride_tricks.sliding_window_view(x, integers.shape[2:], axis=(1, 2))
        sums = np.einsum("chwij,ocij->ohw", windows[:, ::stride, ::stride], integers, optimize=True)
        x = np.maximum(sums, 0) * largest[:, :, 0] / 127
        if name in RANGES:
            step = np.float32(RANGES[name]) / np.float32(255)
            assert x.max() > RANGES[name]
            x = np.clip(np.rint(x / step), 0, 255)
    session = onnxruntime.InferenceSession(f"{folder}/blur_head.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"features": x[None].astype(np.float32)})[0]).reshape(*x.shape[1:], -1)


def test_int8(random_cells: str, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    shutil.copytree(random_cells, folder)
    with open(folder / "model.txt", "a", encoding="utf-8") as file:
        file.write("int8_ranges: " + " ".join(f"{name} {value}" for name, value in RANGES.items()) + "\n")
    picture = texture(60, 90, seed=4)
    try:
        estimator = defocus_fast.Estimator(60, 90, model=folder, precision="int8")
    except defocus_fast.BackendUnavailable as error:
        pytest.skip(str(error))
    result = estimator.estimate(picture, bin_probabilities=True)
    y, x = result.edges.T // 3
    # The heads' two layers are in bfloat16 where the CPU has it.
    np.testing.assert_allclose(result.bin_probabilities, in_integers(str(folder), picture)[y, x], rtol=0, atol=2**-10)
    exact = expected(random_cells, picture)[0][y, x]
    assert np.abs(result.bin_probabilities - exact).max() > 2**-6  # the reference is not just the float network


def test_there_are_no_patch_networks(random_cells: str) -> None:
    with pytest.raises(ValueError, match='evaluation: model "cells" has no patch networks; accepted: shared'):
        defocus_fast.Estimator(20, 20, model=random_cells, evaluation="patch")


def test_unfit_weights(tmp_path: Path) -> None:
    weights = {"stem": np.zeros((4, 3, 9, 9)), "convs.1": np.zeros((4, 4, 3, 3))}
    for head, outputs in (("blur", 23), ("edge", 2)):
        weights |= {f"{head}.dense1.weight": np.zeros((4, 8)), f"{head}.dense1.bias": np.zeros(8)}
        weights |= {f"{head}.dense2.weight": np.zeros((8, outputs)), f"{head}.dense2.bias": np.zeros(outputs)}
    with pytest.raises(ValueError, match="missing or unknown tensors: .*convs.0.*convs.1"):
        write_model(tmp_path, weights, name="x", trained="")
    weights["convs.0"] = weights.pop("convs.1")[:, :3]
    with pytest.raises(ValueError, match=r"expected convs.0 of shape \(4, 4, 3, 3\), got \(4, 3, 3, 3\)"):
        write_model(tmp_path, weights, name="x", trained="")
