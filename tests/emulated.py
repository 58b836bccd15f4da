# SPDX-License-Identifier: Apache-2.0
"""Device "cuda" without a GPU: in a build with DEFOCUS_FAST_CUDA_EMULATION device memory is host memory."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import openvino
import pytest

import defocus_fast
from defocus_fast import _core


@functools.cache
def _openvino_core() -> openvino.Core:
    """One for all tests: of several, which go in any order, a freed stack for signals may be left behind."""
    return openvino.Core()


def device_options(model: str, height: int, width: int, max_edges: int = 0, evaluation: str = "auto") -> dict[str, Any]:
    """Options of an estimator on the emulated device, its networks evaluated from the ONNX files by OpenVINO."""
    if "emulated" not in defocus_fast.build_config()["cuda"]:
        pytest.skip("the CUDA part is not built with DEFOCUS_FAST_CUDA_EMULATION")
    core = _openvino_core()
    graphs = {}
    for name, sizes in _core.network_shapes(model, height, width, max_edges, evaluation).items():
        graph = core.read_model(f"{model}/{name}.onnx")
        shapes = {}
        for tensor in graph.inputs:
            free = iter(sizes.values())
            shapes[tensor] = openvino.PartialShape(
                [next(free) if dimension.is_dynamic else dimension for dimension in tensor.partial_shape]
            )
        graph.reshape(shapes)
        graphs[name] = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def values(pointer: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape)

    def enqueue(graph: str, tensors: list[int], stream: int) -> None:
        compiled = graphs[graph]
        arrays = [
            values(pointer, tuple(tensor.shape))
            for pointer, tensor in zip(tensors, [*compiled.inputs, *compiled.outputs], strict=True)
        ]
        inputs = len(compiled.inputs)
        result = compiled(arrays[:inputs])
        for array, output in zip(arrays[inputs:], compiled.outputs, strict=True):
            array[...] = result[output]

    return {"device": "cuda", "networks": enqueue, "max_edges": max_edges or None, "evaluation": evaluation}
