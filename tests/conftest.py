# SPDX-License-Identifier: Apache-2.0
"""What several test files share."""

from __future__ import annotations

import numpy as np
import pytest

from defocus_fast import model_io


def _random_weights(widths: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in model_io.expected_shapes(widths).items():
        # Variance 2 / inputs (He): without biases and normalisation anything else fades or explodes with depth.
        inputs = shape[0] if name.endswith("weight") else np.prod(shape[1:])
        spread = 0.1 if name.endswith("bias") else np.sqrt(2 / inputs)
        weights[name] = (rng.standard_normal(shape) * spread).astype(np.float32)
    return weights


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small model of random weights: every stage runs, without any trained weights."""
    pytest.importorskip("onnx")
    widths = {
        "branch1.conv1": np.empty(8),
        "blur.dense3.bias": np.empty(23),
        **{f"{head}.dense{i}.bias": np.empty(16) for head in ("blur", "edge") for i in (1, 2)},
    }
    folder = tmp_path_factory.mktemp("models") / "random"
    trained = "random weights for tests"
    model_io.write_model(folder, _random_weights(widths), name="random", trained=trained, expected_error=(0.25, 2.0))
    return str(folder)


@pytest.fixture(scope="session")
def random_cells(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same of the architecture "cells": 2 convolutions after the first, 12 channels (not a multiple of 16)."""
    pytest.importorskip("onnx")
    widths = {
        "stem": np.empty(12),
        **{f"convs.{i}": np.empty(0) for i in range(2)},
        **{f"{head}.dense1.bias": np.empty(20) for head in ("blur", "edge")},
        "blur.dense2.bias": np.empty(23),
    }
    folder = tmp_path_factory.mktemp("models") / "cells"
    model_io.write_model(folder, _random_weights(widths), name="cells", trained="random weights for tests")
    return str(folder)
