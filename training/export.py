# SPDX-License-Identifier: Apache-2.0
"""Turn a trained checkpoint into a model folder that the estimator loads, and check it against PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import openvino
import torch

from defocus_fast.model_io import CROPS, write_model
from training.networks import PATCH, Networks

TOLERANCE = 1e-4  # largest difference of a probability between OpenVINO and PyTorch, both in float32


def largest_difference(folder: Path, model: Networks, patches: torch.Tensor) -> float:
    """Return the largest probability difference on `patches` (N, 3, 41, 41) over both exported networks."""
    at = torch.tensor([[n, 0, 0] for n in range(len(patches))])
    crops = {f"crop{n}": patches[..., (PATCH - n) // 2 :, (PATCH - n) // 2 :][..., :n, :n].numpy() for n in CROPS}
    difference = 0.0
    with torch.no_grad():
        expected = model(patches, at)
    for graph, logits in zip(("blur_patch", "edge_patch"), expected, strict=True):
        precise = {"INFERENCE_PRECISION_HINT": "f32"}
        network = openvino.Core().compile_model(str(folder / f"{graph}.onnx"), "CPU", precise)
        exported = network(crops)[0]
        difference = max(difference, float(np.abs(exported - logits.softmax(1).numpy()).max()))
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="written by training.train")
    parser.add_argument("folder", type=Path, help="model folder to write")
    parser.add_argument("--shards", type=Path, required=True, help="folder written by training.synthesis, to check on")
    parser.add_argument("--name", default="tip22")
    args = parser.parse_args()
    state = torch.load(args.checkpoint, weights_only=True)
    model = Networks(state["width"])
    model.load_state_dict(state["ema"])
    model.eval()
    trained = f"from scratch on synthetic scenes, seed {state['seed']}; see training/README.md"
    weights = {name: tensor.contiguous().numpy() for name, tensor in model.state_dict().items()}
    write_model(args.folder, weights, name=args.name, crop_offset=0, trained=trained)

    scenes = np.load(sorted((args.shards / "validation").glob("*.npy"))[0], mmap_mode="r")
    corners = np.random.default_rng(0).integers(0, scenes.shape[1] - PATCH, (64, 2))
    patches = np.stack([scenes[n, y : y + PATCH, x : x + PATCH, :3] for n, (y, x) in enumerate(corners)])
    difference = largest_difference(args.folder, model, torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255)
    print(f"{args.folder}: largest probability difference {difference:.1e}")
    if not difference < TOLERANCE:
        raise SystemExit(f"expected less than {TOLERANCE}")


if __name__ == "__main__":
    main()
