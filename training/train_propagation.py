# SPDX-License-Identifier: Apache-2.0
"""Train the network of training/propagation.py on what a model finds in scenes, and write it into the model folder.

The schedule counts steps. The weights that are kept are an exponential moving average; they are written if the mean
error on the validation scenes, in octaves, is smaller than that of the paper's filter in every folder.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from defocus_fast import Estimator, _images, evaluation
from defocus_fast.model_io import add_propagation
from training import existing, natural, positive, run
from training.propagation import ERROR, REGION, Propagation, Sample, deviation, enlarged, propagate, sample

PIXELS = 300_000  # of a batch, where radii are spread
LEARNING_RATE, WEIGHT_DECAY, EMA_DECAY = 3e-3, 0.03, 0.997
OF_PX = 0.1  # weight of the error in px beside that in octaves
OF_CHANGE = 0.003  # weight of the mean square of what is changed of the paper's filter
ERROR_STEPS = 300  # of the factor of the expected error
NEGLIGIBLE = 0.02  # px, of errors


def metadata(model: Path) -> dict[str, str]:
    """Return the lines of model.txt."""
    return dict(line.split(": ", 1) for line in (model / "model.txt").read_text(encoding="utf-8").splitlines())


def samples(model: Path, folder: Path) -> list[Sample]:
    """Return what the model finds in the scenes of a folder."""
    values = metadata(model)
    threshold, largest = float(values["depth_threshold"]), float(values["radius_bins"].split()[-1])
    found = []
    for file, truth in evaluation.pairs(folder, folder)[0]:
        image = _images.read_photo(file)
        estimator = Estimator(*image.shape[:2], model=model, num_threads=1)
        found.append(sample(estimator, image, evaluation.read_truth(truth, 1.0), largest, threshold))
    if not found:
        raise ValueError(f"{folder}: no scenes; write them with training.scenes")
    return found


def turned(s: Sample, rng: np.random.Generator) -> Sample:
    """Return the sample mirrored and with rows for columns, each with a chance of a half."""
    s = copy.copy(s)
    height, width = s.truth.shape
    if rng.random() < 0.5:
        s.inputs, s.barriers, s.truth = (values[..., ::-1] for values in (s.inputs, s.barriers, s.truth))
        s.at = np.stack([s.at[0], width - 1 - s.at[1]])
        guide = s.guide[..., ::-1].copy()
        guide[0, :, 1:], guide[0, :, 0] = s.guide[0, :, :0:-1], 0  # to the left neighbour
        s.guide = guide
    if rng.random() < 0.5:
        s.inputs, s.barriers, s.truth = (values[..., ::-1, :] for values in (s.inputs, s.barriers, s.truth))
        s.at = np.stack([height - 1 - s.at[0], s.at[1]])
        guide = s.guide[..., ::-1, :].copy()
        guide[1, 1:], guide[1, 0] = s.guide[1, :0:-1], 0
        s.guide = guide
    if rng.random() < 0.5:
        s.inputs, s.barriers, s.truth, s.guide = (
            np.swapaxes(values, -1, -2) for values in (s.inputs, s.barriers, s.truth, s.guide[::-1])
        )
        s.inputs = np.concatenate([s.inputs[:-2], s.inputs[:-3:-1]])
        s.at = s.at[::-1]
    return s


def errors(maps: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean errors in px and in octaves."""
    return (maps - truth).abs().mean(), (torch.log2(maps + 0.5) - torch.log2(truth + 0.5)).abs().mean()


def inputs_of(batch: list[Sample]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack([s.inputs for s in batch])))


def truth_of(batch: list[Sample]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack([s.truth for s in batch])))


@torch.no_grad()
def validate(network: Propagation | None, scenes: list[Sample]) -> np.ndarray:
    """Return the mean errors in px and in octaves."""
    if network:
        network.eval()
    found = []
    for s in scenes:
        (maps,) = propagate(network(inputs_of([s])) if network else None, [s])
        found.append([float(error) for error in errors(maps, truth_of([s]))])
    return np.mean(found, 0)


def learn_expected_error(network: Propagation, values: dict[str, str], batch_of: Callable[[], list[Sample]]) -> None:
    """Fit the factor of the expected error, and nothing else: the mean error is the scale at which errors of a Laplace
    distribution are most probable."""
    floor, slope = float(values["error_floor"]), float(values["error_slope"])
    network.eval()
    of_factor = torch.nn.Conv2d(network.out.in_channels, 1, 1)
    torch.nn.init.zeros_(of_factor.weight)
    torch.nn.init.zeros_(of_factor.bias)
    optimizer = torch.optim.AdamW(of_factor.parameters(), lr=1e-2)
    for step in range(ERROR_STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / ERROR_STEPS)
        batch = batch_of()
        with torch.no_grad():
            features = network.trunk(inputs_of(batch))
            maps, weight, squares, _ = propagate(network.out(features) * network.scale + network.offset, batch, True)
            actual = (maps - truth_of(batch)).abs()
            plain = torch.hypot(torch.tensor(floor), slope * deviation(maps, weight, squares, batch[0].octave))
        expected = plain * enlarged(torch.exp(of_factor(features)), *actual.shape[1:])[:, 0] + NEGLIGIBLE
        optimizer.zero_grad()
        (torch.log(expected) + (actual + NEGLIGIBLE) / expected).mean().backward()
        optimizer.step()
    with torch.no_grad():
        network.out.weight[ERROR], network.out.bias[ERROR] = of_factor.weight[0], of_factor.bias[0]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    folders = [samples(args.model, folder) for folder in args.scenes]
    if any(side % REGION for scenes in folders for side in scenes[0].truth.shape):
        raise ValueError(f"expected scenes of whole regions, with sides that {2 * REGION} divides")
    validation = [samples(args.model, folder) for folder in args.validation]
    plain = [validate(None, scenes) for scenes in validation]
    print("domain transform:", *(f"{px:.4f} px {octaves:.4f} octaves" for px, octaves in plain), flush=True)

    network = Propagation()
    average = copy.deepcopy(network)
    decayed = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.99))

    def batch_of() -> list[Sample]:
        scenes = folders[rng.integers(len(folders))]  # each as often
        count = max(1, PIXELS // scenes[0].truth.size)
        return [turned(scenes[i], rng) for i in rng.integers(len(scenes), size=count)]

    def show(step: int) -> list[np.ndarray]:
        found = [validate(average, scenes) for scenes in validation]
        text = " ".join(f"{px:.4f} px {octaves:.4f} octaves" for px, octaves in found)
        print(f"step {step}: training {np.mean(losses[-200:], 0).round(4).tolist()} validation {text}", flush=True)
        return found

    losses: list[list[float]] = []
    for step in range(args.steps):
        rate = LEARNING_RATE * min(1, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        network.train()
        batch = batch_of()
        logarithms = network(inputs_of(batch))
        (maps,) = propagate(logarithms, batch)
        px, octaves = errors(maps, truth_of(batch))
        optimizer.zero_grad()
        (octaves + OF_PX * px + OF_CHANGE * (logarithms - network.offset).square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append([px.item(), octaves.item()])
        decay = min(EMA_DECAY, (step + 1) / (step + 20))
        with torch.no_grad():
            for ours, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                ours.lerp_(theirs, 1 - decay) if ours.is_floating_point() else ours.copy_(theirs)
        if args.every and (step + 1) % args.every == 0:
            show(step + 1)
    found = show(args.steps)
    learn_expected_error(average, metadata(args.model), batch_of)
    if args.save:
        torch.save(average.state_dict(), args.save)
    if any(learned[1] >= paper[1] for learned, paper in zip(found, plain, strict=True)):
        raise ValueError("the learned distances are no better than none: nothing was written")
    add_propagation(args.model, average.weights())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=existing, help="model folder, which gets the network")
    parser.add_argument("scenes", type=existing, nargs="+", help="folders of training.scenes --split train")
    parser.add_argument("--validation", type=existing, nargs="+", required=True, help="of --split validation")
    parser.add_argument("--steps", type=positive, default=4000)
    parser.add_argument("--every", type=natural, default=500, help="steps between validations; 0: at the end only")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--save", type=Path, help="keeps the network as a PyTorch file, too")
    run(parser, train)


if __name__ == "__main__":
    main()
