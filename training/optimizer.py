# SPDX-License-Identifier: Apache-2.0
"""How a step changes the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from training.networks import Fast, Tip22


def _as_matrix(weight: Tensor) -> Tensor:
    """Return a convolution's weight (out, in, ky, kx), channels last, as a view (out, ky * kx * in)."""
    return weight.permute(0, 2, 3, 1).view(len(weight), -1)


class Optimizer:
    """Muon for the convolutions, as matrices, and AdamW for the dense layers."""

    def __init__(self, model: Tip22 | Fast, dense_lr: float, weight_decay: float) -> None:
        self.parameters = list(model.parameters())
        self.convolutions = [parameter for parameter in self.parameters if parameter.ndim == 4]
        self.matrices = [_as_matrix(weight.detach()) for weight in self.convolutions]
        dense = [parameter for parameter in self.parameters if parameter.ndim < 4]
        # Each with its share of the learning rate.
        self.optimizers = {
            torch.optim.Muon(self.matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"): 1.0,
            torch.optim.AdamW(dense, weight_decay=weight_decay): dense_lr,
        }

    def step(self, rate: float) -> None:
        """Change the weights by their gradients."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for weight, matrix in zip(self.convolutions, self.matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = _as_matrix(weight.grad.contiguous(memory_format=torch.channels_last))
        for optimizer, share in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what ``load_state_dict`` takes."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Go on from what ``state_dict`` returned."""
        for optimizer, saved in zip(self.optimizers, state, strict=True):
            optimizer.load_state_dict(saved)


def learning_rate(step: int, steps: int, warm_up: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


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
