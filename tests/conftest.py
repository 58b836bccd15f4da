# SPDX-License-Identifier: Apache-2.0
"""What several test files share."""

from __future__ import annotations

import numpy as np
import pytest

from defocus_fast import model_io


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small model of random weights: every stage runs, without any trained weights."""
    pytest.importorskip("onnx")
    shapes = model_io.expected_shapes(
        {
            "branch1.conv1": np.empty(8),
            "blur.dense3.bias": np.empty(23),
            **{f"{head}.dense{i}.bias": np.empty(16) for head in ("blur", "edge") for i in (1, 2)},
        }
    )
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in shapes.items():
        # Variance 2 / inputs (He): without biases and normalisation anything else fades or explodes with depth.
        inputs = shape[0] if name.endswith("weight") else np.prod(shape[1:])
        spread = 0.1 if name.endswith("bias") else np.sqrt(2 / inputs)
        weights[name] = (rng.standard_normal(shape) * spread).astype(np.float32)
    folder = tmp_path_factory.mktemp("models") / "random"
    model_io.write_model(folder, weights, name="random", trained="random weights for tests", error=(0.25, 2.0))
    return str(folder)
