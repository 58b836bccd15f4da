# SPDX-License-Identifier: Apache-2.0
"""Settings of every benchmark: the same number of threads for all libraries, and what the report reads."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

import defocus_fast

THREADS = len(os.sched_getaffinity(0))
CASES: list[dict[str, Any]] = []
SKIPPED: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "of measuring per case, after its first round; 0 for a single round"
    parser.addoption("--seconds", type=float, default=2, help=text)
    parser.addoption("--results", type=Path, help="JSON file to write, one case a line")


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


def machine() -> dict[str, Any]:
    versions = {}
    opencv = "opencv-contrib-python-headless"
    packages = ("av", "numpy", "onnxruntime", opencv, "scikit-image", "tensorflow-cpu", "torch")
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = {
        key: next((line.split(": ")[1] for line in lines if line.startswith(key)), "")
        for key in ("model name", "cpu family")
    }
    kernels = defocus_fast.available_kernels()[0]
    return {"threads": THREADS, "processor": processor, "kernels": kernels, "versions": versions}


def pytest_sessionfinish(session: pytest.Session) -> None:
    if file := session.config.getoption("--results"):
        facts = {"machine": machine(), "date": str(datetime.date.today()), "skipped": SKIPPED}
        lines = ",\n".join(json.dumps(case) for case in CASES)
        file.write_text(f'{json.dumps(facts)[:-1]}, "cases": [\n{lines}\n]}}\n')
