# SPDX-License-Identifier: Apache-2.0
"""Device "cuda" without a GPU: in a build with DEFOCUS_FAST_CUDA_EMULATION device memory is host memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import openvino
import pytest

import defocus_fast
from defocus_fast import _core


def device_options(model: str, height: int, width: int, max_edges: int = 0) -> dict[str, Any]:
    """Options of an estimator on the emulated device, its networks evaluated from the ONNX files by OpenVINO."""
    if "emulated" not in defocus_fast.build_config()["cuda"]:
        pytest.skip("the CUDA part is not built with DEFOCUS_FAST_CUDA_EMULATION")
    image_height, image_width, head_batch = _core.network_shapes(model, height, width, max_edges)
    core = openvino.Core()
    graphs = {}
    for name in ("trunk", "edge_head", "blur_head"):
        graph = core.read_model(f"{model}/{name}.onnx")
        declared = graph.input(0).partial_shape
        shape = [1, 3, image_height, image_width] if name == "trunk" else [head_batch, *list(declared)[1:]]
        graph.reshape(openvino.PartialShape(shape))
        graphs[name] = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def values(pointer: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape)

    def enqueue(graph: str, tensors: list[int], stream: int) -> None:
        compiled = graphs[graph]
        result = compiled([values(tensors[0], tuple(compiled.input(0).shape))])
        for pointer, output in zip(tensors[1:], compiled.outputs, strict=True):
            values(pointer, tuple(output.shape))[...] = result[output]

    return {"device": "cuda", "networks": enqueue, "max_edges": max_edges or None}
