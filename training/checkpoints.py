# SPDX-License-Identifier: Apache-2.0
"""A training run between its steps: begun, saved and resumed."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from training.networks import SHARPENING, Fast, Tip22, read_model, sharpen
from training.optimizer import Optimizer

Network = TypeVar("Network", bound=torch.nn.Module)


def mean(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the means of weights that were trained from the same ones: a "model soup" (Wortsman et al. 2022) does
    about as well as each of them at what it does best."""
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def load_mean(model: Tip22 | Fast, folders: list[Path]) -> None:
    """Take the means of the weights of model folders."""
    states = []
    for folder in folders:
        load_weights(model, folder)
        states.append({name: values.clone() for name, values in model.state_dict().items()})
    model.load_state_dict(mean(states))


def load_weights(model: Tip22 | Fast, folder: Path) -> None:
    """Take the weights of a model folder, as they were before ``training.export`` sharpened them.

    Of a model that has fewer radius bins, the last one becomes all that are missing; of one that has more, the first
    ones are taken. Of a deeper model of cells, the
    first convolutions are taken; of a wider one, the channels of the largest weights.
    """
    try:
        weights = read_model(folder).state_dict()
        own_names = model.state_dict().keys()
        *_, last_layer = (f"blur.{name}" for name, _ in model.blur.named_children())
        weights = {name: values for name, values in weights.items() if name in own_names or name[:6] != "convs."}
        if isinstance(model, Fast) and "stem" in weights:
            weights = of_fewer_channels(weights, len(model.stem))
        for name, own in model.state_dict().items():
            if name.startswith(last_layer) and name in weights:
                bins = torch.arange(own.shape[-1]).clamp(max=weights[name].shape[-1] - 1)
                weights[name] = weights[name][..., bins]
        model.load_state_dict(weights)
    except RuntimeError:
        raise ValueError(
            f"{folder}: expected a model of the architecture and width to be trained, got another one"
        ) from None
    sharpen(model, 1 / SHARPENING)


def of_fewer_channels(weights: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """Return the weights of a narrower model of cells. What a channel's weights may do is the product of the norms of
    those that make it and of those that read it."""
    weights = dict(weights)

    def strongest(count: int, made: torch.Tensor, *read: torch.Tensor) -> torch.Tensor:
        """Return which channels to keep, of (channels, ...) weights."""
        norms = [values.flatten(1).norm(dim=1) for values in (made, torch.cat([r.flatten(1) for r in read], 1))]
        return (norms[0] * norms[1]).topk(count).indices.sort().values

    heads = [f"{head}.dense1.weight" for head in ("blur", "edge")]  # (channels, outputs)
    layers = ["stem", *(f"convs.{i}" for i in range(sum(name.startswith("convs.") for name in weights)))]
    for name, after in itertools.pairwise(layers):
        kept = strongest(width, weights[name], weights[after].transpose(0, 1))
        weights[name], weights[after] = weights[name][kept], weights[after][:, kept]
    kept = strongest(width, weights[layers[-1]], *(weights[head] for head in heads))
    weights |= {name: weights[name][kept] for name in (layers[-1], *heads)}
    for head in heads:
        bias, after = head.replace("weight", "bias"), head.replace("dense1", "dense2")
        kept = strongest(2 * width, weights[head].T, weights[after])
        weights |= {head: weights[head][:, kept], bias: weights[bias][kept], after: weights[after][kept]}
    return weights


def read_checkpoint(file: Path, device: torch.device) -> dict[str, Any]:
    """Return what a run saved."""
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        state["arguments"]
    except OSError:
        raise
    except Exception:  # PyTorch raises many kinds of errors on files that are not what they should be
        raise ValueError(f"{file}: expected a checkpoint of training, got another file") from None
    return state


@dataclass
class Run(Generic[Network]):
    """The networks of a run, and how far it is."""

    model: Network
    average: Network  # exponential moving average of the weights, which is what is validated and exported
    optimizer: Optimizer | torch.optim.Optimizer
    arguments: dict[str, Any]  # those that a resumed run shares with its beginning
    step: int = 0
    elapsed_s: float = 0.0

    def save(self, file: Path) -> None:
        """Write a checkpoint; whatever ends the process meanwhile, an earlier one stays whole."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.average.state_dict(),
            "optimizers": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "arguments": self.arguments,
        }
        part = file.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, file)

    def resume(self, file: Path, device: torch.device, steps: int) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is none, was begun with other arguments, or is at `steps`.
        """
        state = read_checkpoint(file, device)
        for name, value in state["arguments"].items():
            if (given := self.arguments.get(name)) != value:
                raise ValueError(f"--resume: {file} was begun with {name} {value}, got {given}")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizers"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        if self.step >= steps:
            raise ValueError(f"--steps: expected more than the {self.step} of {file}, got {steps}")
