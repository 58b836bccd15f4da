# SPDX-License-Identifier: Apache-2.0
"""bench/report.py turns results into the tables' rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import report


def times(median: float, n: int, **others: float) -> dict[str, float]:
    return {"n": n, "q1": median, "median": median, "q3": median, "p90": median, "p99": median, "max": median, **others}


def frame(group: str, n: int, **facts: Any) -> dict[str, Any]:
    ms = {"frame": times(8.0, n, p90=8.5, p99=9.25, max=10.0)}
    stages = {"detect_edges": 1.0, "extract_features": 2.0, "classify": 0.5, "estimate": 1.5, "propagate": 3.0}
    names = {"image": "photograph", "model": "fast", "precision": "bfloat16", "kernels": "avx512", "edges": 16755}
    size = {"height": 360, "width": 480}
    return {"group": group, "first_ms": 12.0, "ms": ms, "stages": stages, "missing": {}, **names, **size, **facts}


RESULTS: dict[str, Any] = {
    "machine": {
        "threads": 2,
        "versions": {"numpy": "2.0"},
        "processor": {"model name": "A CPU", "cpu family": "26"},
        "build": {"kernels": "avx512, avx2, portable"},
    },
    "date": "2026-01-02",
    "skipped": dict.fromkeys(["test_float32[avx512]", "test_frame[avx512]"], "this CPU does not run avx512"),
    "cases": [
        frame("frames", 30),
        frame("frames", 29, height=1080, width=1920),
        frame("other frames", 9, picture="calm"),
        {
            "name": "test_given_edges",
            "group": "peers",
            "task": "given edges",
            "ms": {"tip22, bfloat16": times(250.0, 3), "ONNX Runtime, bfloat16": times(5000.0, 3)},
            "ratio": {"ONNX Runtime, bfloat16": times(20.5, 3, q1=19.0, q3=21.0)},
            "notes": {"ONNX Runtime, bfloat16": "patches in batches of 64"},
            "goals": {"ONNX Runtime, bfloat16": "18x"},
            "missing": {"PyTorch, bfloat16": "could not import 'torch'"},
        },
        {
            "name": "test_convolution_ceiling",
            "group": "ceiling",
            "unit": "GFLOP",
            "work": {"ours": 40.0, "slow": 10.0, "fast": 20.0},
            "ms": {"ours": times(50.0, 5), "slow": times(20.0, 5), "fast": times(20.0, 5)},
            "ratio": {"slow": times(0.4, 5), "fast": times(0.4, 5, q1=0.38, q3=0.45)},
            "missing": {},
        },
        {
            "name": "test_call_overhead",
            "group": "overhead",
            "ms": {"C++": times(2.5, 300), "Python": times(2.75, 300)},
            "missing": {},
        },
    ],
}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    text: str = report.benchmark_md(RESULTS, {"A plot": Path("docs/a.svg")})
    return text.splitlines()


def test_frames_have_percentiles_of_enough_calls_only(lines: list[str]) -> None:
    start = (
        "| photograph | avx512 | {} | fast | bfloat16 | 16,755 | 1 | 2 | 0.5 | 1.5 | 3 | 8 | {} | 10 | 12 | {} | 125 |"
    )
    assert start.format("480x360", "8.5 | 9.25", 30) in lines
    assert start.format("1920x1080", "8.5 | -", 29) in lines
    assert start.replace("photograph", "calm").format("480x360", "- | -", 9) in lines


def test_peers_are_named_with_their_rounds_and_the_spread_of_the_ratio(lines: list[str]) -> None:
    ours = "| given edges | tip22, bfloat16 |"
    name = "ONNX Runtime, bfloat16, patches in batches of 64"
    assert f"{ours} {name} | 3 | 250 | 5,000 | 20.5x | 19 to 21 | 18x |" in lines
    assert f"{ours} PyTorch, bfloat16 | 0 | - | not run | - | - |  |" in lines


def test_the_ceiling_is_the_best_of_the_others(lines: list[str]) -> None:
    assert "| ours | 800 GFLOP/s | fast | 1,000 GFLOP/s | 80% | 76% to 90% |" in lines


def test_overhead_is_per_call(lines: list[str]) -> None:
    (line,) = (line for line in lines if line.startswith("`estimate_into`"))
    assert "300 rounds of 100 calls: 25.0 us from C++, 27.5 us from Python, 2.5 us more" in line


def test_what_was_not_run_is_listed_with_its_reason(lines: list[str]) -> None:
    assert lines[-2:] == [
        "- this CPU does not run avx512: test_float32[avx512]; test_frame[avx512]",
        "- could not import 'torch': PyTorch, bfloat16 in test_given_edges",
    ]


def test_the_readme_has_frames_of_record_only() -> None:
    rows = report.readme_frames(RESULTS).splitlines()[2:]
    assert rows == [
        "| 480x360 | fast | bfloat16 | 16,755 | 8 | 9.25 | 125 |",
        "| 1920x1080 | fast | bfloat16 | 16,755 | 8 | - | 125 |",
    ]
