# SPDX-License-Identifier: Apache-2.0
"""Device "cuda" without a GPU: in a build with DEFOCUS_FAST_CUDA_EMULATION device memory is host memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnxruntime
import pytest

import defocus_fast
from defocus_fast import _core


def device_options(
    model: str, height: int, width: int, max_edges: int | None = None, evaluation: str = "shared"
) -> dict[str, Any]:
    """Options of an estimator on the emulated device, its networks evaluated from the ONNX files by ONNX Runtime."""
    if "emulated" not in defocus_fast.build_config()["cuda"]:
        pytest.skip("the CUDA part is not built with DEFOCUS_FAST_CUDA_EMULATION")
    shapes = _core.network_shapes(model, height, width, max_edges, evaluation)
    one_thread = onnxruntime.SessionOptions()
    one_thread.intra_op_num_threads = 1  # others would spin between the graphs
    sessions = {
        name: onnxruntime.InferenceSession(f"{model}/{name}.onnx", one_thread, providers=["CPUExecutionProvider"])
        for name in shapes
    }

    def values(pointer: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape)

    def enqueue(graph: str, tensors: list[int], stream: int) -> None:
        session = sessions[graph]
        pointers = iter(tensors)  # of the inputs, then of the outputs
        inputs = {
            tensor.name: values(next(pointers), tuple(shapes[graph].get(size, size) for size in tensor.shape))
            for tensor in session.get_inputs()
        }
        for pointer, result in zip(pointers, session.run(None, inputs), strict=True):
            values(pointer, result.shape)[...] = result

    return {"device": "cuda", "networks": enqueue, "max_edges": max_edges, "evaluation": evaluation}
