# SPDX-License-Identifier: Apache-2.0
"""Settings of every benchmark: the same number of threads for all libraries, and facts for the report."""

from __future__ import annotations

import contextlib
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

import defocus_fast

THREADS = len(os.sched_getaffinity(0))
SKIPPED: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "of measuring per case, after its first round; 0 for a single round"
    parser.addoption("--seconds", type=float, default=2, help=text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "large: not for a quick look")
    for name, module in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
        with contextlib.suppress(ImportError):
            getattr(__import__(name), module)(THREADS)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid.partition("::")[2]
    if report.skipped and isinstance(report.longrepr, tuple):
        SKIPPED[name] = report.longrepr[2].removeprefix("Skipped: ")
    elif report.failed:
        SKIPPED[name] = "failed"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    versions = {}
    packages = ("numpy", "openvino", "onnxruntime", "opencv-contrib-python-headless", "scikit-image", "tensorflow-cpu")
    for package in (*packages, "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {
        key: next((line.split(": ")[1] for line in lines if line.startswith(key)), "")
        for key in ("model name", "cpu family")
    }
    machine_info.update(threads=THREADS, versions=versions, processor=facts, build=defocus_fast.build_config())


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Keep what the report needs: the summaries, not the samples."""
    machine = {key: output_json["machine_info"][key] for key in ("threads", "versions", "processor", "build")}
    cases = [{"name": case["name"], "group": case["group"], **case["extra_info"]} for case in output_json["benchmarks"]]
    kept = {"machine": machine, "date": output_json["datetime"][:10], "skipped": SKIPPED, "cases": cases}
    output_json.clear()
    output_json.update(kept)
