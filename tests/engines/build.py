# SPDX-License-Identifier: Apache-2.0
"""Builds the shipped models' engines with TensorRT-RTX, checks what is known of them without a GPU, prints a table.

Names, order, shapes and types of the tensors are those that TensorRT-RTX reads from the graphs, and are compared with
what model_io.py's documentation says. Without a GPU an engine cannot be loaded: nothing here runs one.
"""

import logging
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import onnx
from rich import box
from rich.console import Console
from rich.table import Table

import defocus_fast
from defocus_fast import _core, _tensorrt, cli

TARGETS = {"float32": [80, 86, 89, 120], "float16": [75, 80, 86, 89, 120]}
HEIGHT, WIDTH = 1080, 1920
GPU = "NVIDIA L4/24GB-\u00b5"  # no name for a file
MODELS = Path(defocus_fast.__file__).parent / "models"

trt = _tensorrt.import_tensorrt()
assert _tensorrt.is_rtx(trt), trt


def expected_tensors(model: str, request: _tensorrt.Request) -> dict[str, list[int]]:
    metadata = dict(line.split(": ", 1) for line in (MODELS / model / "model.txt").read_text().splitlines())
    channels = int(metadata["width"])
    if request.graph != "trunk":
        batch = request.sizes.get("N") or request.sizes["rows"] * request.sizes["columns"]
        inputs = {"features": [batch, channels, 5, 5]}
        if model != "tip22":
            inputs = {"features": [1, channels, request.sizes["rows"], request.sizes["columns"]]}
        if request.graph.endswith("_patch"):
            inputs = {f"crop{side}": [batch, 3, side, side] for side in (41, 27, 15)}
        outputs = 2 if request.graph.startswith("edge_") else len(metadata["radius_bins"].split())
        return {**inputs, "probability": [batch, outputs]}
    height, width = request.sizes["H"], request.sizes["W"]
    if model == "tip22":
        features = {name: [1, channels, height - 28, width - 28] for name in ("blur_u", "blur_v", "edge_u", "edge_v")}
    else:
        margin = 2 * (int(metadata["depth"]) + 1)  # cells that belong to no output
        features = {"features": [1, channels, height // 3 - margin, width // 3 - margin]}
    return {"image": [1, 3, height, width], **features}


def check_types(request: _tensorrt.Request) -> None:
    """Every input and output is of the precision, and no size is left open, so that no profile is needed."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(_tensorrt._static_onnx(request))
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    for tensor in tensors:
        assert tensor.dtype == {"float32": trt.float32, "float16": trt.float16}[request.precision], tensor.name
        assert -1 not in tuple(tensor.shape), tensor.name


def weight_bytes(request: _tensorrt.Request) -> int:
    graph = onnx.load(request.model / f"{request.graph}.onnx", load_external_data=False).graph
    weights = [each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    return sum(int(np.prod(each.dims)) for each in weights) * (2 if request.precision == "float16" else 4)


def expect(message: str, kind: type[Exception], call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except kind as error:
        found = str(error)
    else:
        found = "nothing"
    print(f"{kind.__name__}: {found[:160]}")
    if message not in found:
        sys.exit(f"expected {kind.__name__}: {message}")


def errors(folder: Path) -> None:
    """What is said of a graph that TensorRT cannot read, sizes that are too small, a GPU that it does not know, and
    no GPU."""
    request = _tensorrt.Request(MODELS / "fast", "trunk", "float32", {"H": 60, "W": 60}, 86)
    broken = folder / "broken"
    broken.mkdir()
    model = onnx.load(request.model / "trunk.onnx")
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, broken / "trunk.onnx")
    expect(
        "Frobnicate",
        _tensorrt.ModelError,
        _tensorrt.build,
        trt,
        replace(request, model=broken),
    )
    (broken / "trunk.onnx").write_bytes(b"\xffno graph")
    expect("trunk.onnx: cannot be read: ", _tensorrt.ModelError, _tensorrt.build, trt, replace(request, model=broken))
    small = replace(request, sizes={"H": 5, "W": 5})
    expect("trunk", _tensorrt.Error, _tensorrt.build, trt, small)
    expect("got 9.0", _tensorrt.BackendUnavailable, _tensorrt.build, trt, replace(request, compute_capability=90))
    prepare = _tensorrt.Networks().prepare
    expect(
        "TensorRT refuses the engine that it has built: IRuntime::deserializeCudaEngine",
        _tensorrt.Error,
        prepare,
        str(MODELS / "fast"),
        "float32",
        _core.network_shapes("fast", 60, 60, None, "shared"),
        86,
        GPU,
    )


def without_a_gpu() -> None:
    """What the package says here that was built with the CUDA part, by nvcc."""
    if not defocus_fast.build_config()["cuda"].startswith("nvcc"):
        return

    def make(device: Literal["auto", "cuda"]) -> defocus_fast.Estimator:
        return defocus_fast.Estimator(9, 9, device=device)

    expect("device: ", defocus_fast.BackendUnavailable, make, "cuda")
    assert make("auto").device == "cpu"


def from_cpp(folder: Path, model: str, graphs: dict[str, dict[str, int]], tensorrt: str) -> str:
    """What the C++ adapter says of the engines in a folder, read_engines.cpp."""
    image = graphs.get("trunk", {"H": 0, "W": 0})
    head = graphs["edge_head" if "trunk" in graphs else "edge_patch"]
    sizes = [str(size) for size in (*image.values(), *(head.get(name, 0) for name in ("N", "rows", "columns")))]
    command = [sys.argv[1], str(MODELS / model), *sizes, "89", GPU, tensorrt]
    environment = os.environ | {"DEFOCUS_FAST_CACHE": str(folder)}
    return subprocess.run(command, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout


def command_line(folder: Path) -> None:
    """Its engines are those of an estimator, for Python and for C++."""
    for model, evaluation in (("tip22", "patch"), ("fast", "shared")):
        size = ["--height", "50", "--width", "70", "--compute-capability", "8.9", "-o", str(folder)]
        cli.main(["build-engines", "--model", model, "--evaluation", evaluation, *size], standalone_mode=False)
        graphs = _core.network_shapes(model, 50, 70, None, evaluation)
        said = from_cpp(folder, model, graphs, f"tensorrt_rtx-{trt.__version__}")
        requests = _tensorrt.requests(MODELS / model, "float32", graphs, 89)
        for request in requests:
            engine = _tensorrt.read(folder / _tensorrt.file_name(trt, request))
            assert engine == _tensorrt.build(trt, request), request
            assert f"{request.graph}: {' '.join(engine.tensors)} {len(engine.plan)} bytes\n" in said
        assert said.count(" bytes\n") == len(requests)
        assert f"device: built for TensorRT 10, found {trt.__version__}" in said
    said = from_cpp(folder, "fast", graphs, "tensorrt-10.1")
    for request in _tensorrt.requests(MODELS / "fast", "float32", graphs, 89, GPU):
        name = _tensorrt.file_name(SimpleNamespace(__name__="tensorrt", __version__="10.1"), request)
        assert f"device: there is no engine {folder / name}: " in said
        assert "-sm89-NVIDIA_L4_24GB_" in name

    def of_trunk(message: str) -> bool:
        return f"{trunk}{message}" in from_cpp(folder, "fast", graphs, f"tensorrt_rtx-{trt.__version__}")

    trunk = next(folder.glob("trunk-*"))
    trunk.write_bytes(trunk.read_bytes()[:-1])
    assert of_trunk(": the engine is damaged")
    trunk.write_bytes(next(folder.glob("blur_head-*")).read_bytes())
    assert of_trunk(": expected this engine, got blur_head-")
    trunk.unlink()
    assert of_trunk(": an estimator of the Python package makes it")


def main() -> None:
    logging.disable(logging.WARNING)  # the table says it all
    table = Table(box=box.SIMPLE_HEAD, title=f"Engines for {HEIGHT} x {WIDTH}, TensorRT-RTX {trt.__version__}")
    for title in ("graph", "precision", "compute capabilities", "bytes", "seconds"):
        table.add_column(title, justify="right" if title in ("bytes", "seconds") else "left")
    rows = defaultdict[tuple[str, str], list[tuple[int, float]]](list)
    for model, evaluation in (("fast", "shared"), ("tip22", "shared"), ("tip22", "patch")):
        graphs = _core.network_shapes(str(MODELS / model), HEIGHT, WIDTH, None, evaluation)
        for precision in ("float32", "float16"):
            for target in TARGETS[precision]:
                for request in _tensorrt.requests(MODELS / model, precision, graphs, target):
                    start = time.perf_counter()
                    engine = _tensorrt.build(trt, request)
                    seconds = time.perf_counter() - start
                    expected = expected_tensors(model, request)
                    assert list(engine.tensors.items()) == list(expected.items()), (request, engine.tensors)
                    # All weights are in it, in this precision.
                    assert len(engine.plan) > weight_bytes(request), request
                    rows[f"{model}/{request.graph}", precision].append((len(engine.plan), seconds))
            for request in _tensorrt.requests(MODELS / model, precision, graphs, 86):
                check_types(request)
    for (graph, precision), built in rows.items():
        sizes, seconds = zip(*built, strict=True)
        targets = ", ".join(f"{target / 10}" for target in TARGETS[precision])
        table.add_row(graph, precision, targets, f"{min(sizes):,} to {max(sizes):,}", f"{max(seconds):.2f}")
    folder = Path.cwd()
    errors(folder)
    without_a_gpu()
    command_line(folder / "cache")
    Console(width=120).print(table)


main()
