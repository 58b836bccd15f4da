# SPDX-License-Identifier: Apache-2.0
"""Turn trained checkpoints into a model folder that the estimator loads, and check it against PyTorch.

Of several checkpoints, or model folders, the means of their weights are taken.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from defocus_fast.model_io import CROPS, write_model
from training import existing, plain_name, run
from training.checkpoints import mean, read_checkpoint
from training.networks import MODELS, SHARPENING, Fast, Tip22, read_model, sharpen
from training.synthesis import RADIUS_BINS

TOLERANCE = 1e-4  # largest difference of a probability between ONNX Runtime and PyTorch, both in float32


def _run(folder: Path, graph: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / f"{graph}.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def largest_difference(folder: Path, model: Tip22 | Fast, patches: torch.Tensor) -> float:
    """Return the largest probability difference on `patches` (N, 3, P, P) over both exported networks."""
    centre = model.patch // 2
    at = torch.tensor([[n, centre, centre] for n in range(len(patches))])
    with torch.no_grad():
        expected = [logits.softmax(1).numpy() for logits in model(patches, at)]
    if isinstance(model, Tip22):
        corner = {n: (model.patch - n) // 2 for n in CROPS}
        crops = {f"crop{n}": patches[..., c : c + n, c : c + n].numpy() for n, c in corner.items()}
        found = [_run(folder, f"{head}_patch", crops) for head in ("blur", "edge")]
    else:
        # Heads answer for the cells of a plane, here a row of it per patch.
        cells = [_run(folder, "trunk", {"image": patch[None].numpy()}) for patch in patches]
        features = np.concatenate(cells, axis=2)
        found = [_run(folder, f"{head}_head", {"features": features}) for head in ("blur", "edge")]
    return max(float(np.abs(f - e).max()) for f, e in zip(found, expected, strict=True))


def trained(source: Path) -> Tip22 | Fast:
    """Return the network of a checkpoint or of a model folder, as it was before it was sharpened."""
    if source.is_dir():
        model = read_model(source)
        sharpen(model, 1 / SHARPENING)
        return model
    state = read_checkpoint(source, torch.device("cpu"))
    arguments = state["arguments"]
    depth = {"depth": arguments["depth"]} if arguments["depth"] else {}
    model = MODELS[arguments["model"]](arguments["width"], arguments["bins"], **depth)
    model.load_state_dict(state["ema"])
    return model


def export(args: argparse.Namespace) -> None:
    """Write the model folder, if its graphs say what the network says."""
    models = [trained(source) for source in args.trained]
    model, shapes = models[0], [[tuple(p.shape) for p in each.parameters()] for each in models]
    for source, of_source in zip(args.trained, shapes, strict=True):
        if of_source != shapes[0]:
            raise ValueError(f"{source}: expected the architecture, width and bins of {args.trained[0]}, got others")
    model.load_state_dict(mean([each.state_dict() for each in models]))
    sharpen(model, SHARPENING)
    model.eval()
    *_, last = model.blur.children()
    write = functools.partial(
        write_model,
        weights={name: tensor.contiguous().numpy() for name, tensor in model.state_dict().items()},
        name=args.name or next(name for name, kind in MODELS.items() if isinstance(model, kind)),
        trained="on synthetic scenes; see training/README.md",
        radius_bins=tuple(RADIUS_BINS[: len(last.bias)].tolist()),
    )
    shards = sorted((args.shards / "validation").glob("*.npy"))
    if not shards:
        raise ValueError(f"{args.shards}: no validation shards; write them with training.synthesis")
    scenes = np.load(shards[0], mmap_mode="r")[:64]
    side = model.patch
    corners = np.random.default_rng(0).integers(0, scenes.shape[1] - side, (len(scenes), 2))
    patches = np.stack([scenes[n, y : y + side, x : x + side, :3] for n, (y, x) in enumerate(corners)])
    with tempfile.TemporaryDirectory() as trial:
        write(trial)
        images = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
        difference = largest_difference(Path(trial), model, images)
    if not difference < TOLERANCE:
        raise SystemExit(f"expected a largest probability difference less than {TOLERANCE}, got {difference:.1e}")
    write(args.folder)
    print(f"{args.folder}: largest probability difference {difference:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "trained", type=existing, nargs="+", help="checkpoint of training.train or model folder; of several the mean"
    )
    parser.add_argument("folder", type=Path, help="model folder to write")
    parser.add_argument("--shards", type=existing, required=True, help="folder of training.synthesis, to check on")
    parser.add_argument("--name", type=plain_name, help="by default that of the network")
    run(parser, export)


if __name__ == "__main__":
    main()
