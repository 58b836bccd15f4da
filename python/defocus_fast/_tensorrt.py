# SPDX-License-Identifier: Apache-2.0
"""The networks on a GPU: TensorRT engines of a model folder's graphs, built when first needed and kept in a cache.

Serves the packages ``tensorrt`` (every GPU; an engine takes minutes, on the GPU that it is for, and is for no other
model of GPU) and ``tensorrt_rtx`` (GeForce and RTX GPUs; an engine takes a second, on any machine, and is finished by
the driver's compiler when loaded).

Shapes are static: a frame is captured into a CUDA graph, which kernels specialised later would invalidate.

An engine file is three lines and the serialised engine: the CRC-32 of all that follows, the file's name, which is the
key of the cache, and name and shape of every tensor. cuda/engine_file.hpp reads it too.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._core import BackendUnavailable, Error, ModelError
from ._files import write_whole

PACKAGES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
INSTALL = 'pip install "defocus_fast[cuda]"'
FORMAT = 1  # of engine files, and of what is built from the same ONNX files

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What an engine is made of and for, TensorRT aside."""

    model: Path  # folder
    graph: str
    precision: str  # "float32" or "float16", of weights, inputs and outputs
    sizes: Mapping[str, int]  # of the ONNX file's free dimensions H, W and N
    compute_capability: int  # 86 for 8.6
    gpu: str = ""  # its name, of a GPU that is there

    def __str__(self) -> str:
        sizes = (f"{name} {size}" for name, size in self.sizes.items())
        facts = [self.precision, *sizes, f"compute capability {_capability(self.compute_capability)}", self.gpu]
        return f"{self.model.name}/{self.graph} ({', '.join(fact for fact in facts if fact)})"


@dataclass(frozen=True)
class Engine:
    """A serialised engine."""

    tensors: dict[str, list[int]]  # shapes of the inputs, then outputs, in the order of the ONNX file
    plan: bytes


def requests(
    model: Path, precision: str, graphs: Mapping[str, Mapping[str, int]], compute_capability: int, gpu: str = ""
) -> list[Request]:
    """Return what an estimator needs; `graphs` as from ``_core.network_shapes``."""
    return [Request(model, graph, precision, sizes, compute_capability, gpu) for graph, sizes in graphs.items()]


class Networks:
    """Evaluates a model folder's graphs with TensorRT, for ``Estimator(networks=...)``."""

    def __init__(self) -> None:
        self._runtime: _Runtime | None = None
        self._graphs: dict[str, tuple[list[str], Any]] = {}  # names of the tensors, execution context

    def prepare(
        self, model: str, precision: str, graphs: Mapping[str, Mapping[str, int]], compute_capability: int, gpu: str
    ) -> None:
        """Load the engines of a model folder, and build those that are not in the cache.

        Raises:
            BackendUnavailable: TensorRT is missing, or not for this GPU.
            ModelError: a graph is missing or cannot be read.
            Error: TensorRT failed.
        """
        self._runtime = _Runtime(import_tensorrt())
        for request in requests(Path(model), precision, graphs, compute_capability, gpu):
            self._graphs[request.graph] = self._runtime.load(request)

    def __call__(self, graph: str, tensors: list[int], stream: int) -> None:
        """Enqueue one evaluation; see defocus_fast/networks.hpp."""
        names, context = self._graphs[graph]
        for name, pointer in zip(names, tensors, strict=True):
            if not context.set_tensor_address(name, pointer):
                self._fail(f"refuses the address {pointer:#x} of {name}", graph)
        if not context.execute_async_v3(stream):
            self._fail("cannot enqueue it", graph)

    def _fail(self, problem: str, graph: str) -> None:
        assert self._runtime is not None
        raise self._runtime.error(f"TensorRT {problem}", graph)


def import_tensorrt() -> Any:
    """Return the installed package, the first of :data:`PACKAGES`, or raise BackendUnavailable."""
    for name in PACKAGES:
        try:
            return importlib.import_module(name)
        except Exception as error:
            if not isinstance(error, ModuleNotFoundError) or error.name != name:
                raise Error(f"device: the package {name} cannot be imported: {error}") from error
    raise BackendUnavailable(f"device: TensorRT is missing: {INSTALL}")


def build(trt: Any, request: Request) -> Engine:
    """Build an engine. TensorRT-RTX needs no GPU for it. Raises as :meth:`Networks.prepare`."""
    onnx = _static_onnx(request)
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        raise ModelError(f"{request.model / request.graph}.onnx: TensorRT cannot read it{logger.reasons()}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is what was asked for
    if is_rtx(trt):
        config.num_compute_capabilities = 1
        config.set_compute_capability(_rtx_target(trt, request), 0)
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # without it frames cannot be captured into graphs
    _log.warning("building the engine of %s with %s %s", request, trt.__name__, trt.__version__)
    monitor = _progress_monitor(trt, request)
    config.progress_monitor = monitor
    start = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Error(f"{request}: TensorRT cannot build an engine{logger.reasons()}")
    plan = bytes(plan)
    _log.info("%s: %d bytes in %.1f s", request, len(plan), time.monotonic() - start)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return Engine({tensor.name: list(tensor.shape) for tensor in inputs + outputs}, plan)


def _static_onnx(request: Request) -> bytes:
    """Return the graph with its weights in it, of the requested sizes and precision."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise BackendUnavailable(f"device: the package onnx is missing, which reads the networks: {INSTALL}") from None
    path = request.model / f"{request.graph}.onnx"
    try:
        model = onnx.load(path)
        for tensor in model.graph.input:
            for dimension in tensor.type.tensor_type.shape.dim:
                if dimension.dim_param:
                    dimension.dim_value = request.sizes[dimension.dim_param]
        if request.precision == "float16":
            with np.errstate(over="raise"):
                for weight in model.graph.initializer:
                    if weight.data_type == onnx.TensorProto.FLOAT:
                        half = onnx.numpy_helper.to_array(weight).astype(np.float16)
                        weight.CopyFrom(onnx.numpy_helper.from_array(half, weight.name))
            for tensor in [*model.graph.input, *model.graph.output]:
                tensor.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        serialised: bytes = model.SerializeToString()
        return serialised
    except Exception as error:  # onnx raises many kinds of errors on files that are not what they should be
        raise ModelError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


class _Runtime:
    """Loads engines, from the cache where they are in it."""

    def __init__(self, trt: Any) -> None:
        self._trt = trt
        self._logger = _logger(trt)
        self._runtime = trt.Runtime(self._logger)

    def error(self, problem: str, graph: object) -> Error:
        return Error(f"{graph}: {problem}{self._logger.reasons()}")

    def load(self, request: Request) -> tuple[list[str], Any]:
        """Return the names of the tensors, and an execution context."""
        path = cache_folder() / file_name(self._trt, request)
        try:
            engine = read(path)
            if (loaded := self._runtime.deserialize_cuda_engine(engine.plan)) is None:
                raise ValueError(f"TensorRT refuses it{self._logger.reasons()}")
        except (OSError, ValueError) as error:
            if not isinstance(error, FileNotFoundError):
                _log.warning("%s: cannot be used, and is built anew: %s", path, error)
            engine = build(self._trt, request)
            if (loaded := self._runtime.deserialize_cuda_engine(engine.plan)) is None:
                raise self.error("TensorRT refuses the engine that it has built", request) from None
            try:
                write(path, engine)
            except OSError as refused:
                _log.warning("%s: cannot be written, so the engine will be built again: %s", path, refused)
        self._check(loaded, engine, request)
        if (context := loaded.create_execution_context()) is None:
            raise self.error("TensorRT cannot make an execution context", request)
        return list(engine.tensors), context

    def _check(self, loaded: Any, engine: Engine, request: Request) -> None:
        """What was loaded has the tensors that were built, so that nothing is written where none was promised."""
        names = {loaded.get_tensor_name(i) for i in range(loaded.num_io_tensors)}
        if names != set(engine.tensors):
            raise self.error(
                f"expected an engine of the tensors {sorted(engine.tensors)}, got {sorted(names)}", request
            )
        dtype = self._trt.float16 if request.precision == "float16" else self._trt.float32
        for name, shape in engine.tensors.items():
            got = list(loaded.get_tensor_shape(name)), loaded.get_tensor_dtype(name)
            if got != (shape, dtype):
                raise self.error(f"expected {name} of {shape} {dtype}, got {got[0]} {got[1]}", request)


def cache_folder() -> Path:
    """Return where engines are kept: $DEFOCUS_FAST_CACHE, or defocus_fast in the platform's folder for caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("DEFOCUS_FAST_CACHE") or os.path.join(caches, "defocus_fast"))


def file_name(trt: Any, request: Request) -> str:
    """Return the name of an engine's file: everything that makes two engines differ. Raises ModelError."""

    def checksum(name: str) -> str:
        try:
            return f"{zlib.crc32((request.model / name).read_bytes()):08x}"
        except OSError as error:
            raise ModelError(f"{request.model / name}: cannot be read: {error.strerror}") from error

    # TensorRT-RTX's engines serve every GPU of a compute capability. TensorRT only warns of another one's.
    target = [] if is_rtx(trt) else [re.sub(rb"[^0-9A-Za-z]", b"_", request.gpu.encode()).decode()]
    parts = [
        request.graph,
        "x".join(str(size) for size in request.sizes.values()),
        request.precision,
        checksum(f"{request.graph}.onnx"),
        checksum("weights.bin"),
        f"sm{request.compute_capability}",
        *target,
        "tensorrt_rtx" if is_rtx(trt) else "tensorrt",
        trt.__version__,
    ]
    return "-".join(parts) + f".engine{FORMAT}"


def read(path: Path) -> Engine:
    """Read an engine file. Raises ValueError if it is damaged or another's, OSError if it cannot be read."""
    checksum, _, content = path.read_bytes().partition(b"\n")
    if checksum != b"%08x" % zlib.crc32(content):
        raise ValueError("it is damaged")
    name, tensors, plan = content.split(b"\n", 2)
    if name.decode() != path.name:
        raise ValueError(f"it is {name.decode()}")
    shapes = (tensor.rsplit(":", 1) for tensor in tensors.decode().split(" "))
    return Engine({tensor: [int(size) for size in shape.split("x")] for tensor, shape in shapes}, plan)


def write(path: Path, engine: Engine) -> None:
    """Write an engine file, which appears under its name only when it is complete."""
    tensors = " ".join(f"{name}:{'x'.join(str(size) for size in shape)}" for name, shape in engine.tensors.items())
    content = f"{path.name}\n{tensors}\n".encode() + engine.plan
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(b"%08x\n" % zlib.crc32(content) + content))


def is_rtx(trt: Any) -> bool:
    return bool(trt.__name__.startswith("tensorrt_rtx"))


def _rtx_target(trt: Any, request: Request) -> Any:
    known = {int(name[2:]): target for name, target in trt.ComputeCapability.__members__.items() if name[:2] == "SM"}
    if request.precision == "float32":
        known.pop(75, None)  # it has no matrix products of float32 there
    if request.compute_capability not in known:
        accepted = ", ".join(_capability(number) for number in known)
        remedy = "TensorRT, of pip install tensorrt-cu13, builds them on the GPU itself"
        if request.compute_capability == 75:
            remedy = 'precision="float16"'
        raise BackendUnavailable(
            f"device: TensorRT-RTX {trt.__version__} builds {request.precision} networks for the compute capabilities "
            f"{accepted}, got {_capability(request.compute_capability)}: {remedy}"
        )
    return known[request.compute_capability]


def _capability(number: int) -> str:
    return f"{number // 10}.{number % 10}"


@functools.cache  # TensorRT takes one logger per process
def _logger(trt: Any) -> Any:
    """Make a logger of TensorRT that keeps errors for the exception to come, and passes on warnings."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._errors: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self._errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                _log.warning("TensorRT: %s", message)

        def reasons(self) -> str:
            """Return the errors logged since, to be appended to a message."""
            reasons = "".join(f": {error}" for error in self._errors)
            self._errors.clear()
            return reasons

    return Logger()


def _progress_monitor(trt: Any, request: Request) -> Any:
    """Make what reports the steps of the outermost phase of a build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self._steps:
                _log.info("%s: %s, step %d of %d", request, phase, step + 1, self._steps[phase])
            return True

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

    return Monitor()
