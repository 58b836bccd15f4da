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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seconds", type=float, default=1.5, help="of measuring per case, after its first call")


def pytest_configure() -> None:
    for name, module in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
        with contextlib.suppress(ImportError):
            getattr(__import__(name), module)(THREADS)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    versions = {}
    for package in ("numpy", "openvino", "onnxruntime", "opencv-contrib-python-headless", "scikit-image", "torch"):
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
