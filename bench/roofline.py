# SPDX-License-Identifier: Apache-2.0
"""What a frame asks of a GPU at least: ``python bench/roofline.py``. Computed from sizes, not measured.

A kernel or layer takes at least the time in which memory delivers its bytes, and at least the time in which its
operations are done; a stage takes the sum. Bytes: each pass reads every element of its inputs and writes every element
of its outputs once; what neighbouring threads share counts once. A network's layer is a convolution, pooling or dense
layer with its ReLU, and its tensors go through memory. Caches that hold a whole plane can beat this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

import defocus_fast
from defocus_fast import _core

STAGES = ["detect_edges", "extract_features", "classify_edges", "estimate_radii", "propagate"]


@dataclass(frozen=True)
class Gpu:
    """Peak rates of the data sheet, without sparsity."""

    name: str
    source: str
    bandwidth: float  # bytes/s
    double: float  # operations/s; a multiply-add is two
    single: float
    half: float  # tensor cores, sums in float32


GPUS = [
    Gpu("L4", "NVIDIA L4 data sheet; Ada architecture white paper 2.01", 300e9, 0.47e12, 30.3e12, 121e12),
    Gpu("RTX 4090", "NVIDIA Ada architecture white paper 2.01", 1008e9, 1.29e12, 82.6e12, 165.2e12),
    Gpu("H100 SXM", "NVIDIA H100 data sheet", 3350e9, 34e12, 67e12, 989.4e12),
]


@dataclass(frozen=True)
class Work:
    """Of `launches` equal kernels or layers."""

    stage: str
    bytes: float
    operations: float = 0
    rate: str = "single"  # the Gpu's
    launches: int = 1

    def seconds(self, gpu: Gpu) -> float:
        return self.launches * max(self.bytes / gpu.bandwidth, self.operations / getattr(gpu, self.rate))


def detect_edges(pixels: int, edges: int, capacity: int) -> Iterator[Work]:
    """cuda/canny.cu on a uint8 image of three channels, which it computes in double."""
    radius = 6  # of the default sigma

    def work(bytes_per_pixel: float, operations_per_pixel: float = 0) -> Work:
        return Work("detect_edges", bytes_per_pixel * pixels, operations_per_pixel * pixels, "double")

    yield Work("detect_edges", pixels + 4 * capacity, launches=2)  # clear_answers
    yield work(3 + 8, 1)  # read_values
    yield work(8 + 8, 1 + 3 * radius)  # smooth_columns
    yield work(8 + 8, 2 + 3 * radius)  # smooth_rows
    yield work(8 + 4, 16 * (10 * 34) / (8 * 32) + 9)  # suppress: a gradient per pixel of the tile and its rim
    yield work(4)  # link_neighbours
    yield work(4 + 1)  # keep_strong
    yield work(1)  # count_kept
    yield Work("detect_edges", 8 * pixels / 256)  # sum_counts
    yield Work("detect_edges", pixels + 8 * edges)  # write_kept


def propagate(pixels: int, edges: int) -> Iterator[Work]:
    """cuda/domain_transform.cu with the expected error."""
    signals, iterations = 3, 3

    def work(bytes_per_pixel: float, operations_per_pixel: float = 0, launches: int = 1) -> Work:
        return Work("propagate", bytes_per_pixel * pixels, operations_per_pixel * pixels, launches=launches)

    def filtering() -> Work:
        """Rows, then columns, each forward and backward: coefficient and signals in, signals out."""
        per_pass = 4 + 4 * signals + 4 * signals
        # Two multiply-adds and a product a signal to compose the maps, and the same again to run them.
        return work(2 * per_pass, 2 * (10 * signals + 2 * iterations), 2 * iterations)

    yield work(3 + 12, 3)  # load_channels
    yield work(12 + 8, 20)  # feedback
    yield filtering()  # the guide
    yield work(12 + 1 + 8, 20)  # feedback
    yield work(4, launches=signals)  # memset
    yield Work("propagate", 36 * edges, 12 * edges)  # seed_edges
    yield Work("propagate", 24 * 256)  # average_seeds
    yield filtering()
    yield work(12 + 8, 8)  # divide


class Network:
    """A graph of a model folder at the sizes that an estimator asks for."""

    def __init__(self, file: Path, shape: list[int]) -> None:
        model = onnx.load(file, load_external_data=False)
        dimensions = model.graph.input[0].type.tensor_type.shape.dim
        for dimension, size in zip(dimensions, shape, strict=True):
            dimension.dim_value = size
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            self.shapes[value.name] = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        self.nodes = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MaxPool", "Softmax")]
        self.outputs = [self.shapes[output.name] for output in graph.output]

    def work(self, stage: str, element: int, evaluations: int) -> Iterator[Work]:
        for node in self.nodes:
            elements = sum(math.prod(self.shapes[name]) for name in (*node.input, *node.output))
            outputs = math.prod(self.shapes[node.output[0]])
            rate, operations = "half" if element == 2 else "single", 0
            if node.op_type == "Conv":
                operations = 2 * outputs * math.prod(self.shapes[node.input[1]][1:])
            elif node.op_type == "Gemm":
                operations = 2 * outputs * self.shapes[node.input[1]][0]
            yield Work(stage, element * elements, operations, rate, evaluations)


def frame(model: str, height: int, width: int, element: int, edges: int) -> Iterator[Work]:
    """Kernels and layers of a frame; networks of `element` bytes a value. Heads run for all of max_edges."""
    folder = Path(defocus_fast.__file__).parent / "models" / model
    pixels = height * width
    capacity = max(4096, pixels // 4)
    sizes = _core.network_shapes(str(folder), height, width, capacity, "shared")
    image_height, image_width = sizes["trunk"].values()
    trunk = Network(folder / "trunk.onnx", [1, 3, image_height, image_width])
    channels, rows, columns = trunk.outputs[0][1:]
    cells = len(trunk.outputs) == 1
    tile_height, tile_width = (3 * rows, 3 * columns) if cells else (rows - 12, columns - 12)
    tiles = -(-height // tile_height) * -(-width // tile_width)
    batch = sizes["edge_head"]["N"]
    batches = -(-capacity // batch)

    yield from detect_edges(pixels, edges, capacity)
    yield Work("extract_features", (3 + 3 * element) * image_height * image_width, launches=tiles)  # copy_tile
    yield from trunk.work("extract_features", element, tiles)
    for stage, name in (("classify_edges", "edge_head"), ("estimate_radii", "blur_head")):
        head = Network(folder / f"{name}.onnx", [batch, channels, *([1, 1] if cells else [5, 5])])
        inputs, outputs = math.prod(head.shapes["features"][1:]), head.outputs[0][1]
        of_edges = edges / batches  # per batch; those beyond the last edge are evaluated but neither made nor read
        gathered = (1 if cells else 2) * inputs + inputs  # u and v in, their sum out
        yield Work(stage, (element * gathered + 8) * of_edges, 2 * inputs * of_edges, launches=batches)
        yield from head.work(stage, element, batches)
        yield Work(stage, (element * outputs + 24) * of_edges, 5 * outputs * of_edges, launches=batches)
    yield from propagate(pixels, edges)


def markdown(height: int = 1080, width: int = 1920) -> str:
    """Return the section of BENCHMARK.md."""
    edges = height * width // 8
    lines = [
        "## GPU: computed, not measured",
        "",
        f"What a frame of {width}x{height} with {edges:,} edges asks of a GPU at least, from the sizes in the code",
        "(`bench/roofline.py`): bytes through memory, operations (a multiply-add is two), and the least time in ms",
        "that the GPU's published peak rates allow: of every kernel and layer the larger of both, added up. Real times",
        "are longer.",
        "",
        "| model | precision | stage | launches | MB | GFLOP | " + " | ".join(gpu.name for gpu in GPUS) + " |",
        "| --- | --- | --- | ---: | ---: | ---: |" + " ---: |" * len(GPUS),
    ]
    for model in defocus_fast.shipped_models():
        for precision, element in (("float32", 4), ("float16", 2)):
            works = list(frame(model, height, width, element, edges))
            for stage in [*STAGES, "all"]:
                part = [work for work in works if stage in (work.stage, "all")]
                numbers = [
                    f"{sum(work.launches for work in part):,}",
                    f"{sum(work.launches * work.bytes for work in part) / 1e6:,.0f}",
                    f"{sum(work.launches * work.operations for work in part) / 1e9:,.1f}",
                    *(f"{1e3 * sum(work.seconds(gpu) for work in part):.3g}" for gpu in GPUS),
                ]
                lines.append(f"| `{model}` | {precision} | {stage} | " + " | ".join(numbers) + " |")
    lines += ["", "float32 networks without tensor cores, as they are run (TF32 is off). Peak rates without sparsity: "]
    lines[-1] += "; ".join(f"{gpu.name}: {gpu.bandwidth / 1e9:,.0f} GB/s ({gpu.source})" for gpu in GPUS) + "."
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
