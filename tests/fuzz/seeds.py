# SPDX-License-Identifier: Apache-2.0
"""Write small models of random weights, as folders and as inputs of fuzz_model. Needs the package onnx."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "python" / "defocus_fast"))
import model_io  # not the package: it is not built


def write(folder: Path, seeds: Path, ranges: list[str], widths: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    weights = {}
    for key, shape in model_io.expected_shapes(widths).items():
        inputs = shape[0] if key.endswith("weight") else np.prod(shape[1:])
        weights[key] = (rng.standard_normal(shape) * np.sqrt(2 / max(inputs, 1))).astype(np.float32)
    bins = tuple(range(1, 1 + weights[max(key for key in weights if key.startswith("blur.dense"))].shape[-1]))
    model_io.write_model(folder, weights, name=folder.name, trained="not", radius_bins=bins)
    text, values = (folder / "model.txt").read_bytes(), (folder / "weights.bin").read_bytes()
    (seeds / folder.name).write_bytes(text + b"\0" + values)
    text += b"int8_ranges: " + " ".join(f"{name} 1.5" for name in ranges).encode() + b"\n"
    (seeds / f"{folder.name}_int8").write_bytes(text + b"\0" + values)


def main(models: Path, seeds: Path) -> None:
    dense = {f"{head}.dense1.bias": np.empty(3) for head in ("blur", "edge")}
    for depth in (0, 1, 2):
        widths = {"stem": np.empty(4), "blur.dense2.bias": np.empty(3), **dense}
        widths |= {f"convs.{i}": np.empty(0) for i in range(depth)}
        ranges = ["stem", "convs.0"][:depth]
        write(models / ("cells" if depth == 2 else f"cells{depth}"), seeds, ranges, widths)
    dense |= {f"{head}.dense2.bias": np.empty(2) for head in ("blur", "edge")}
    branches = [
        f"{branch}.conv{i}" for branch in ("branch1", "branch2", "branch3", "edge_branch1") for i in range(1, 5)
    ]
    write(models / "tip22", seeds, branches, {"branch1.conv1": np.empty(2), "blur.dense3.bias": np.empty(3), **dense})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
