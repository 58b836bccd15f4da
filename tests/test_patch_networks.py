# SPDX-License-Identifier: Apache-2.0
"""Both forms of the networks give the same: features once per image, as the estimator computes them, and whole patches
through the literal networks of the paper, here by ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tolerances
from images import texture

import defocus_fast
from defocus_fast import Estimator, model_io

onnxruntime = pytest.importorskip("onnxruntime")

PATCH = max(model_io.CROPS)


def crops_at(image: np.ndarray, edges: np.ndarray, offset: int) -> dict[str, np.ndarray]:
    """Return the three crops of the patch around every edge (row, column), (n, 3, side, side) each."""
    margin = PATCH // 2
    extended = np.pad(image.astype(np.float32) / 255, [(margin, margin), (margin, margin), (0, 0)], "symmetric")
    patches = np.stack([extended[y : y + PATCH, x : x + PATCH].transpose(2, 0, 1) for y, x in edges])
    crops = {}
    for side in model_io.CROPS:
        start = (PATCH - side) // 2 + (offset if side < PATCH else 0)
        crops[f"crop{side}"] = np.ascontiguousarray(patches[..., start : start + side, start : start + side])
    return crops


@pytest.fixture(scope="module")
def shifted_model(random_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The random model with the crops of the published weights."""
    folder = tmp_path_factory.mktemp("models") / "shifted"
    model_io.write_model(folder, model_io.read_weights(random_model), name="shifted", trained="not", crop_offset=1)
    return str(folder)


@pytest.mark.parametrize("model", ["tip22", "random_model", "shifted_model"])
def test_shared_features_give_what_the_literal_networks_give(model: str, request: pytest.FixtureRequest) -> None:
    """At every corner and border, and inside."""
    if model == "tip22":
        folder = Path(defocus_fast.__file__).parent / "models" / model
    else:
        folder = Path(request.getfixturevalue(model))
    height, width = 37, 45
    image = texture(height, width, seed=5)
    mask = np.random.default_rng(5).random((height, width)) < 0.02
    mask[np.ix_([0, 1, 18, -1], [0, 22, -2, -1])] = True
    options = {"precision": "float32", "evaluation": "shared"}
    found = Estimator(height, width, model=str(folder), **options).estimate(image, edges=mask, bin_probabilities=True)
    np.testing.assert_array_equal(found.edges, np.argwhere(mask))
    offset = int("crop_offset: 1" in (folder / "model.txt").read_text().splitlines())
    assert offset == (model == "shifted_model")
    crops = crops_at(image, found.edges, offset)
    blur, edge = (
        onnxruntime.InferenceSession(folder / f"{head}_patch.onnx", providers=["CPUExecutionProvider"]).run(None, crops)
        for head in ("blur", "edge")
    )
    np.testing.assert_allclose(found.bin_probabilities, blur[0], rtol=0, atol=tolerances.PROBABILITY_DEVICE)
    np.testing.assert_allclose(found.depth_probability, edge[0][:, 1], rtol=0, atol=tolerances.PROBABILITY_DEVICE)
