# SPDX-License-Identifier: Apache-2.0
"""Train B-NET and E-NET on shards of synthetic scenes.

Both are trained at once, and both losses shape the features that they share (the paper trains B-NET first and freezes
these). The schedule counts steps, not time, so a run may be stopped (Ctrl-C and SIGTERM save a checkpoint), suspended
and resumed. Every step draws its crops from its own seed: a resumed run sees the same data.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from training import existing, fraction, natural, plain_name, positive, run
from training.batches import Sampler, Steps, batches_from, held_out
from training.checkpoints import Run, load_mean
from training.losses import losses, scores
from training.networks import MODELS, Fast, Tip22, read_teacher
from training.optimizer import Optimizer, learning_rate, revive
from training.synthesis import RADIUS_BINS

BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # elsewhere float32 is faster
# Arguments that a resumed run shares with its beginning.
FIXED = (
    *("model", "width", "depth", "bins", "without"),
    *("batch", "side", "seed", "lr", "warm_up", "dense_lr", "weight_decay"),
)
EMA_DECAY = 0.998
REVIVE_EVERY, REVIVE_UNTIL = 100, 0.7  # steps, share of the schedule
STEPS_ALONE = 40  # steps with a single thread before trying all of them again
LONGEST_STEP_S = 10.0  # a step that took longer was suspended; it counts as this much in the log


class Stop:
    """Whether Ctrl-C or SIGTERM asked for an end; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)


class Threads:
    """Threads of a step. Where another program holds a core, they wait for the one on that core: for some steps a
    single one is faster then.
    """

    def __init__(self, most: int) -> None:
        self.most, self.now = most, most
        self.fastest_s, self.alone_until = math.inf, 0

    def begin(self, step: int) -> None:
        self.now = 1 if step < self.alone_until else self.most
        torch.set_num_threads(self.now)

    def end(self, step: int, duration_s: float) -> None:
        if self.now == self.most:
            self.fastest_s = min(self.fastest_s, duration_s)
            if duration_s > 2 * self.fastest_s:
                self.alone_until = step + STEPS_ALONE


def append(log: Path, row: dict[str, Any]) -> None:
    """Add a row to a CSV file, and print it."""
    row = {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()}
    new = not log.exists()
    with open(log, "a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(*(f"{key}={value}" for key, value in row.items()), flush=True)


def begin(args: argparse.Namespace, device: torch.device) -> Run[Tip22 | Fast]:
    """Return a run at its first step. `args` gets the model's values of what was not given."""
    if args.depth and args.model != "fast":
        raise ValueError(f"--depth: only fast has one, got {args.model}")
    if not 2 <= args.bins <= len(RADIUS_BINS):
        raise ValueError(f"--bins: expected 2 to {len(RADIUS_BINS)}, got {args.bins}")
    depth = {"depth": args.depth} if args.depth else {}
    model, average = (MODELS[args.model](args.width, args.bins, **depth).to(device) for _ in range(2))
    args.side, args.batch = args.side or model.side, args.batch or model.crops
    names = [name for name, _ in model.named_parameters()]
    for beginning in args.without:
        if not any(name.startswith(beginning) for name in names):
            raise ValueError(f"--without: expected beginnings of {', '.join(names)}, got {beginning}")
    arguments = {name: getattr(args, name) for name in FIXED} | {"init": " ".join(map(str, args.init))}
    arguments["teacher"] = str(args.teacher or "")
    return Run(model, average, Optimizer(model, args.dense_lr, args.weight_decay), arguments)


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
    half = torch.autocast(device.type, torch.bfloat16, enabled=BFLOAT16 or device.type == "cuda")
    state = begin(args, device)
    model, average = state.model, state.average
    teacher = read_teacher(args.teacher, model).to(device) if args.teacher else None
    sampler = Sampler(args.shards / "train", args.side, model.patch, model.every_edge)
    validation = held_out(model, args.shards, device)
    checkpoint, log = (args.out / f"{args.name or args.model}.{kind}" for kind in ("pt", "csv"))
    if args.resume:
        state.resume(checkpoint, device, args.steps)
    else:
        if checkpoint.exists():
            raise ValueError(f"{checkpoint} exists: --resume goes on from it, another --name keeps it")
        if args.init:
            load_mean(model, args.init)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith(tuple(args.without)):
                    parameter.zero_()  # and stays so: its features are 0, and so are all gradients of its branch
        average.load_state_dict(model.state_dict())
        args.out.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    batches = batches_from(
        state.step, Steps(sampler, args.batch, args.seed), args.workers, pin_memory=device.type == "cuda"
    )
    parameters, averaged = list(model.parameters()), list(average.parameters())
    stop, threads = Stop(), Threads(args.threads)
    steps, edges, lost = 0, 0, torch.zeros(2, device=device)  # since the last row of the log
    while state.step < args.steps and not stop.asked:
        start = time.monotonic()
        threads.begin(state.step)
        batch = next(batches).on(device)
        if state.step % REVIVE_EVERY == 0 and state.step < REVIVE_UNTIL * args.steps:
            torch.manual_seed(args.seed + ((state.step + 1) << 32))  # the same in a resumed run
            revive(model, batch.crops, tuple(args.without))
        with half:
            blur_loss, edge_loss = losses(model, batch, teacher)
        model.zero_grad(set_to_none=True)
        (blur_loss + edge_loss).backward()
        rate = learning_rate(state.step, args.steps, args.warm_up, args.lr)
        state.optimizer.step(rate)
        decay = min(EMA_DECAY, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1 - decay)
        state.step += 1
        steps, edges, lost = steps + 1, edges + len(batch.at), lost + torch.stack([blur_loss, edge_loss]).detach()
        duration = time.monotonic() - start
        state.elapsed_s += min(duration, LONGEST_STEP_S)
        threads.end(state.step, duration)
        if state.step % args.every == 0 or state.step == args.steps or stop.asked:
            if not all(bool(parameter.isfinite().all()) for parameter in parameters):
                raise ValueError(
                    f"--lr: too large, the weights of step {state.step} are not finite; {checkpoint} is kept as it was"
                )
            with torch.no_grad(), half:
                row: dict[str, Any] = {"step": state.step, "elapsed_s": round(state.elapsed_s), "lr": f"{rate:.2e}"}
                means = (edges / steps, *(lost / steps).tolist())
                row |= dict(zip(("edges_per_step", "blur_loss", "edge_loss"), means, strict=True))
                row |= scores(average, validation)
                row["dormant"] = sum(int(mask.sum()) for _, mask, *_ in average.dormant(validation[0].crops))
            steps, edges, lost = 0, 0, torch.zeros_like(lost)
            append(log, row)
            state.save(checkpoint)
    if state.step < args.steps:
        raise SystemExit(f"stopped at step {state.step} of {args.steps}; --resume with the same arguments goes on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="tip22")
    parser.add_argument(
        "--name", type=plain_name, help="of the checkpoint OUT/<name>.pt and the log OUT/<name>.csv; the model's"
    )
    parser.add_argument("--shards", type=existing, required=True, help="folder written by training.synthesis")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument(
        "--init",
        type=existing,
        nargs="+",
        default=[],
        help="model folder to start from, with a schedule of its own; of several the mean of their weights",
    )
    parser.add_argument(
        "--teacher", type=existing, help="model folder of the same radius bins, whose answers are half of the targets"
    )
    parser.add_argument("--without", nargs="*", default=[], help="beginnings of names of branches that stay 0")
    parser.add_argument("--width", type=positive, default=64, help="channels")
    parser.add_argument("--depth", type=positive, help="convolutions behind the first one, of fast; by default 6")
    parser.add_argument(
        "--bins",
        type=positive,
        default=len(RADIUS_BINS),
        help="the first so many of the radius bins; the last one stands for all larger radii. By default all, to 8 px",
    )
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
