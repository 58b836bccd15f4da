# SPDX-License-Identifier: Apache-2.0
"""What several test files share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from defocus_fast import _tensorrt, cli, model_io


@pytest.fixture(autouse=True)
def _no_tensorrt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Device "auto" is the CPU but in the tests for a GPU, also where there is one, or an emulated one."""
    if not request.node.get_closest_marker("gpu"):
        for name in _tensorrt.PACKAGES:
            monkeypatch.setitem(sys.modules, name, None)  # import raises ModuleNotFoundError


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where there must be a GPU, no test that needs one is skipped."""
    report = yield
    if report.skipped and item.get_closest_marker("gpu") and os.environ.get("DEFOCUS_FAST_REQUIRE_GPU") == "1":
        report.outcome = "failed"
        report.longrepr = f"DEFOCUS_FAST_REQUIRE_GPU=1, but skipped: {call.excinfo.value if call.excinfo else ''}"
    return report


def _write_random_model(factory: pytest.TempPathFactory, name: str, widths: dict[str, np.ndarray]) -> str:
    pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    weights = {}
    for key, shape in model_io.expected_shapes(widths).items():
        # Variance 2 / inputs (He): without biases and normalisation anything else fades or explodes with depth.
        inputs = shape[0] if key.endswith("weight") else np.prod(shape[1:])
        spread = 0.1 if key.endswith("bias") else np.sqrt(2 / inputs)
        weights[key] = (rng.standard_normal(shape) * spread).astype(np.float32)
    folder = factory.mktemp("models") / name
    model_io.write_model(folder, weights, name=name, trained="random weights for tests", expected_error=(0.25, 2.0))
    return str(folder)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small model of random weights: every stage runs, without any trained weights."""
    hidden = {f"{head}.dense{i}.bias": np.empty(16) for head in ("blur", "edge") for i in (1, 2)}
    widths = {"branch1.conv1": np.empty(8), "blur.dense3.bias": np.empty(23), **hidden}
    return _write_random_model(tmp_path_factory, "random", widths)


@pytest.fixture(scope="session")
def random_cells(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same of the architecture "cells": 2 convolutions after the first, 12 channels (not a multiple of 16)."""
    hidden = {f"{head}.dense1.bias": np.empty(20) for head in ("blur", "edge")}
    convolutions = {f"convs.{i}": np.empty(0) for i in range(2)}
    widths = {"stem": np.empty(12), "blur.dense2.bias": np.empty(23), **convolutions, **hidden}
    return _write_random_model(tmp_path_factory, "cells", widths)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def estimate(random_model: str, folder: Path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        common = ["--model", random_model, "--precision", "float32", "--threads", "2"]
        result = CliRunner().invoke(cli.main, ["estimate", *common, *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
