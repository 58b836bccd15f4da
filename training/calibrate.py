# SPDX-License-Identifier: Apache-2.0
"""Measure what the layers of a model's trunk reach on training scenes, and write it into its model.txt: the ranges that
precision "int8" stores in 255 steps. Of every layer the mean over scenes of the largest output: what few scenes exceed
is cut off, which costs less than coarser steps for all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import openvino

from training import existing, run

SCENES = 64


def ranges(model: Path, scenes: np.ndarray) -> dict[str, float]:
    """Return the range of every layer with ReLU whose output other layers read, by the name of its weights.

    Args:
        model: model folder.
        scenes: (N, H, W, 3) uint8.
    """
    core = openvino.Core()
    trunk = core.read_model(model / "trunk.onnx")
    features = {output.get_node().input_value(0).get_node().get_friendly_name() for output in trunk.outputs}
    names = []
    for op in list(trunk.get_ops()):
        if op.get_type_name() == "Relu" and op.get_friendly_name() not in features:
            names.append(op.input_value(0).get_node().input_value(1).get_node().get_friendly_name())
            trunk.add_outputs(op.output(0))
    first = len(trunk.outputs) - len(names)
    request = core.compile_model(trunk, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    largest = np.zeros(len(names))
    for scene in scenes:
        request.infer([scene.transpose(2, 0, 1)[None].astype(np.float32) / 255])
        largest += [request.get_output_tensor(first + i).data.max() for i in range(len(names))]
    return dict(zip(names, (largest / len(scenes)).tolist(), strict=True))


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
