# SPDX-License-Identifier: Apache-2.0
"""Measure what the layers of a model's trunk reach on training scenes, and write it into its model.txt: the ranges that
precision "int8" stores in 255 steps. Of every layer the mean over scenes of the largest output: what few scenes exceed
is cut off, which costs less than coarser steps for all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from training import existing, run

SCENES = 64


def ranges(model: Path, scenes: np.ndarray) -> dict[str, float]:
    """Return the range of every layer with ReLU whose output other layers read, by the name of its weights.

    Args:
        model: model folder.
        scenes: (N, H, W, 3) uint8.
    """
    trunk = onnx.load(model / "trunk.onnx")
    weights = {node.output[0]: node.input[1] for node in trunk.graph.node if node.op_type == "Conv"}
    features = {output.name for output in trunk.graph.output}
    layers = [node for node in trunk.graph.node if node.op_type == "Relu" and node.output[0] not in features]
    outputs = [layer.output[0] for layer in layers]
    trunk.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    session = onnxruntime.InferenceSession(trunk.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = np.zeros(len(outputs))
    for scene in scenes:
        image = scene.transpose(2, 0, 1)[None].astype(np.float32) / 255
        largest += [values.max() for values in session.run(outputs, {"image": image})]
    return dict(zip((weights[layer.input[0]] for layer in layers), (largest / len(scenes)).tolist(), strict=True))


def calibrate(args: argparse.Namespace) -> None:
    """Write the ranges into the model folder."""
    file = args.model / "model.txt"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("int8_ranges:")]
    shards = sorted((args.shards / "train").glob("*.npy"))
    if not shards:
        raise ValueError(f"{args.shards}: no training shards; write them with training.synthesis")
    scenes = np.stack([np.load(shard, mmap_mode="r")[0, ..., :3] for shard in shards[:SCENES]])
    found = " ".join(f"{name} {range_:.3g}" for name, range_ in ranges(args.model, scenes).items())
    file.write_text("\n".join([*lines, f"int8_ranges: {found}"]) + "\n", encoding="utf-8")
    print(f"{args.model}: {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=existing, help="model folder, written by training.export")
    parser.add_argument("shards", type=existing, help="folder written by training.synthesis")
    run(parser, calibrate)


if __name__ == "__main__":
    main()
