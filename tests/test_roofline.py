# SPDX-License-Identifier: Apache-2.0
"""bench/roofline.py counts what is known from elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import defocus_fast


@pytest.fixture
def roofline(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    pytest.importorskip("onnx")
    folder = Path(__file__).parents[1] / "bench"
    monkeypatch.syspath_prepend(str(folder))
    import roofline

    yield roofline
    del sys.modules["roofline"]


def test_operations_of_the_paper_s_networks(roofline: ModuleType) -> None:
    """Multiply-adds of every layer by hand, per pixel of the trunk and per edge of a head."""
    trunk = sum(64 * 9 * inputs for inputs in (3, 64, 64, 64) * 2)  # branch 1, twice
    trunk += sum(64 * 9 * inputs for inputs in (3, 64, 64)) + 64 * 64  # branch 2
    trunk += sum(64 * 9 * inputs for inputs in (3, 64, 64, 64))  # branch 3
    trunk += 64 * 9 * (128 + 64) + 64 * 9 * (192 + 64)  # both heads' first layers
    convolutions = 64 * 64 * (9 * 9 + 9 + 1)  # 5x5 -> 3x3 -> 1x1, then 1x1
    blur = convolutions + 64 * 300 + 300 * 150 + 150 * 23
    folder = Path(defocus_fast.__file__).parent / "models" / "tip22"
    graph = roofline.Network(folder / "trunk.onnx", [1, 3, 1052, 1052])
    done = sum(work.operations for work in graph.work("trunk", 4, 1)) / 2 / 1024**2
    assert trunk <= done < 1.03 * trunk  # the first layers compute a margin
    graph = roofline.Network(folder / "blur_head.onnx", [10, 64, 5, 5])
    assert sum(work.operations for work in graph.work("head", 4, 1)) / 2 == 10 * blur


def test_half_precision_halves_the_networks_bytes_only(roofline: ModuleType) -> None:
    single, half = (list(roofline.frame("fast", 1080, 1920, element, 1000)) for element in (4, 2))

    def total(works: list[object], stage: str) -> float:
        return sum(work.bytes * work.launches for work in works if work.stage == stage)

    assert total(single, "propagate") == total(half, "propagate")
    assert 1.9 < total(single, "extract_features") / total(half, "extract_features") <= 2
    assert [work.operations for work in single] == [work.operations for work in half]


def test_the_table_says_that_nothing_was_measured(roofline: ModuleType) -> None:
    text = roofline.markdown()
    assert "computed, not measured" in text.splitlines()[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == len(defocus_fast.shipped_models()) * 2 * 6
