# SPDX-License-Identifier: Apache-2.0
"""Train the network of training/propagation.py on what a model finds in scenes, and write it into the model folder.

Every batch is of one folder, whose scenes have one size. The schedule counts steps; a run may be stopped (Ctrl-C and
SIGTERM save a checkpoint) and resumed. The weights that are kept are an exponential moving average. They are written
into the model folder if, beside the paper's filter, the mean error in octaves grows by at most 2 % in every folder of
validation scenes, and shrinks in those of wide ones, which have radii beyond twice the largest that the model reads in
one octave.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defocus_fast import Estimator, _images, evaluation
from defocus_fast.model_io import add_propagation
from training import existing, natural, plain_name, positive, run
from training.checkpoints import Run, mean
from training.optimizer import learning_rate
from training.propagation import (
    ERROR,
    INPUTS_OF,
    REGION,
    SIDES,
    Array,
    Propagation,
    Sample,
    deviation,
    enlarged,
    propagate,
    sample,
)
from training.train import LONGEST_STEP_S, Stop, append

PIXELS = 300_000  # of a batch, where radii are spread
LEARNING_RATE, WARM_UP, WEIGHT_DECAY, EMA_DECAY = 1e-3, 30, 0.03, 0.997
OF_ERRORS = 0.2  # weight of the errors in px and in octaves, both divided by the paper's filter's in that folder
OF_CHANGE = 0.001  # weight of the mean square of what is changed of the paper's filter
ERROR_STEPS, ERROR_BATCHES = 60, 200  # of the factor of the expected error
APART = 4  # px, rows and columns by which it is fitted
NEGLIGIBLE = 0.02  # px, of errors
OF_FILTER = 100  # scenes of a folder by which the paper's filter is judged there
MOST_GROWTH = 1.02  # of the error in octaves on scenes that are not wide


def metadata(model: Path) -> dict[str, str]:
    """Return the lines of model.txt."""
    return dict(line.split(": ", 1) for line in (model / "model.txt").read_text(encoding="utf-8").splitlines())


def samples(model: Path, folder: Path) -> list[Sample]:
    """Return what the model finds in the scenes of a folder."""
    values = metadata(model)
    threshold, largest = float(values["depth_threshold"]), float(values["radius_bins"].split()[-1])

    def of_scene(files: tuple[Path, Path]) -> Sample:
        image = _images.read_photo(files[0])
        options = {"distances": "domain_transform", "grid": "corner", "num_threads": 1}
        estimator = Estimator(*image.shape[:2], model=model, **options)
        return sample(estimator, image, evaluation.read_truth(files[1], 1.0), largest, threshold)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(of_scene, evaluation.pairs(folder, folder)[0]))
    if not found:
        raise ValueError(f"{folder}: no scenes; write them with training.scenes")
    return found


def swapped(kinds: Array, *sides: int) -> Array:
    """Return the kinds of seeds after their sides have changed places."""
    of_depth = [3 + first + side for first in (0, len(SIDES)) for side in sides]
    return np.array([0, 1, 2, *of_depth])[kinds]


def turned(s: Sample, rng: np.random.Generator) -> Sample:
    """Return the sample mirrored and with rows for columns, each with a chance of a half."""
    s = copy.copy(s)
    height, width = s.truth.shape
    if rng.random() < 0.5:
        s.inputs, s.barriers, s.truth = (values[..., ::-1] for values in (s.inputs, s.barriers, s.truth))
        s.at = np.stack([s.at[0], width - 1 - s.at[1]])
        s.kinds = swapped(s.kinds, 1, 0, 2, 3)
        guide = s.guide[..., ::-1].copy()
        guide[0, :, 1:], guide[0, :, 0] = s.guide[0, :, :0:-1], 0  # to the left neighbour
        s.guide = guide
    if rng.random() < 0.5:
        s.inputs, s.barriers, s.truth = (values[..., ::-1, :] for values in (s.inputs, s.barriers, s.truth))
        s.at = np.stack([height - 1 - s.at[0], s.at[1]])
        s.kinds = swapped(s.kinds, 0, 1, 3, 2)
        guide = s.guide[..., ::-1, :].copy()
        guide[1, 1:], guide[1, 0] = s.guide[1, :0:-1], 0
        s.guide = guide
    if rng.random() < 0.5:
        s.inputs, s.barriers, s.truth, s.guide = (
            np.swapaxes(values, -1, -2) for values in (s.inputs, s.barriers, s.truth, s.guide[::-1])
        )
        s.inputs = np.concatenate([s.inputs[:-2], s.inputs[:-3:-1]])
        s.at = s.at[::-1]
        s.kinds = swapped(s.kinds, 2, 3, 0, 1)
    return s


def errors(maps: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean errors of each map in px and in octaves."""
    octaves = torch.log2(maps + 0.5) - torch.log2(truth + 0.5)
    return (maps - truth).abs().mean((1, 2)), octaves.abs().mean((1, 2))


def inputs_of(batch: list[Sample]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack([s.inputs for s in batch])))


def truth_of(batch: list[Sample]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack([s.truth for s in batch])))


@torch.no_grad()
def validate(network: Propagation | None, scenes: list[Sample]) -> np.ndarray:
    """Return the mean errors in px and in octaves."""
    found = []
    for s in scenes:
        (maps,) = propagate(network(inputs_of([s])) if network else None, [s])
        found.append([float(error) for error in errors(maps, truth_of([s]))])
    return np.mean(found, 0)


def learn_expected_error(network: Propagation, values: dict[str, str], batches: Iterable[list[Sample]]) -> None:
    """Fit the factor of the expected error, and nothing else: the mean error is the scale at which errors of a Laplace
    distribution are most probable. Its logarithm is linear in what is fitted, so there is one best answer."""
    floor, slope = float(values["error_floor"]), float(values["error_slope"])
    known = []
    with torch.no_grad():
        for batch in batches:
            features = network.trunk(inputs_of(batch))
            maps, weight, squares, _ = propagate(network.out(features) * network.scale + network.offset, batch, True)
            actual = (maps - truth_of(batch)).abs()
            plain = torch.hypot(torch.tensor(floor), slope * deviation(maps, weight, squares, batch[0].octave))
            known.append((features, (actual + NEGLIGIBLE)[..., ::APART, ::APART], plain[..., ::APART, ::APART]))
    of_factor = torch.nn.Conv2d(network.out.in_channels, 1, 1)
    torch.nn.init.zeros_(of_factor.weight)
    torch.nn.init.zeros_(of_factor.bias)
    optimizer = torch.optim.LBFGS(of_factor.parameters(), max_iter=ERROR_STEPS, line_search_fn="strong_wolfe")

    def surprise() -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for features, actual, plain in known:
            rows, columns = features.shape[-2:]
            factor = enlarged(torch.exp(of_factor(features)), rows * REGION, columns * REGION)[:, 0]
            expected = plain * factor[..., ::APART, ::APART] + NEGLIGIBLE
            loss = (torch.log(expected) + actual / expected).mean() / len(known)
            loss.backward()
            total += loss.detach()
        return total

    optimizer.step(surprise)
    with torch.no_grad():
        network.out.weight[ERROR], network.out.bias[ERROR] = of_factor.weight[0], of_factor.bias[0]


def accept(folder: Path, scenes: list[Sample], largest: float, before: float, after: float) -> None:
    """Raise ValueError if the errors in octaves on validation scenes, without and with the network, say that the model
    is better without. `largest`: that the model reads in one octave, px."""
    wide = max(s.truth.max() for s in scenes) > 2 * largest
    if not after < before * (1 if wide else MOST_GROWTH):
        raise ValueError(
            f"{folder}: the error is {after:.4f} octaves, {before:.4f} without the network: it was not written"
        )


def train(args: argparse.Namespace) -> None:
    """Train until ``args.steps``; checkpoint, log and validate every ``args.every`` steps, and write the network.

    Raises:
        ValueError: the scenes are not fit; a checkpoint is there that is not to be resumed, or was begun with other
            arguments, or is at ``args.steps``; the network is not to be written.
        SystemExit: stopped before ``args.steps``.
    """
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)  # far from all edges the filter's weights are that small, and would take long
    checkpoint, log, weights = (args.out / f"{args.name}.{kind}" for kind in ("pt", "csv", "npz"))
    network = Propagation()
    if args.init:
        states = []
        for file in args.init:
            network.load(file)
            states.append({name: values.clone() for name, values in network.state_dict().items()})
        network.load_state_dict(mean(states))
    network.blind(args.without)
    groups = [
        {"params": [each for each in network.parameters() if each.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [each for each in network.parameters() if each.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.99))
    fixed = {"model": str(args.model), "init": " ".join(map(str, args.init)), "seed": args.seed}
    fixed["without"] = " ".join(args.without)
    fixed["scenes"] = " ".join(map(str, args.scenes))
    state = Run(network, copy.deepcopy(network), optimizer, fixed)
    if args.resume:
        state.resume(checkpoint, torch.device("cpu"), args.steps)
    elif checkpoint.exists():
        raise ValueError(f"{checkpoint} exists: --resume goes on from it, another --name keeps it")
    average = state.average

    values = metadata(args.model)
    folders = [samples(args.model, folder) for folder in args.scenes]
    shapes = [{s.truth.shape for s in scenes} for scenes in folders]
    for folder, of_folder in zip(args.scenes, shapes, strict=True):
        if len(of_folder) > 1 or any(side % REGION for side in next(iter(of_folder))):
            raise ValueError(f"{folder}: expected scenes of one size, with sides that {2 * REGION} divides")
    validation = [samples(args.model, folder) for folder in args.validation]
    plain = np.stack([validate(None, scenes[:OF_FILTER]) for scenes in folders])
    paper = np.stack([validate(None, scenes) for scenes in validation])
    print("domain transform:", *(f"{px:.4f} px {octaves:.4f} octaves" for px, octaves in paper), flush=True)
    plain_of = torch.from_numpy(plain.astype(np.float32))

    def batch_of(step: int) -> tuple[list[Sample], int]:
        """Return scenes of a folder and its number; the same in a resumed run."""
        rng = np.random.default_rng([args.seed, step])
        n = int(rng.integers(len(folders)))
        count = max(1, PIXELS // math.prod(folders[n][0].truth.shape))
        return [turned(folders[n][i], rng) for i in rng.integers(len(folders[n]), size=count)], n

    def show(rate: float) -> np.ndarray:
        found = np.stack([validate(average, scenes) for scenes in validation])
        row: dict[str, Any] = {"step": state.step, "elapsed_s": round(state.elapsed_s), "lr": f"{rate:.2e}"}
        if lost:
            row["loss"] = float(np.mean(lost))
        for folder, (px, octaves) in zip(args.validation, found, strict=True):
            row |= {f"{folder} px": float(px), f"{folder} octaves": float(octaves)}
        lost.clear()
        append(log, row)
        return found

    args.out.mkdir(parents=True, exist_ok=True)
    if not args.resume:
        log.unlink(missing_ok=True)
    stop = Stop()
    lost: list[float] = []
    if args.steps == 0:
        found = show(0.0)
    while state.step < args.steps and not stop.asked:
        start = time.monotonic()
        rate = learning_rate(state.step, args.steps, WARM_UP, LEARNING_RATE)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch, n = batch_of(state.step)
        logarithms = network(inputs_of(batch))
        (maps,) = propagate(logarithms, batch)
        relative = torch.stack(errors(maps, truth_of(batch)), 1) / plain_of[n]
        loss = OF_ERRORS * relative.sum(1).mean() + OF_CHANGE * (logarithms - network.offset).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        lost.append(loss.item())
        decay = min(EMA_DECAY, (state.step + 1) / (state.step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        state.step += 1
        state.elapsed_s += min(time.monotonic() - start, LONGEST_STEP_S)
        if state.step % args.every == 0 or state.step == args.steps or stop.asked:
            found = show(rate)
            state.save(checkpoint)
    if state.step < args.steps:
        raise SystemExit(f"stopped at step {state.step} of {args.steps}; --resume with the same arguments goes on")
    learn_expected_error(average, values, (batch_of(args.steps + n)[0] for n in range(ERROR_BATCHES)))
    average.save(weights)
    largest = float(values["radius_bins"].split()[-1])
    for folder, scenes, (_, before), (_, after) in zip(args.validation, validation, paper, found, strict=True):
        accept(folder, scenes, largest, before, after)
    add_propagation(args.model, average.weights())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=existing, help="model folder, which gets the network")
    parser.add_argument(
        "scenes", type=existing, nargs="+", help="of training.scenes --split train; those of a folder have one size"
    )
    parser.add_argument("--validation", type=existing, nargs="+", required=True, help="of --split validation")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument(
        "--name", type=plain_name, default="distances", help="of OUT/<name>.pt, the log .csv and the network .npz"
    )
    parser.add_argument(
        "--init",
        type=existing,
        nargs="+",
        default=[],
        help=".npz of a network to start from, with a schedule of its own; of several the mean of their weights",
    )
    parser.add_argument(
        "--without", nargs="*", default=[], choices=[*INPUTS_OF, "context"], help="inputs that the network does not see"
    )
    parser.add_argument("--steps", type=natural, default=3000, help="0: only the expected error is fitted")
    parser.add_argument("--every", type=positive, default=250, help="steps between validations and checkpoints")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    run(parser, train)


if __name__ == "__main__":
    main()
