# SPDX-License-Identifier: Apache-2.0
"""Score the networks of model folders in float32, at edges of the crops that ``training.train`` validates on."""

from __future__ import annotations

import argparse
import json

import torch

from training import existing, run, writable
from training.batches import held_out
from training.losses import scores
from training.networks import read_model


def validate(args: argparse.Namespace) -> None:
    """Score the models, and write the scores under the models' names."""
    names = [folder.resolve().name for folder in args.models]
    if len(set(names)) < len(names):
        raise ValueError(f"models: expected folders of different names, got {', '.join(names)}")
    results = {}
    for name, folder in zip(names, args.models, strict=True):
        model = read_model(folder)
        batches = held_out(model, args.shards, torch.device("cpu"))
        with torch.no_grad():
            results[name] = scores(model, batches)
        results[name]["edges"] = sum(len(batch.at) for batch in batches)
        print(folder, *(f"{key}={value:.4g}" for key, value in results[name].items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=existing, nargs="+", help="model folders, written by training.export")
    parser.add_argument("--shards", type=existing, required=True, help="folder written by training.synthesis")
    parser.add_argument("--json", type=writable, help="file to write the scores to")
    run(parser, validate)


if __name__ == "__main__":
    main()
