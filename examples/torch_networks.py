# SPDX-License-Identifier: Apache-2.0
"""The networks on a GPU by PyTorch, for machines where TensorRT is not to be had (TensorRT-RTX knows no H100):
``Estimator(height, width, device="cuda", networks=TorchNetworks())``.

Evaluates the graphs of a model folder node by node. That takes more launches, and more reads and writes of device
memory, than an engine does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

LEGACY_DEFAULT_STREAM = (0, 1)  # and cudaStreamLegacy. ExternalStream(0) would be a new stream, which nobody waits for


@functools.cache
def pool() -> torch.cuda.MemPool:
    """Return the memory of all evaluations, for as long as the process lives.

    Frames are replayed as CUDA graphs, so nobody else may be given this memory as long as they may be; and a pool must
    not be freed by Python's garbage collector while another is in use.
    """
    return torch.cuda.MemPool()


class TorchNetworks:
    """What ``Estimator(networks=...)`` asks for, see defocus_fast/networks.hpp."""

    def __init__(self) -> None:
        self._graphs: dict[str, _Graph] = {}

    def prepare(
        self, model: str, precision: str, graphs: Mapping[str, Mapping[str, int]], compute_capability: int, gpu: str
    ) -> None:
        """Load the graphs; `precision` is "float32" or "float16", `graphs` has the sizes of their free dimensions."""
        dtype = {"float32": torch.float32, "float16": torch.float16}[precision]
        self._graphs = {name: _Graph(Path(model) / f"{name}.onnx", sizes, dtype) for name, sizes in graphs.items()}

    def __call__(self, graph: str, tensors: list[int], stream: int) -> None:
        """Enqueue one evaluation; `tensors` are device pointers of the inputs, then the outputs."""
        on = torch.cuda.default_stream() if stream in LEGACY_DEFAULT_STREAM else torch.cuda.ExternalStream(stream)
        with (
            torch.inference_mode(),
            torch.cuda.stream(on),
            torch.cuda.use_mem_pool(pool()),
            torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False),
        ):
            self._graphs[graph].enqueue(tensors)


class _Graph:
    """One ONNX file on the GPU."""

    def __init__(self, path: Path, sizes: Mapping[str, int], dtype: torch.dtype, device: str = "cuda") -> None:
        model = onnx.load(path)
        for tensor in model.graph.input:
            for dimension in tensor.type.tensor_type.shape.dim:
                if dimension.dim_param:
                    dimension.dim_value = sizes[dimension.dim_param]
        for tensor in model.graph.output:  # names for sizes; computed from the inputs'
            tensor.type.tensor_type.ClearField("shape")
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        self._dtype = dtype
        self._inputs, self._outputs = (
            [_name_and_shape(t) for t in side] for side in (model.graph.input, model.graph.output)
        )
        self._constants: dict[str, Tensor] = {}
        for weight in model.graph.initializer:
            array = numpy_helper.to_array(weight)
            if array.dtype == np.float32:
                tensor = torch.from_numpy(array.copy()).to(device, dtype)
                # Channels last is what tensor cores read.
                self._constants[weight.name] = (
                    tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
                )
            else:  # starts, ends and axes of slices
                self._constants[weight.name] = torch.from_numpy(array.copy())
        self._nodes = [
            (OPERATORS[node.op_type], {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}, node)
            for node in model.graph.node
        ]

    def enqueue(self, tensors: list[int]) -> None:
        arrays = [
            torch.as_tensor(_Pointer(pointer, shape, self._dtype), device="cuda")
            for pointer, (_, shape) in zip(tensors, self._inputs + self._outputs, strict=True)
        ]
        for array, value in zip(arrays[len(self._inputs) :], self(arrays[: len(self._inputs)]), strict=True):
            array.copy_(value)

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        values = self._constants | {name: array for (name, _), array in zip(self._inputs, inputs, strict=True)}
        for operator, attributes, node in self._nodes:
            values[node.output[0]] = operator(*(values[name] for name in node.input), **attributes)
        return [values[name] for name, _ in self._outputs]


def _name_and_shape(tensor: Any) -> tuple[str, tuple[int, ...]]:
    return tensor.name, tuple(dimension.dim_value for dimension in tensor.type.tensor_type.shape.dim)


class _Pointer:
    """Device memory, for ``torch.as_tensor``."""

    def __init__(self, pointer: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        typestr = {torch.float32: "<f4", torch.float16: "<f2"}[dtype]
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (pointer, False), "version": 2}


def _convolution(x: Tensor, weight: Tensor, *, strides: list[int], dilations: list[int]) -> Tensor:
    return F.conv2d(x, weight, None, strides, 0, dilations)


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor) -> Tensor:
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        x = x[(slice(None),) * axis + (slice(start, end),)]
    return x


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Conv": _convolution,
    "Flatten": lambda x, axis=1: x.reshape(math.prod(x.shape[:axis]), -1),
    "Gemm": lambda x, weight, bias, transA=0: torch.addmm(bias, x.T if transA else x, weight),
    "MaxPool": lambda x, kernel_shape, strides: F.max_pool2d(x, kernel_shape, strides),
    "Relu": torch.relu_,
    "Slice": _slice,
    "Softmax": lambda x, axis: torch.softmax(x, axis),
}
