# SPDX-License-Identifier: Apache-2.0
"""Train B-NET (``blur``), then E-NET (``edge``, on the frozen features of B-NET), on shards of synthetic scenes.

The schedule counts steps, not time, so a run may be stopped (SIGTERM saves a checkpoint), suspended and resumed. Every
step draws its crops from its own seed: a resumed run sees the same data.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.networks import HALF, PATCH, STRIDE, Networks
from training.synthesis import DEPTH, LEVELS, PATTERN, RADIUS_SCALE

LOGS = Path(__file__).with_name("logs")
DEPTH_EDGE_WEIGHT = 0.2  # of depth edges in B-NET's loss: E-NET's misses should still get a sensible radius
EMA_DECAY = 0.998
VALIDATION_CROPS = 320
STEPS_ALONE = 40  # steps with a single thread before trying all of them again
LONGEST_STEP_S = 10.0  # a step that took longer was suspended; it counts as this much in the log


class Batch(NamedTuple):
    """Crops and the labelled edges on their grids."""

    crops: Tensor  # (B, 3, S, S) float32 in [0, 1], channels last
    at: Tensor  # (N, 3) int64: crop, grid row, grid column
    radius: Tensor  # (N,) float32, px
    depth: Tensor  # (N,) int64: 1 = depth edge, 0 = pattern edge


class Sampler:
    """Draws batches of crops from a folder of shards (see ``training.synthesis``)."""

    def __init__(self, folder: Path, side: int, edges_per_crop: int, prefer_depth: bool) -> None:
        self.shards = [np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))]
        if not self.shards:
            raise ValueError(f"{folder}: no shards; write them with training.synthesis")
        if (side - PATCH) % STRIDE:
            raise ValueError(f"side: expected {PATCH} + a multiple of {STRIDE}, got {side}")
        self.side, self.edges_per_crop, self.prefer_depth = side, edges_per_crop, prefer_depth

    def _crop(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return a crop (S, S, 5), the best of a few by its number of useful edges on the grid."""
        grid = slice(HALF, -HALF, STRIDE)
        best, most = None, -1
        for _ in range(3):
            shard = self.shards[rng.integers(len(self.shards))]
            scene = shard[rng.integers(len(shard))]
            size = len(scene)
            # Patches at the border see the picture mirrored (edge pixel repeated), as in the estimator.
            index = rng.integers(-HALF, size + HALF - self.side + 1, (2, 1)) + np.arange(self.side)
            index = np.where(index < 0, -1 - index, np.where(index >= size, 2 * size - 1 - index, index))
            kind = scene[np.ix_(index[0, grid], index[1, grid])][..., 4]
            depth = min(int((kind == DEPTH).sum()), self.edges_per_crop // 2)
            pattern = min(int((kind == PATTERN).sum()), self.edges_per_crop)
            score = (1 + depth) * (1 + pattern) if self.prefer_depth else pattern + depth
            if score > most:
                best, most = (scene, index), score
            if not self.prefer_depth and pattern >= self.edges_per_crop // 2:
                break
        assert best is not None
        scene, index = best
        crop = scene[np.ix_(index[0], index[1])]
        crop = np.rot90(crop, rng.integers(4))
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        if rng.random() < 0.3:  # the detector takes the largest channel, so their order does not change the edges
            crop = crop[..., [*rng.permutation(3), 3, 4]]
        return crop

    def __call__(self, count: int, rng: np.random.Generator) -> Batch:
        """Return a batch of `count` crops."""
        grid = slice(HALF, -HALF, STRIDE)
        crops = np.stack([self._crop(rng) for _ in range(count)])
        kind = crops[:, grid, grid, 4]
        chosen = []
        for number, one in enumerate(kind):
            # At most half of a crop's edges are depth edges, and dense crops don't outweigh sparse ones.
            depth = rng.permutation(np.argwhere(one == DEPTH))[: self.edges_per_crop // 2]
            pattern = rng.permutation(np.argwhere(one == PATTERN))[: self.edges_per_crop - len(depth)]
            points = np.concatenate([depth, pattern])
            chosen.append(np.column_stack([np.full(len(points), number), points]))
        at = np.concatenate(chosen)
        where = at[:, 0], at[:, 1], at[:, 2]
        radius = crops[:, grid, grid, 3][where].astype(np.float32) / RADIUS_SCALE
        image = torch.from_numpy(np.ascontiguousarray(crops[..., :3])).permute(0, 3, 1, 2).float() / 255
        return Batch(
            image.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(at),
            torch.from_numpy(radius),
            torch.from_numpy((kind[where] == DEPTH).astype(np.int64)),
        )


def soft_levels(radius: Tensor) -> Tensor:
    """Return (N, 23) targets: each radius shared linearly between its two neighbouring levels."""
    position = ((radius - LEVELS[0]) / (LEVELS[1] - LEVELS[0])).clamp(0, len(LEVELS) - 1)
    return (1 - (position[:, None] - torch.arange(len(LEVELS))).abs()).clamp(min=0)


def blur_loss(model: Networks, batch: Batch) -> Tensor:
    """Return B-NET's cross-entropy against soft levels."""
    logits = model.blur_logits(batch.crops, batch.at).float()
    weight = torch.where(batch.depth == 1, DEPTH_EDGE_WEIGHT, 1.0)
    loss = -(soft_levels(batch.radius) * F.log_softmax(logits, 1)).sum(1)
    return (loss * weight).sum() / weight.sum()


def edge_loss(model: Networks, batch: Batch) -> Tensor:
    """Return E-NET's cross-entropy, both classes with the same total weight."""
    logits = model.edge_logits(batch.crops, batch.at).float()
    return F.cross_entropy(logits, batch.depth, weight=1 / torch.bincount(batch.depth, minlength=2).clamp(min=1))


def blur_scores(model: Networks, batches: list[Batch]) -> dict[str, float]:
    """Return B-NET's accuracy (nearest level) and mean absolute errors (px) at pattern edges."""
    levels = torch.from_numpy(LEVELS).float()
    right, error_hard, error_mean, loss, count = 0.0, 0.0, 0.0, 0.0, 0
    for batch in batches:
        keep = batch.depth == 0
        logits = model.blur_logits(batch.crops, batch.at[keep]).float()
        radius = batch.radius[keep]
        target = soft_levels(radius)
        probability = logits.softmax(1)
        hard = levels[probability.argmax(1)]
        loss += float(-(target * logits.log_softmax(1)).sum())
        right += float((probability.argmax(1) == target.argmax(1)).sum())
        error_hard += float((hard - radius).abs().sum())
        error_mean += float((probability @ levels - radius).abs().sum())
        count += len(radius)
    return {
        "val_loss": loss / count,
        "accuracy": right / count,
        "mae_argmax_px": error_hard / count,
        "mae_mean_px": error_mean / count,
    }


def edge_scores(model: Networks, batches: list[Batch]) -> dict[str, float]:
    """Return E-NET's recall of both classes and their mean, the balanced accuracy."""
    right, count, loss = torch.zeros(2), torch.zeros(2), torch.zeros(2)
    for batch in batches:
        logits = model.edge_logits(batch.crops, batch.at).float()
        each = F.cross_entropy(logits, batch.depth, reduction="none")
        for kind in (0, 1):
            is_kind = batch.depth == kind
            right[kind] += (logits.argmax(1)[is_kind] == kind).sum()
            loss[kind] += each[is_kind].sum()
            count[kind] += is_kind.sum()
    recall = right / count
    return {
        "val_loss": float((loss / count).mean()),
        "balanced_accuracy": float(recall.mean()),
        "recall_pattern": float(recall[0]),
        "recall_depth": float(recall[1]),
    }


def learning_rate(step: int, steps: int, warm_up: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def _save(path: Path, **state: Any) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def train(task: str, args: argparse.Namespace) -> None:
    """Train until ``args.steps``; checkpoint, log and validate every ``args.every`` steps."""
    torch.manual_seed(args.seed)
    model = Networks(args.width)
    parameters = model.blur_parameters() if task == "blur" else model.edge_parameters()
    loss_of: Callable[[Networks, Batch], Tensor] = blur_loss if task == "blur" else edge_loss
    scores_of = blur_scores if task == "blur" else edge_scores
    if task == "edge":
        model.load_state_dict(torch.load(args.blur, weights_only=True)["ema"])
    average = Networks(args.width)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay)
    checkpoint = args.out / f"{args.name}-{task}.pt"
    log = LOGS / f"{args.name}-{task}.csv"
    step, elapsed = 0, 0.0
    if args.resume:
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed_s"]
    else:
        log.unlink(missing_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)

    sampler = Sampler(args.shards / "train", args.side, args.edges_per_crop, task == "edge")
    validation = Sampler(args.shards / "validation", args.side, args.edges_per_crop, task == "edge")
    rng = np.random.default_rng(12345)
    held_out = [validation(args.batch, rng) for _ in range(VALIDATION_CROPS // args.batch)]

    stop = False

    def on_terminate(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_terminate)

    averaged = average.blur_parameters() if task == "blur" else average.edge_parameters()
    losses: list[float] = []
    edges = 0
    fastest, alone_until = math.inf, 0
    while step < args.steps and not stop:
        start = time.monotonic()
        # Where another program holds a core, the threads wait for the one on that core: go on with a single one then.
        threads = 1 if step < alone_until else args.threads
        torch.set_num_threads(threads)
        batch = sampler(args.batch, np.random.default_rng([args.seed, 0 if task == "blur" else 1, step]))
        rate = learning_rate(step, args.steps, args.warm_up, args.lr)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1 - decay)
        step += 1
        losses.append(loss.item())
        edges += len(batch.at)
        duration = time.monotonic() - start
        elapsed += min(duration, LONGEST_STEP_S)
        if threads == args.threads:
            fastest = min(fastest, duration)
            if duration > 2 * fastest:
                alone_until = step + STEPS_ALONE
        if step % args.every == 0 or step == args.steps or stop:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                scores = scores_of(average, held_out)
            row = {"step": step, "elapsed_s": round(elapsed), "lr": f"{rate:.2e}"}
            row |= {"edges_per_step": edges / len(losses), "loss": sum(losses) / len(losses), **scores}
            row = {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()}
            new = not log.exists()
            with open(log, "a", newline="") as file:
                writer = csv.DictWriter(file, row, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(*(f"{key}={value}" for key, value in row.items()), flush=True)
            losses, edges = [], 0
            _save(
                checkpoint,
                model=model.state_dict(),
                ema=average.state_dict(),
                optimizer=optimizer.state_dict(),
                step=step,
                steps=args.steps,
                elapsed_s=elapsed,
                seed=args.seed,
                width=args.width,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["blur", "edge"])
    parser.add_argument("--name", default="tip22", help="of the checkpoint OUT/<name>-<task>.pt and its log")
    parser.add_argument("--shards", type=Path, required=True, help="folder written by training.synthesis")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--blur", type=Path, help="checkpoint of the trained B-NET; needed for edge")
    parser.add_argument("--width", type=int, default=64, help="channels")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=16, help="crops per step")
    parser.add_argument("--side", type=int, default=101, help="of a crop, px: 41 + a multiple of 3")
    parser.add_argument("--edges-per-crop", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--warm-up", type=int, default=150, help="steps")
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--every", type=int, default=250, help="steps between validations and checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    args = parser.parse_args()
    if args.task == "edge" and args.blur is None:
        parser.error("edge needs --blur")
    train(args.task, args)


if __name__ == "__main__":
    main()
