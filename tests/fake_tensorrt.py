# SPDX-License-Identifier: Apache-2.0
"""In place of the packages ``tensorrt`` and ``tensorrt_rtx`` on a machine without a GPU: as much of their API as the
library uses, over host memory, with ONNX Runtime in place of their kernels.

Where TensorRT returns False or None and logs why, so does this. An engine is for one version and one compute
capability; TensorRT only warns of one that was built for another GPU of it. Its tensors are listed in another order
than the ONNX file's: nobody promises one.
"""

from __future__ import annotations

import ctypes
import json
import os
import types
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import onnx
import onnxruntime


def make(name: str, version: str = "1.0") -> Any:
    """Return a package of this name and version."""
    rtx = name.startswith("tensorrt_rtx")

    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class ILogger:
        pass

    ILogger.Severity = Severity  # type: ignore[attr-defined]

    class BuilderFlag(Enum):
        TF32, REQUIRE_USER_ALLOCATION = range(2)

    class ComputeCapability(Enum):
        NONE, CURRENT, SM75, SM80, SM86, SM89, SM120, SM121 = range(8)

    class Config:
        progress_monitor: Any = None

        def __init__(self) -> None:
            self.flags = {BuilderFlag.TF32}
            self.targets: list[ComputeCapability] = []

        def clear_flag(self, flag: BuilderFlag) -> None:
            self.flags.discard(flag)

        def set_flag(self, flag: BuilderFlag) -> None:
            assert rtx
            self.flags.add(flag)

        @property
        def num_compute_capabilities(self) -> int:
            return len(self.targets)

        @num_compute_capabilities.setter
        def num_compute_capabilities(self, count: int) -> None:
            assert rtx, "TensorRT builds for the GPU that is there"
            self.targets = [ComputeCapability.NONE] * count

        def set_compute_capability(self, target: ComputeCapability, index: int) -> bool:
            self.targets[index] = target
            return True

    class Tensor:
        def __init__(self, name: str, shape: list[int], dtype: np.dtype[Any]) -> None:
            self.name, self.shape, self.dtype = name, tuple(shape), dtype

    class Network:
        def __init__(self) -> None:
            self.onnx = b""

        def parsed(self, model: bytes) -> None:
            self.onnx = model
            session = _session(model)
            self.inputs, self.outputs = (
                [Tensor(each.name, each.shape, _DTYPES[each.type]) for each in side]
                for side in (session.get_inputs(), session.get_outputs())
            )
            self.num_inputs, self.num_outputs = len(self.inputs), len(self.outputs)

        def get_input(self, i: int) -> Tensor:
            return self.inputs[i]

        def get_output(self, i: int) -> Tensor:
            return self.outputs[i]

    class OnnxParser:
        def __init__(self, network: Network, logger: Any) -> None:
            self.network, self.logger = network, logger

        def parse(self, model: bytes) -> bool:
            try:
                self.network.parsed(_with_shapes(model))
            except Exception as error:
                self.logger.log(Severity.ERROR, str(error))
                return False
            return True

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Network:
            assert flags == 2, "strongly typed"
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
            assert config.flags == ({BuilderFlag.REQUIRE_USER_ALLOCATION} if rtx else set())
            package.builds += 1
            if package.build_fails:
                self.logger.log(Severity.ERROR, "no implementation for node conv_1")
                return None
            monitor = config.progress_monitor
            monitor.phase_start("Building engine", None, 2)
            monitor.phase_start("Timing", "Building engine", 7)
            monitor.step_complete("Timing", 0)
            monitor.phase_finish("Timing")
            monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
            target = config.targets[0].name if rtx else f"SM{_gpu()}"
            return json.dumps([name, version, target, _gpu_name()]).encode() + b"\n" + network.onnx

    class Context:
        def __init__(self, network: Network, logger: Any) -> None:
            self.logger, self.session = logger, _session(network.onnx)
            self.tensors = {tensor.name: tensor for tensor in network.inputs + network.outputs}
            self.inputs = [tensor.name for tensor in network.inputs]
            self.addresses: dict[str, int] = {}

        def set_tensor_address(self, tensor: str, pointer: int) -> bool:
            if tensor not in self.tensors or pointer == 0 or pointer % 256 != 0:
                self.logger.log(Severity.ERROR, f"{tensor} at {pointer}: unknown, null or misaligned")
                return False
            self.addresses[tensor] = pointer
            return True

        def execute_async_v3(self, stream: int) -> bool:
            if missing := set(self.tensors) - set(self.addresses):
                self.logger.log(Severity.ERROR, f"no address for {missing}")
                return False
            outputs = [each.name for each in self.session.get_outputs()]
            values = self.session.run(outputs, {each: self.view(each) for each in self.inputs})
            for output, value in zip(outputs, values, strict=True):
                self.view(output)[...] = value
            self.addresses.clear()  # so that an address that is not set again is missed
            return True

        def view(self, tensor: str) -> np.ndarray:
            shape, dtype = self.tensors[tensor].shape, self.tensors[tensor].dtype
            size = int(np.prod(shape)) * dtype.itemsize
            memory = (ctypes.c_char * size).from_address(self.addresses[tensor])
            return np.frombuffer(memory, dtype).reshape(shape)

    class Engine:
        def __init__(self, network: Network, logger: Any) -> None:
            self.network, self.logger = network, logger
            tensors = reversed(network.inputs + network.outputs)
            self.tensors = {tensor.name: tensor for tensor in tensors if tensor.name not in package.hidden_tensors}
            self.num_io_tensors = len(self.tensors)

        def get_tensor_name(self, i: int) -> str:
            return list(self.tensors)[i]

        def get_tensor_shape(self, tensor: str) -> tuple[int, ...]:
            return self.tensors[tensor].shape

        def get_tensor_dtype(self, tensor: str) -> np.dtype[Any]:
            return self.tensors[tensor].dtype

        def create_execution_context(self) -> Context | None:
            if package.no_memory:
                self.logger.log(Severity.ERROR, "out of memory")
                return None
            return Context(self.network, self.logger)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            header, _, model = plan.partition(b"\n")
            *known, gpu = json.loads(header)
            if known != [name, version, f"SM{_gpu()}"] or package.refuses:
                self.logger.log(Severity.ERROR, f"built for {header.decode()}")
                return None
            if gpu != _gpu_name() and not rtx:
                self.logger.log(
                    Severity.WARNING, "an engine file across different models of devices is not recommended"
                )
            network = Network()
            network.parsed(model)
            return Engine(network, self.logger)

    class NetworkDefinitionCreationFlag(IntEnum):
        STRONGLY_TYPED = 1

    class IProgressMonitor:
        pass

    package: Any = types.ModuleType(name)
    package.__version__ = version
    package.builds = 0
    package.build_fails = package.no_memory = package.refuses = False
    package.hidden_tensors = set()
    package.float32, package.float16 = np.dtype(np.float32), np.dtype(np.float16)
    for each in (ILogger, BuilderFlag, OnnxParser, Builder, Runtime, NetworkDefinitionCreationFlag, IProgressMonitor):
        setattr(package, each.__name__, each)
    if rtx:
        package.ComputeCapability = ComputeCapability
    return package


_DTYPES = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}


def _gpu() -> str:
    """Of the emulated device (tests/cuda/emulation.hpp), as "86" for 8.6."""
    return os.environ.get("EMULATION_DEVICE", "9.0").replace(".", "")


def _gpu_name() -> str:
    return os.environ.get("EMULATION_GPU", "Emulated GPU")


def _with_shapes(model: bytes) -> bytes:
    """Outputs have names for their sizes in the files; TensorRT computes them from the inputs'."""
    parsed = onnx.load_model_from_string(model)
    for output in parsed.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(parsed, strict_mode=True)
    serialised: bytes = inferred.SerializeToString()
    return serialised


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
