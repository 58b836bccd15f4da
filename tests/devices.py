# SPDX-License-Identifier: Apache-2.0
"""Devices that tests/test_gpu.py runs on: the emulated one, and GPUs by the library that makes the arrays."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import device_arrays
import emulated
import numpy as np
import pytest
import tolerances

import defocus_fast
from defocus_fast import _tensorrt


@dataclass
class Device:
    options: Callable[..., dict[str, Any]]  # of an estimator: model folder, height, width, max_edges
    to_device: Callable[[np.ndarray], Any]
    to_host: Callable[[Any], np.ndarray]  # of to_device's arrays and DeviceArray; waits for the current stream only
    streams: list[Any]
    free_bytes: Callable[[], int]
    sizes: list[tuple[int, int]]
    probability: float  # tolerance of the networks' probabilities

    def estimator(self, model: str, height: int, width: int, **options: Any) -> defocus_fast.Estimator:
        folder = str(Path(defocus_fast.__file__).parent / "models" / model)
        device = self.options(folder, height, width, height * width)
        return defocus_fast.Estimator(height, width, model=folder, **device, **options)


def make(name: str) -> Device:
    """Skips the test, and says why, where there is no such device."""
    return {"emulated": _emulated, "cupy": _cupy, "torch": _torch}[name]()


SIZES = [(1, 1), (63, 65), (97, 160)]


def _emulated() -> Device:
    def to_host(array: Any) -> np.ndarray:
        return device_arrays.by_dlpack(array) if isinstance(array, defocus_fast.DeviceArray) else array.array

    def free_bytes() -> int:
        with open("/proc/self/statm") as file:
            return -int(file.read().split()[1]) * 4096

    return Device(
        emulated.device_options,
        device_arrays.DLPackArray,
        to_host,
        [None, 77],
        free_bytes,
        SIZES,
        tolerances.PROBABILITY_DEVICE,
    )


def _gpu(**of_library: Any) -> Device:
    return Device(
        sizes=[*SIZES, (1080, 1920)], probability=tolerances.PROBABILITY_GPU, options=_gpu_options, **of_library
    )


def _gpu_options(model: str, height: int, width: int, max_edges: int) -> dict[str, Any]:
    return {"device": "cuda", "max_edges": max_edges, "networks": networks()}


def networks() -> Any:
    """Return what evaluates the networks on a GPU: None for TensorRT; PyTorch where it is not installed."""
    if any(importlib.util.find_spec(package) for package in _tensorrt.PACKAGES) or not importlib.util.find_spec(
        "torch"
    ):
        return None
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    try:
        return importlib.import_module("torch_networks").TorchNetworks()
    finally:
        sys.path.pop(0)


@functools.cache
def _missing() -> str:
    """What keeps this build from running on a GPU of this machine."""
    built = defocus_fast.build_config()["cuda"]
    if not built.startswith("nvcc"):
        return f"the CUDA part is {built}: needs -DDEFOCUS_FAST_CUDA=ON"
    try:
        defocus_fast.Estimator(1, 1, device="cuda", networks=networks())
    except defocus_fast.BackendUnavailable as error:
        return str(error)
    return ""


def _require_gpu() -> None:
    if _missing():
        pytest.skip(_missing())


def _cupy() -> Device:
    _require_gpu()
    cupy = pytest.importorskip("cupy")
    return _gpu(
        to_device=cupy.asarray,
        to_host=lambda array: cupy.asnumpy(cupy.asarray(array)),
        streams=[cupy.cuda.Stream(non_blocking=True) for _ in range(2)],
        free_bytes=lambda: cupy.cuda.runtime.memGetInfo()[0],
    )


def _torch() -> Device:
    _require_gpu()
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU")
    return _gpu(
        to_device=lambda array: torch.from_numpy(array.copy()).cuda(),
        to_host=lambda array: torch.from_dlpack(array).cpu().numpy(),
        streams=[torch.cuda.Stream() for _ in range(2)],
        free_bytes=lambda: torch.cuda.mem_get_info()[0],
    )
