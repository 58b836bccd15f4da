# SPDX-License-Identifier: Apache-2.0
"""What the networks are trained to minimise, and the scores by which they are judged."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.batches import Batch
from training.networks import Fast, Tip22
from training.synthesis import AMBIGUOUS, DEPTH, NO_EDGE, PATTERN, RADIUS_BINS

# Weight of each kind in B-NET's loss: what E-NET misses should still get a sensible radius.
BLUR_WEIGHT = {NO_EDGE: 0.0, PATTERN: 1.0, DEPTH: 0.2, AMBIGUOUS: 0.5}


def soft_bins(radius: Tensor, count: int) -> Tensor:
    """Return (N, count) targets: each radius shared linearly between its two neighbours of the first `count` bins."""
    position = ((radius - RADIUS_BINS[0]) / (RADIUS_BINS[1] - RADIUS_BINS[0])).clamp(0, count - 1)
    return (1 - (position[:, None] - torch.arange(count, device=radius.device)).abs()).clamp(min=0)


def losses(model: Tip22 | Fast, batch: Batch, teacher: Tip22 | Fast | None = None) -> tuple[Tensor, Tensor]:
    """Return B-NET's cross-entropy against soft bins, and E-NET's with both classes of the same total weight.

    Half of each target is the answer of the `teacher`, if there is one (Hinton et al. 2015, *Distilling the Knowledge
    in a Neural Network*).
    """
    blur, edge = (logits.float() for logits in model(batch.crops, batch.at))
    weight = batch.radius.new_tensor([BLUR_WEIGHT[kind] for kind in range(4)])[batch.kind]
    radii, classes = soft_bins(batch.radius, blur.shape[1]), F.one_hot((batch.kind == DEPTH).long(), 2).float()
    if teacher is not None:
        with torch.no_grad():
            answers = (logits.float().softmax(1) for logits in teacher(batch.crops, batch.at))
            radii, classes = ((target + answer) / 2 for target, answer in zip((radii, classes), answers, strict=True))
    blur_loss = F.cross_entropy(blur, radii, reduction="none")
    depth = (batch.kind == DEPTH).float()
    pattern = (batch.kind == PATTERN).float()
    class_weight = depth / depth.sum().clamp(min=1) + pattern / pattern.sum().clamp(min=1)
    edge_loss = F.cross_entropy(edge, classes, reduction="none")
    return (blur_loss * weight).sum() / weight.sum(), (edge_loss * class_weight).sum() / class_weight.sum()


def scores(model: Tip22 | Fast, batches: list[Batch]) -> dict[str, float]:
    """Return what the networks get right.

    Of B-NET, at pattern edges of a radius within its bins, the accuracy (nearest bin) and the mean absolute errors, px,
    of the most probable bin and of the posterior mean; of E-NET the recall of both classes and their mean, the balanced
    accuracy.
    """
    results = [model(batch.crops, batch.at) for batch in batches]
    probability = torch.cat([blur for blur, _ in results]).float().softmax(1)
    called_depth = torch.cat([edge for _, edge in results]).argmax(1)
    radius = torch.cat([batch.radius for batch in batches])
    kind = torch.cat([batch.kind for batch in batches])
    bins = radius.new_tensor(RADIUS_BINS)[: probability.shape[1]]
    pattern = (kind == PATTERN) & (radius <= bins[-1])
    target = soft_bins(radius, len(bins))
    recall = [float((called_depth == label)[kind == one].float().mean()) for label, one in enumerate((PATTERN, DEPTH))]
    return {
        "val_blur_loss": float(-(target * probability.clamp(min=1e-9).log()).sum(1)[pattern].mean()),
        "accuracy": float((probability.argmax(1) == target.argmax(1))[pattern].float().mean()),
        "mae_argmax_px": float((bins[probability.argmax(1)] - radius).abs()[pattern].mean()),
        "mae_mean_px": float((probability @ bins - radius).abs()[pattern].mean()),
        "balanced_accuracy": sum(recall) / 2,
        "recall_pattern": recall[0],
        "recall_depth": recall[1],
    }
