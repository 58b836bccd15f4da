# SPDX-License-Identifier: Apache-2.0
"""Model folders: the weights of the networks, and ONNX graphs of them for TensorRT and other engines.

A model folder of the architecture "tip22" (the paper's) holds

- ``trunk.onnx``: image (1, 3, H, W) -> ``blur_u, blur_v, edge_u, edge_v``, each (1, C, H - 28, W - 28).
  Entry (y, x) belongs to the pixel (y + 14, x + 14) of the input. The first convolution of the head is
  split over them: A(p) = relu(U[c + 3p] + V[c + p]) for p in [-2, 2]^2 around an edge pixel c.
- ``blur_head.onnx``, ``edge_head.onnx``: features A (N, C, 5, 5) -> probabilities (N, bins) and (N, 2).
- ``blur_patch.onnx``, ``edge_patch.onnx``: the literal networks, crops (N, 3, 41, 41), (N, 3, 27, 27) and
  (N, 3, 15, 15) around an edge pixel -> the same probabilities.
- ``weights.bin``: the one copy of the float32 weights, little-endian, one tensor after the other, each from the next
  multiple of 64 bytes on. All graphs refer to it.
- ``model.txt``: ``key: value`` lines: the arguments of :func:`write_model`, and for every tensor of ``weights.bin`` a
  line ``tensor <name>: <offset in bytes> <shape>``. The first convolutions of the heads are stored in the two parts
  ``blur.conv1.u``, ``blur.conv1.v``, ``edge.conv1.u``, ``edge.conv1.v``. Models for ``precision="int8"`` have a line
  ``int8_ranges``, which training/calibrate.py writes.

One of the architecture "cells" holds

- ``trunk.onnx``: image (1, 3, H, W) -> ``features`` (1, C, H', W'), one entry per cell of 3x3 px. The first belongs
  to the cell whose corner is the pixel (3 (d + 1), 3 (d + 1)), d being the depth.
- ``blur_head.onnx``, ``edge_head.onnx``: features (1, C, rows, columns) as the trunk gives them -> the probabilities
  for all edges in each cell, (rows * columns, bins) and (rows * columns, 2), cells in row-major order.
- ``weights.bin`` and ``model.txt``.

Either may have tensors ``propagation.*``, of the network that says where radii may spread: 3 x 3 convolutions with
ReLU and one of 1 x 1, all with biases. To the biases of the fourth the dense weights ``propagation.context.weight`` add
what the image is like: the means over all regions of the third's answers, and then their maxima. The network has no
graph: it is evaluated by this library alone.

Source: Karaali, Harte and Jung, IEEE TIP 2022, Fig. 4 and section III; every convolution is VALID and has no bias. The
architecture "cells" is this project's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

RADIUS_BINS: tuple[float, ...] = tuple(0.5 + 0.25 * i for i in range(23))
"""Radii in pixels that the blur network tells apart (section IV-A of the paper)."""

FORMAT = 3
OPSET = 17
CROPS = (41, 27, 15)
PROPAGATION = (43, 48, 17)  # values that the network reads of a region, channels of its layers, and answers
DILATIONS = (1, 2, 4, 8, 4, 2)  # of its 3 x 3 convolutions

Weights = Mapping[str, np.ndarray]


def shipped_folder() -> Path:
    """Return where the models lie whose names an estimator accepts: beside the package, or $DEFOCUS_FAST_MODELS."""
    return Path(os.environ.get("DEFOCUS_FAST_MODELS") or Path(__file__).parent / "models")


def expected_shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    """Return name -> shape for every tensor of a model whose widths and bin count are those of `weights`.

    Convolutions are (out, in, ky, kx), dense weights (in, out). Raises KeyError if a tensor that fixes
    a width is missing.
    """
    if "stem" in weights:
        return _expected_shapes_of_cells(weights)
    width = weights["branch1.conv1"].shape[0]
    shapes: dict[str, tuple[int, ...]] = {}
    for branch in ("branch1", "branch2", "branch3", "edge_branch1"):
        shapes[f"{branch}.conv1"] = (width, 3, 3, 3)
        for i in (2, 3, 4):
            kernel = 1 if (branch, i) == ("branch2", 4) else 3
            shapes[f"{branch}.conv{i}"] = (width, width, kernel, kernel)
    for head, fused, outputs in (("blur", 3, weights["blur.dense3.bias"].size), ("edge", 4, 2)):
        shapes[f"{head}.conv1"] = (width, fused * width, 3, 3)
        shapes[f"{head}.conv2"] = shapes[f"{head}.conv3"] = (width, width, 3, 3)
        shapes[f"{head}.conv4"] = (width, width, 1, 1)
        sizes = [width, weights[f"{head}.dense1.bias"].size, weights[f"{head}.dense2.bias"].size, outputs]
        for i in (1, 2, 3):
            shapes[f"{head}.dense{i}.weight"] = (sizes[i - 1], sizes[i])
            shapes[f"{head}.dense{i}.bias"] = (sizes[i],)
    return shapes


def _expected_shapes_of_cells(weights: Weights) -> dict[str, tuple[int, ...]]:
    width = weights["stem"].shape[0]
    shapes: dict[str, tuple[int, ...]] = {"stem": (width, 3, 9, 9)}
    for i in range(_depth(weights)):
        shapes[f"convs.{i}"] = (width, width, 3, 3)
    for head, outputs in (("blur", weights["blur.dense2.bias"].size), ("edge", 2)):
        sizes = [width, weights[f"{head}.dense1.bias"].size, outputs]
        for i in (1, 2):
            shapes[f"{head}.dense{i}.weight"] = (sizes[i - 1], sizes[i])
            shapes[f"{head}.dense{i}.bias"] = (sizes[i],)
    return shapes


def _depth(weights: Weights) -> int:
    """Return the number of convolutions after the first in an architecture "cells"."""
    return sum(name.startswith("convs.") for name in weights)


class _Graph:
    """One ONNX graph under construction; weights are references into the shared ``weights.bin``."""

    def __init__(self, name: str, tensors: Mapping[str, Any]) -> None:
        self.name, self.tensors = name, tensors
        self.nodes: list[Any] = []
        self.used: dict[str, Any] = {}
        self.constants: list[Any] = []
        self.count = 0

    def weight(self, name: str) -> str:
        self.used[name] = self.tensors[name]
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        self.count += 1
        output = output or f"{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def conv(
        self, x: str, *weights: str, dilation: int = 1, stride: int = 1, relu: bool = True, output: str | None = None
    ) -> str:
        parts = [self.weight(w) for w in weights]
        kernel = parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=1)
        y = self.op("Conv", x, kernel, dilations=[dilation] * 2, strides=[stride] * 2, output=None if relu else output)
        return self.op("Relu", y, output=output) if relu else y

    def pool(self, x: str, stride: int) -> str:
        return self.op("MaxPool", x, kernel_shape=[3, 3], strides=[stride, stride])

    def crop(self, x: str, before: int, after: int) -> str:
        """Drop `before` rows and columns at the top left and `after` at the bottom right."""
        from onnx import numpy_helper

        names = []
        for values in ([before, before], [-after, -after], [2, 3]):
            names.append(f"crop_{len(self.constants)}")
            self.constants.append(numpy_helper.from_array(np.array(values, np.int64), names[-1]))
        return self.op("Slice", x, *names)

    def branch1(self, x: str, name: str, stride: int) -> str:
        """conv3 -> pool -> conv3 x3; `stride` 3 is the literal form, 1 the dense one (later layers dilated by 3)."""
        x = self.pool(self.conv(x, f"{name}.conv1"), stride)
        for i in (2, 3, 4):
            x = self.conv(x, f"{name}.conv{i}", dilation=3 // stride)
        return x

    def branch2(self, x: str, stride: int) -> str:
        for i in (1, 2, 3):
            x = self.conv(x, f"branch2.conv{i}")
        return self.conv(self.pool(x, stride), "branch2.conv4")

    def branch3(self, x: str) -> str:
        for i in (1, 2, 3, 4):
            x = self.conv(x, f"branch3.conv{i}")
        return x

    def head(self, x: str, name: str) -> None:
        """The layers after the first fusion convolution, down to the probabilities."""
        for i in (2, 3, 4):
            x = self.conv(x, f"{name}.conv{i}")
        self.dense(self.op("Flatten", x), name, 3)

    def head_of_cells(self, x: str, name: str) -> None:
        """The same layers for every cell: convolutions of 1 x 1, as products with the plane of each channel."""
        self.dense(self.op("Flatten", x, axis=2), name, 2, transA=1)

    def dense(self, x: str, name: str, layers: int, **of_first: Any) -> None:
        """Dense layers with ReLU between them, down to the probabilities; `of_first` are attributes of the first."""
        for i in range(1, layers + 1):
            parameters = [self.weight(f"{name}.dense{i}.{kind}") for kind in ("weight", "bias")]
            x = self.op("Gemm", x, *parameters, **of_first if i == 1 else {})
            x = self.op("Relu", x) if i < layers else self.op("Softmax", x, axis=1, output="probability")

    def save(self, folder: Path, inputs: Mapping[str, list[Any]], outputs: Mapping[str, list[Any]]) -> None:
        from onnx import TensorProto, helper

        def info(values: Mapping[str, list[Any]]) -> list[Any]:
            return [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in values.items()]

        tensors = [*self.used.values(), *self.constants]
        graph = helper.make_graph(self.nodes, self.name, info(inputs), info(outputs), tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="defocus_fast")
        model.ir_version = 8
        (folder / f"{self.name}.onnx").write_bytes(model.SerializeToString())


def _save_tensors(folder: Path, weights: Weights) -> dict[str, Any]:
    """Write ``weights.bin`` and return name -> ONNX tensor that refers into it."""
    from onnx import TensorProto

    tensors: dict[str, Any] = {}
    with open(folder / "weights.bin", "wb") as file:
        for name, array in weights.items():
            file.write(bytes(-file.tell() % 64))
            data = np.ascontiguousarray(array, "<f4").tobytes()
            tensor = TensorProto(name=name, dims=array.shape, data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", file.tell()), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
            file.write(data)
            tensors[name] = tensor
    return tensors


def write_model(
    folder: str | Path,
    weights: Weights,
    *,
    name: str,
    trained: str,
    crop_offset: int = 0,
    radius_bins: tuple[float, ...] = RADIUS_BINS,
    depth_threshold: float = 0.5,
    sigma_r: float = 0.5,
    iterations: int = 3,
    expected_error: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Write a model folder from the weights of both networks. Needs the package ``onnx``.

    Args:
        folder: created if absent; files of an earlier model in it are replaced.
        weights: float32 arrays under the names of :func:`expected_shapes`.
        name: name of the model, one line.
        trained: one line saying on what and how the weights were trained.
        crop_offset: "tip22" only: 0 if the 27 and 15 px crops share the centre of the 41 px crop, 1 if they lie one
            pixel down and right of it (the published weights).
        radius_bins: radius in pixels of each output of the blur network, ascending.
        depth_threshold, sigma_r, iterations: defaults of the estimator's options with posterior labels.
        expected_error: a and b of ``BlurMap.expected_error``.

    Raises:
        ValueError: a tensor is missing, unknown, not finite or of the wrong shape, `crop_offset` is neither 0 nor 1,
            or the number of bins is not that of the weights.
    """
    if crop_offset not in (0, 1):
        raise ValueError(f"crop_offset: expected 0 or 1, got {crop_offset!r}")
    try:
        shapes = expected_shapes(weights)
    except KeyError as error:
        raise ValueError(f"weights: tensor {error} is missing") from None
    if set(shapes) != set(weights):
        raise ValueError(f"weights: missing or unknown tensors: {sorted(set(shapes) ^ set(weights))}")
    for key, shape in shapes.items():
        if weights[key].shape != shape:
            raise ValueError(f"weights: expected {key} of shape {shape}, got {weights[key].shape}")
        if not np.isfinite(weights[key]).all():
            raise ValueError(f"weights: {key} is not finite")
    cells = "stem" in weights
    outputs = weights["blur.dense2.bias" if cells else "blur.dense3.bias"].size
    if len(radius_bins) != outputs:
        raise ValueError(f"radius_bins: expected {outputs} radii, got {len(radius_bins)}")

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for graph in folder.glob("*.onnx"):
        graph.unlink()
    width = weights["stem" if cells else "branch1.conv1"].shape[0]
    metadata: dict[str, Any] = {"format": FORMAT, "name": name, "width": width}
    if cells:
        metadata |= {"architecture": "cells", "depth": _depth(weights)}
        tensors = _save_cells(folder, weights, width, len(radius_bins))
    else:
        metadata |= {"architecture": "tip22", "crop_offset": crop_offset}
        tensors = _save_tip22(folder, weights, width, crop_offset, len(radius_bins))
    metadata |= {"depth_threshold": depth_threshold, "sigma_r": sigma_r, "iterations": iterations}
    metadata |= {"error_floor": expected_error[0], "error_slope": expected_error[1]}
    metadata |= {"radius_bins": " ".join(f"{radius:g}" for radius in radius_bins), "trained": trained}
    for tensor, proto in tensors.items():
        offset = next(entry.value for entry in proto.external_data if entry.key == "offset")
        metadata[f"tensor {tensor}"] = " ".join([offset, *map(str, proto.dims)])
    text = "".join(f"{key}: {value}\n" for key, value in metadata.items())
    (folder / "model.txt").write_text(text, encoding="utf-8")


def add_propagation(folder: str | Path, weights: Weights) -> None:
    """Add the network that says where radii may spread to a model folder, or replace it; nothing else changes.

    Args:
        folder: written by :func:`write_model`.
        weights: the tensors of ``training.propagation.Propagation.weights()``.

    Raises:
        FileNotFoundError: no ``model.txt`` in the folder, or no ``weights.bin``.
        ValueError: a tensor is missing, unknown, not finite or of the wrong shape.
    """
    shapes = propagation_shapes()
    if {name: values.shape for name, values in weights.items()} != shapes:
        raise ValueError(f"weights: expected tensors of the shapes {shapes}")
    if not all(np.isfinite(values).all() for values in weights.values()):
        raise ValueError("weights: expected finite values")
    text = (Path(folder) / "model.txt").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if not line.startswith("tensor propagation.")]
    begin = max(
        int(offset) + 4 * math.prod(map(int, shape))
        for offset, *shape in (line.split(": ")[1].split() for line in kept if line.startswith("tensor "))
    )
    data = bytearray((Path(folder) / "weights.bin").read_bytes()[:begin])
    for name, values in weights.items():
        data += bytes(-len(data) % 64)
        kept.append(f"tensor {name}: {len(data)} " + " ".join(map(str, values.shape)))
        data += np.ascontiguousarray(values, "<f4").tobytes()
    (Path(folder) / "weights.bin").write_bytes(data)
    (Path(folder) / "model.txt").write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def propagation_shapes() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the tensors of the network that says where radii may spread."""
    inputs, width, outputs = PROPAGATION
    sides = [(width, inputs, 3, 3), *[(width, width, 3, 3)] * (len(DILATIONS) - 1), (outputs, width, 1, 1)]
    shapes: dict[str, tuple[int, ...]] = {}
    for i, shape in enumerate(sides):
        shapes[f"propagation.{i}.weight"], shapes[f"propagation.{i}.bias"] = shape, shape[:1]
    shapes["propagation.context.weight"] = (2 * width, width)
    return shapes


def read_weights(folder: str | Path) -> dict[str, np.ndarray]:
    """Return the weights of a model folder, as they were given to :func:`write_model`.

    Raises:
        FileNotFoundError: no ``model.txt`` in the folder, or no ``weights.bin``.
    """
    values = np.fromfile(Path(folder) / "weights.bin", "<f4")
    weights: dict[str, np.ndarray] = {}
    for line in (Path(folder) / "model.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("tensor "):
            name, numbers = line.removeprefix("tensor ").split(": ")
            offset, *shape = map(int, numbers.split())
            weights[name] = values[offset // 4 :][: np.prod(shape)].reshape(shape)
    for name in [name for name in weights if name.endswith(".u")]:
        whole = name.removesuffix(".u")
        weights[whole] = np.concatenate([weights.pop(name), weights.pop(f"{whole}.v")], axis=1)
    return weights


def _save_cells(folder: Path, weights: Weights, width: int, bins: int) -> dict[str, Any]:
    tensors = _save_tensors(folder, weights)
    trunk = _Graph("trunk", tensors)
    depth = _depth(weights)
    x = trunk.conv("image", "stem", stride=3, output=None if depth else "features")
    for i in range(depth):
        x = trunk.conv(x, f"convs.{i}", output="features" if i == depth - 1 else None)
    trunk.save(folder, {"image": [1, 3, "H", "W"]}, {"features": [1, width, "rows", "columns"]})
    for head, count in (("blur", bins), ("edge", 2)):
        graph = _Graph(f"{head}_head", tensors)
        graph.head_of_cells("features", head)
        graph.save(folder, {"features": [1, width, "rows", "columns"]}, {"probability": ["rows * columns", count]})
    return tensors


def _save_tip22(folder: Path, weights: Weights, width: int, crop_offset: int, bins: int) -> dict[str, Any]:
    parts = dict(weights)
    for head in ("blur", "edge"):  # the last `width` input channels read branch 3: V; the others: U
        kernel = parts.pop(f"{head}.conv1")
        parts[f"{head}.conv1.u"], parts[f"{head}.conv1.v"] = kernel[:, :-width], kernel[:, -width:]
    tensors = _save_tensors(folder, parts)

    trunk = _Graph("trunk", tensors)
    shared = [trunk.branch1("image", "branch1", stride=1)]
    shared.append(trunk.branch2(trunk.crop("image", 7 + crop_offset, 7 - crop_offset), stride=1))
    branch3 = trunk.branch3(trunk.crop("image", 9 + crop_offset, 9 - crop_offset))
    outputs: dict[str, list[Any]] = {}
    for head, branches in (("blur", shared), ("edge", [trunk.branch1("image", "edge_branch1", stride=1), *shared])):
        u = trunk.op("Concat", *branches, axis=1)
        trunk.conv(u, f"{head}.conv1.u", dilation=3, relu=False, output=f"{head}_u")
        trunk.conv(branch3, f"{head}.conv1.v", relu=False, output=f"{head}_v")
        outputs |= {f"{head}_{part}": [1, width, "H - 28", "W - 28"] for part in "uv"}
    trunk.save(folder, {"image": [1, 3, "H", "W"]}, outputs)

    for head, count in (("blur", bins), ("edge", 2)):
        graph = _Graph(f"{head}_head", tensors)
        graph.head("features", head)
        graph.save(folder, {"features": ["N", width, 5, 5]}, {"probability": ["N", count]})

        graph = _Graph(f"{head}_patch", tensors)
        branches = [graph.branch1("crop41", "branch1", stride=3), graph.branch2("crop27", stride=3)]
        branches.append(graph.branch3("crop15"))
        if head == "edge":
            branches.insert(0, graph.branch1("crop41", "edge_branch1", stride=3))
        fused = graph.op("Concat", *branches, axis=1)
        graph.head(graph.conv(fused, f"{head}.conv1.u", f"{head}.conv1.v"), head)
        graph.save(folder, {f"crop{n}": ["N", 3, n, n] for n in CROPS}, {"probability": ["N", count]})
    return tensors


def import_published_weights(folder: str | Path) -> dict[str, np.ndarray]:
    """Read the authors' published weights, ``blur/0..21.mat`` and ``edge/0..25.mat``.

    Returns the tensors under the names of :func:`expected_shapes`, to be passed to :func:`write_model` with
    ``crop_offset=1`` (that program takes the 27 and 15 px crops one pixel down and right of the centre).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the two networks do not share branches 1 to 3.
    """
    from ._mat import read_mat

    def names(*branches: str, head: str) -> list[str]:
        convs = [f"{part}.conv{i}" for part in (*branches, head) for i in (1, 2, 3, 4)]
        return convs + [f"{head}.dense{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")]

    weights: dict[str, np.ndarray] = {}
    for head, branches in (
        ("blur", ("branch1", "branch2", "branch3")),
        ("edge", ("branch1", "edge_branch1", "branch2", "branch3")),
    ):
        for i, key in enumerate(names(*branches, head=head)):
            array = read_mat(Path(folder) / head / f"{i}.mat")["weights"].astype(np.float32)
            if ".conv" in key:
                array = array.transpose(3, 2, 0, 1)  # HWIO -> OIHW
            elif key.endswith("bias"):
                array = array.reshape(-1)
            if not np.array_equal(weights.setdefault(key, array), array):
                raise ValueError(f"{folder}: {key} of the edge network differs from that of the blur network")
    return weights
