# SPDX-License-Identifier: Apache-2.0
"""Train B-NET and E-NET on shards of synthetic scenes.

Both are trained at once, and both losses shape the features that they share (the paper trains B-NET first and freezes
these). The schedule counts steps, not time, so a run may be stopped (Ctrl-C and SIGTERM save a checkpoint), suspended
and resumed. Every step draws its crops from its own seed: a resumed run sees the same data.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training import existing, fraction, natural, plain_name, positive, run
from training.networks import GRIDS, MODELS, SHARPENING, STRIDE, Fast, Tip22, read_model, sharpen
from training.synthesis import AMBIGUOUS, DEPTH, NO_EDGE, PATTERN, RADIUS_BINS, RADIUS_SCALE

BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # elsewhere float32 is faster
# Arguments that a resumed run shares with its beginning.
FIXED = ("model", "width", "without", "batch", "side", "seed", "lr", "warm_up", "dense_lr", "weight_decay")
ATTEMPTS = 10_000  # at a scene with a labelled edge
# Weight of each kind in B-NET's loss: what E-NET misses should still get a sensible radius.
BLUR_WEIGHT = {NO_EDGE: 0.0, PATTERN: 1.0, DEPTH: 0.2, AMBIGUOUS: 0.5}
DEPTH_CROPS = 0.5  # share of the crops drawn around a depth edge, where the scene has one
EMA_DECAY = 0.998
VALIDATION_CROPS = 2048
REVIVE_EVERY, REVIVE_UNTIL = 100, 0.7  # steps, share of the schedule
STEPS_ALONE = 40  # steps with a single thread before trying all of them again
LONGEST_STEP_S = 10.0  # a step that took longer was suspended; it counts as this much in the log


class Batch(NamedTuple):
    """Crops and labelled edges in them."""

    crops: Tensor  # (B, 3, S, S) channels last: uint8, on its device float32 in [0, 1]
    at: Tensor  # (N, 3) int64: crop, row, column in `crops`
    radius: Tensor  # (N,) float32, px
    kind: Tensor  # (N,) int64: PATTERN, DEPTH or AMBIGUOUS

    def on(self, device: torch.device) -> Batch:
        """Return the batch as the networks take it."""
        crops, *edges = (tensor.to(device, non_blocking=True) for tensor in self)
        return Batch(crops.float() / 255, *edges)


class Sampler:
    """Draws batches of crops from a folder of shards (see ``training.synthesis``)."""

    def __init__(self, folder: Path, side: int, patch: int, every_edge: bool) -> None:
        self.shards = [np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))]
        if not self.shards:
            raise ValueError(f"{folder}: no shards; write them with training.synthesis")
        for shard in self.shards:
            if shard.dtype != np.uint8 or shard.ndim != 4 or shard.shape[-1] != 5 or shard.shape[1] != shard.shape[2]:
                raise ValueError(f"{folder}: expected shards (N, S, S, 5) uint8, got {shard.shape} {shard.dtype}")
        if side < patch or (side - patch) % STRIDE:
            raise ValueError(f"side: expected {patch} + a multiple of {STRIDE}, got {side}")
        self.side, self.half = side, patch // 2
        self.asked = np.zeros((side, side), bool)  # where the networks are asked about edges
        if every_edge:
            self.asked[self.half - 1 : side - self.half + 1, self.half - 1 : side - self.half + 1] = True
        else:
            for grid in GRIDS:
                inner = slice(self.half + grid, side - self.half, STRIDE)
                self.asked[inner, inner] = True

    def _edge(self, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return a random scene (H, W, 5) and a random labelled edge (2,) in it."""
        for _ in range(ATTEMPTS):
            shard = self.shards[rng.integers(len(self.shards))]
            scene = shard[rng.integers(len(shard))]
            points = rng.integers(0, len(scene), (2, 512))
            kind = scene[points[0], points[1], 4]
            wanted = np.flatnonzero(kind == DEPTH) if rng.random() < DEPTH_CROPS else []
            if not len(wanted):
                wanted = np.flatnonzero(kind == PATTERN)
            if len(wanted):
                return scene, points[:, wanted[0]]
        raise ValueError(f"shards: no labelled edges found in {ATTEMPTS} tries")

    def _crop(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return a crop (S, S, 5) with a random labelled edge on its grid."""
        scene, edge = self._edge(rng)
        size = len(scene)
        on_grid = rng.integers(0, (self.side - 2 * self.half - 1) // STRIDE + 1, 2)
        corner = edge - self.half - STRIDE * on_grid
        if corner.min() < 0 or corner.max() + self.side > size:
            # Patches at the border see the image mirrored (edge pixel repeated), as in the estimator.
            index = np.arange(self.side) + corner[:, None]
            index = np.where(index < 0, -1 - index, np.where(index >= size, 2 * size - 1 - index, index))
            crop = scene[np.ix_(*index)]
        else:
            crop = scene[corner[0] : corner[0] + self.side, corner[1] : corner[1] + self.side]
        crop = np.rot90(crop, rng.integers(4))
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        if rng.random() < 0.3:  # the detector takes the largest channel, so their order does not change the edges
            crop = crop[..., [*rng.permutation(3), 3, 4]]
        return crop

    def __call__(self, count: int, rng: np.random.Generator) -> Batch:
        """Return a batch of `count` crops with the edges that the networks are asked about."""
        crops = np.stack([self._crop(rng) for _ in range(count)])
        kind, radius = crops[..., 4], crops[..., 3]
        edge = (kind != NO_EDGE) & self.asked
        return Batch(
            torch.from_numpy(np.ascontiguousarray(crops[..., :3])).permute(0, 3, 1, 2),
            torch.from_numpy(np.argwhere(edge)),
            torch.from_numpy(radius[edge].astype(np.float32) / RADIUS_SCALE),
            torch.from_numpy(kind[edge].astype(np.int64)),
        )


class Steps(torch.utils.data.Dataset[Batch]):
    """The batch of every step."""

    def __init__(self, sampler: Sampler, crops: int, seed: int) -> None:
        self.sampler, self.crops, self.seed = sampler, crops, seed

    def __getitem__(self, step: int) -> Batch:
        return self.sampler(self.crops, np.random.default_rng([self.seed, step]))


def held_out(model: Tip22 | Fast, shards: Path, device: torch.device) -> list[Batch]:
    """Return the batches that all models of the same patch size are validated on."""
    sampler = Sampler(shards / "validation", model.side, model.patch, model.every_edge)
    rng = np.random.default_rng(12345)
    return [sampler(model.crops, rng).on(device) for _ in range(VALIDATION_CROPS // model.crops)]


def soft_levels(radius: Tensor) -> Tensor:
    """Return (N, 23) targets: each radius shared linearly between its two neighbouring levels."""
    position = ((radius - RADIUS_BINS[0]) / (RADIUS_BINS[1] - RADIUS_BINS[0])).clamp(0, len(RADIUS_BINS) - 1)
    return (1 - (position[:, None] - torch.arange(len(RADIUS_BINS), device=radius.device)).abs()).clamp(min=0)


def losses(model: Tip22 | Fast, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return B-NET's cross-entropy against soft levels, and E-NET's with both classes of the same total weight."""
    blur, edge = (logits.float() for logits in model(batch.crops, batch.at))
    weight = batch.radius.new_tensor([BLUR_WEIGHT[kind] for kind in range(4)])[batch.kind]
    blur_loss = F.cross_entropy(blur, soft_levels(batch.radius), reduction="none")
    depth = (batch.kind == DEPTH).float()
    pattern = (batch.kind == PATTERN).float()
    class_weight = depth / depth.sum().clamp(min=1) + pattern / pattern.sum().clamp(min=1)
    edge_loss = F.cross_entropy(edge, depth.long(), reduction="none")
    return (blur_loss * weight).sum() / weight.sum(), (edge_loss * class_weight).sum() / class_weight.sum()


def scores(model: Tip22 | Fast, batches: list[Batch]) -> dict[str, float]:
    """Return what the networks get right.

    Of B-NET at pattern edges the accuracy (nearest level) and the mean absolute errors, px, of the most probable level
    and of the posterior mean; of E-NET the recall of both classes and their mean, the balanced accuracy.
    """
    results = [model(batch.crops, batch.at) for batch in batches]
    probability = torch.cat([blur for blur, _ in results]).float().softmax(1)
    called_depth = torch.cat([edge for _, edge in results]).argmax(1)
    radius = torch.cat([batch.radius for batch in batches])
    kind = torch.cat([batch.kind for batch in batches])
    levels = radius.new_tensor(RADIUS_BINS)
    pattern = kind == PATTERN
    target = soft_levels(radius)
    recall = [float((called_depth == label)[kind == one].float().mean()) for label, one in enumerate((PATTERN, DEPTH))]
    return {
        "val_blur_loss": float(-(target * probability.clamp(min=1e-9).log()).sum(1)[pattern].mean()),
        "accuracy": float((probability.argmax(1) == target.argmax(1))[pattern].float().mean()),
        "mae_argmax_px": float((levels[probability.argmax(1)] - radius).abs()[pattern].mean()),
        "mae_mean_px": float((probability @ levels - radius).abs()[pattern].mean()),
        "balanced_accuracy": sum(recall) / 2,
        "recall_pattern": recall[0],
        "recall_depth": recall[1],
    }


def _as_matrix(weight: Tensor) -> Tensor:
    """Return a convolution's weight (out, in, ky, kx), channels last, as a view (out, ky * kx * in)."""
    return weight.permute(0, 2, 3, 1).view(len(weight), -1)


def _optimizers(model: Tip22 | Fast, convolutions: list[Tensor], weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions, as matrices, and AdamW for the dense layers."""
    dense = [parameter for parameter in model.parameters() if parameter.ndim < 4]
    return [
        torch.optim.Muon(convolutions, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(dense, weight_decay=weight_decay),
    ]


@torch.no_grad()
def revive(model: Tip22 | Fast, crops: Tensor, without: tuple[str, ...]) -> None:
    """Give channels that hardly ever fire new weights, and those that read them zeros (Sokar et al. 2023, section 4).

    Without biases and normalisation, steps that are large kill whole branches: their features are 0 everywhere, and
    what is 0 has no gradient. Branches whose names begin as one of `without` stay as they are.
    """
    for name, dormant, weight, readers in model.dormant(crops):
        if dormant.any() and not name.startswith(without):
            fresh = torch.empty_like(weight)
            torch.nn.init.kaiming_normal_(fresh, nonlinearity="relu")
            weight[dormant] = fresh[dormant]
            for reader in readers:
                reader[:, dormant] = 0


def learning_rate(step: int, steps: int, warm_up: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def load(model: Tip22 | Fast, folder: Path) -> None:
    """Take the weights of a model folder, as they were before ``training.export`` sharpened them."""
    try:
        model.load_state_dict(read_model(folder).state_dict())
    except RuntimeError:
        raise ValueError(
            f"{folder}: expected a model of the architecture and width to be trained, got another one"
        ) from None
    sharpen(model, 1 / SHARPENING)


def read_checkpoint(file: Path, device: torch.device) -> dict[str, Any]:
    """Return what ``train`` saved."""
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        state["arguments"]
    except OSError:
        raise
    except Exception:  # PyTorch raises many kinds of errors on files that are not what they should be
        raise ValueError(f"{file}: expected a checkpoint of training.train, got another file") from None
    return state


def _ignore_stop(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which reach the processes that draw crops too, to the one that trains."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _save(path: Path, **state: Any) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def train(args: argparse.Namespace) -> None:
    """Train until ``args.steps``; checkpoint, log and validate every ``args.every`` steps.

    Raises:
        ValueError: the shards are not fit; no parameter has a name of ``args.without``; a checkpoint is there that is
            not to be resumed, or was begun with other arguments, or is at ``args.steps``; weights that are not finite,
            which are not saved.
        SystemExit: stopped before ``args.steps``.
    """
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: PyTorch finds no CUDA device here")
    model, average = (MODELS[args.model](args.width).to(device) for _ in range(2))
    half = torch.autocast(device.type, torch.bfloat16, enabled=BFLOAT16 or device.type == "cuda")
    parameters, averaged = list(model.parameters()), list(average.parameters())
    convolutions = [parameter for parameter in parameters if parameter.ndim == 4]
    matrices = [_as_matrix(weight.detach()) for weight in convolutions]
    optimizers = _optimizers(model, matrices, args.weight_decay)
    args.side, args.batch = args.side or model.side, args.batch or model.crops
    names = [name for name, _ in model.named_parameters()]
    for beginning in args.without:
        if not any(name.startswith(beginning) for name in names):
            raise ValueError(f"--without: expected beginnings of {', '.join(names)}, got {beginning}")
    sampler = Sampler(args.shards / "train", args.side, model.patch, model.every_edge)
    validation = held_out(model, args.shards, device)
    arguments = {name: getattr(args, name) for name in FIXED} | {"init": str(args.init)}
    checkpoint, log = (args.out / f"{args.name or args.model}.{kind}" for kind in ("pt", "csv"))
    step, elapsed = 0, 0.0
    if args.resume:
        state = read_checkpoint(checkpoint, device)
        for name, value in state["arguments"].items():
            if arguments[name] != value:
                raise ValueError(f"--resume: {checkpoint} was begun with {name} {value}, got {arguments[name]}")
        model.load_state_dict(state["model"])
        average.load_state_dict(state["ema"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, elapsed = state["step"], state["elapsed_s"]
        if step >= args.steps:
            raise ValueError(f"--steps: expected more than the {step} of {checkpoint}, got {args.steps}")
    else:
        if checkpoint.exists():
            raise ValueError(f"{checkpoint} exists: --resume goes on from it, another --name keeps it")
        if args.init:
            load(model, args.init)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith(tuple(args.without)):
                    parameter.zero_()  # and stays so: its features are 0, and so are all gradients of its branch
        average.load_state_dict(model.state_dict())
        args.out.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    batches = iter(
        torch.utils.data.DataLoader(
            Steps(sampler, args.batch, args.seed),
            batch_size=None,
            sampler=itertools.count(step),
            num_workers=args.workers,
            worker_init_fn=_ignore_stop,
            pin_memory=device.type == "cuda",
        )
    )

    stop = False

    def on_stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True
        signal.signal(number, signal.SIG_DFL)  # a second one stops at once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_stop)

    steps, edges, lost = 0, 0, torch.zeros(2, device=device)  # since the last row of the log
    fastest, alone_until = math.inf, 0
    while step < args.steps and not stop:
        start = time.monotonic()
        # Where another program holds a core, the threads wait for the one on that core: go on with a single one then.
        threads = 1 if step < alone_until else args.threads
        torch.set_num_threads(threads)
        batch = next(batches).on(device)
        if step % REVIVE_EVERY == 0 and step < REVIVE_UNTIL * args.steps:
            torch.manual_seed(args.seed + ((step + 1) << 32))  # the same in a resumed run
            revive(model, batch.crops, tuple(args.without))
        rate = learning_rate(step, args.steps, args.warm_up, args.lr)
        for optimizer, share in zip(optimizers, (1, args.dense_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        with half:
            blur_loss, edge_loss = losses(model, batch)
        model.zero_grad(set_to_none=True)
        (blur_loss + edge_loss).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for weight, matrix in zip(convolutions, matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = _as_matrix(weight.grad.contiguous(memory_format=torch.channels_last))
        for optimizer in optimizers:
            optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1 - decay)
        step += 1
        steps, edges, lost = steps + 1, edges + len(batch.at), lost + torch.stack([blur_loss, edge_loss]).detach()
        duration = time.monotonic() - start
        elapsed += min(duration, LONGEST_STEP_S)
        if threads == args.threads:
            fastest = min(fastest, duration)
            if duration > 2 * fastest:
                alone_until = step + STEPS_ALONE
        if step % args.every == 0 or step == args.steps or stop:
            if not all(bool(parameter.isfinite().all()) for parameter in parameters):
                raise ValueError(
                    f"--lr: too large, the weights of step {step} are not finite; {checkpoint} is kept as it was"
                )
            with torch.no_grad(), half:
                row: dict[str, Any] = {"step": step, "elapsed_s": round(elapsed), "lr": f"{rate:.2e}"}
                means = (edges / steps, *(lost / steps).tolist())
                row |= dict(zip(("edges_per_step", "blur_loss", "edge_loss"), means, strict=True))
                row |= scores(average, validation)
                row["dormant"] = sum(int(mask.sum()) for _, mask, *_ in average.dormant(validation[0].crops))
            steps, edges, lost = 0, 0, torch.zeros_like(lost)
            row = {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()}
            new = not log.exists()
            with open(log, "a", newline="") as file:
                writer = csv.DictWriter(file, row, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(*(f"{key}={value}" for key, value in row.items()), flush=True)
            _save(
                checkpoint,
                model=model.state_dict(),
                ema=average.state_dict(),
                optimizers=[optimizer.state_dict() for optimizer in optimizers],
                step=step,
                elapsed_s=elapsed,
                arguments=arguments,
            )
    if step < args.steps:
        raise SystemExit(f"stopped at step {step} of {args.steps}; --resume with the same arguments goes on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="tip22")
    parser.add_argument(
        "--name", type=plain_name, help="of the checkpoint OUT/<name>.pt and the log OUT/<name>.csv; the model's"
    )
    parser.add_argument("--shards", type=existing, required=True, help="folder written by training.synthesis")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--init", type=existing, help="model folder to start from, with a schedule of its own")
    parser.add_argument("--without", nargs="*", default=[], help="beginnings of names of branches that stay 0")
    parser.add_argument("--width", type=positive, default=64, help="channels")
    parser.add_argument("--steps", type=positive, required=True)
    parser.add_argument("--batch", type=positive, help="crops per step; by default the model's")
    parser.add_argument(
        "--side", type=positive, help="of a crop, px: the model's patch + a multiple of 3; by default the model's"
    )
    parser.add_argument("--lr", type=fraction, default=4e-3, help="peak learning rate")
    parser.add_argument("--warm-up", type=natural, default=150, help="steps")
    parser.add_argument("--dense-lr", type=fraction, default=0.25, help="learning rate of the dense layers, times --lr")
    parser.add_argument("--weight-decay", type=fraction, default=0.1, help="times the learning rate, per step")
    parser.add_argument("--every", type=positive, default=250, help="steps between validations and checkpoints")
    parser.add_argument("--seed", type=natural, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=natural, default=0, help="processes that draw crops ahead")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    run(parser, train)


if __name__ == "__main__":
    main()
