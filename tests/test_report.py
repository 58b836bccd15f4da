# SPDX-License-Identifier: Apache-2.0
"""bench/report.py turns results into the tables' rows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import report


def spread(q1: float, median: float, q3: float) -> dict[str, float]:
    return {"q1": q1, "median": median, "q3": q3}


def frame(group: str, rounds: int, **facts: Any) -> dict[str, Any]:
    times = {"rounds": rounds, "first_ms": 12.0, "ms": {"frame": 8.0}, "p90": 8.5, "p99": 9.25, "max": 10.0}
    stages = {"detect_edges": 1, "extract_features": 2, "classify_edges": 0.5, "estimate_radii": 1.5, "propagate": 3}
    names = {"image": "photograph", "model": "fast", "precision": "bfloat16", "kernels": "avx512", "edges": 16755}
    return {"group": group, "stages": stages, "height": 360, "width": 480, **times, **names, **facts}


RESULTS: dict[str, Any] = {
    "machine": {
        "threads": 2,
        "processor": {"model name": "A CPU", "cpu family": "26"},
        "kernels": "avx512",
        "versions": {"numpy": "2.0"},
    },
    "date": "2026-01-02",
    "skipped": dict.fromkeys(["test_float32[avx512]", "test_frame[avx512]"], "this CPU does not run avx512"),
    "cases": [
        frame("frames", 30),
        frame("frames", 29, height=1080, width=1920),
        frame("other frames", 9, image="calm"),
        {
            "name": "test_given_edges",
            "group": "peers",
            "task": "given edges",
            "rounds": 3,
            "ms": {"tip22, bfloat16": 250.0, "ONNX Runtime, float32": 5000.0},
            "ratio": {"ONNX Runtime, float32": spread(19.0, 20.5, 21.0)},
            "notes": {"ONNX Runtime, float32": "patches in batches of 64"},
            "goals": {"ONNX Runtime, float32": "18x"},
            "missing": {"PyTorch, bfloat16": "could not import 'torch'"},
        },
        {
            "name": "test_convolution_ceiling",
            "group": "ceiling",
            "unit": "GFLOP",
            "work": {"ours": 40.0, "slow": 10.0, "fast": 20.0},
            "rounds": 5,
            "ms": {"ours": 50.0, "slow": 20.0, "fast": 20.0},
            "ratio": {"slow": spread(0.4, 0.4, 0.4), "fast": spread(0.38, 0.4, 0.45)},
        },
        {"name": "test_call_overhead", "group": "overhead", "rounds": 300, "ms": {"C++": 2.5, "Python": 2.75}},
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
    name = "ONNX Runtime, float32, patches in batches of 64"
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


def test_what_the_benchmarks_write_is_what_the_report_reads(tmp_path: Path) -> None:
    """Of single rounds, in a process of its own: pytest in pytest."""
    names = ("test_frame[fast-(360, 360)]", "test_other_images[fast-calm]", "test_detect_edges[1]")
    cases = [f"{Path(report.__file__).with_name('test_speed.py')}::{name}" for name in names]
    options = ["-q", "-p", "no:cacheprovider", "--seconds", "0", "--results", str(tmp_path / "results.json")]
    # Processes side by side, as PYTEST_ADDOPTS may ask for, are not for measurements.
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    subprocess.run([sys.executable, "-m", "pytest", *options, *cases], check=True, cwd=tmp_path, env=own)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [case["name"] for case in results["cases"]] == [case.partition("::")[2] for case in cases]
    text = report.benchmark_md(results, {})
    assert re.findall(r"^\| (photograph|calm) \|.*\| 1 \| [\d.]+ \|$", text, re.MULTILINE) == ["photograph", "calm"]
    assert "| edges of 1920x1080, 1 channel | detect_edges, uint8 | OpenCV GaussianBlur, Canny, uint8 | 1 |" in text
