# SPDX-License-Identifier: Apache-2.0
"""Score the networks of model folders in float32, at edges of the crops that ``training.train`` validates on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from defocus_fast.model_io import read_weights
from training import existing
from training.networks import MODELS, Fast, Tip22
from training.train import held_out, scores


def read(folder: Path) -> Tip22 | Fast:
    """Return the network of a model folder; width and architecture are those of its weights."""
    weights = {name: torch.from_numpy(array.copy()) for name, array in read_weights(folder).items()}
    name, first = ("fast", "stem") if "stem" in weights else ("tip22", "branch1.conv1")
    model = MODELS[name](len(weights[first]))
    model.load_state_dict(weights)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=existing, nargs="+", help="model folders, written by training.export")
    parser.add_argument("--shards", type=existing, required=True, help="folder written by training.synthesis")
    parser.add_argument("--json", type=Path, help="file to write the scores to")
    args = parser.parse_args()
    results = {}
    for folder in args.models:
        model = read(folder)
        batches = held_out(model, args.shards, torch.device("cpu"))
        with torch.no_grad():
            results[folder.name] = scores(model, batches)
        results[folder.name]["edges"] = sum(len(batch.at) for batch in batches)
        print(folder, *(f"{key}={value:.4g}" for key, value in results[folder.name].items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
