# SPDX-License-Identifier: Apache-2.0
"""The networks of the paper (Fig. 4), evaluated for all edges of a crop at once.

Features are computed once per crop. Everything behind the 3x3 pool of branches 1 and 2 is needed at every third pixel
from an edge on. So edges are taken on two of the nine grids 3 px apart: what lies before the pool and all of branch 3,
most of the work, serves both. Per edge the result is that of the literal network on its
centred 41, 27 and 15 px crops.

Parameters carry the names under which they are exported: convolutions are (out, in, ky, kx) without bias, dense
weights (in, out).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defocus_fast.model_io import propagation_shapes, read_weights
from training.synthesis import RADIUS_BINS

STRIDE = 3  # px between grid points, and side of a cell
DORMANT = 1e-3  # share of the places at which a channel fires, below which nothing is left of it
GRIDS = (0, 2)  # px from the first edge that a crop can hold to a grid's first point, down and right


def _convolution(inputs: int, outputs: int, side: int) -> nn.Parameter:
    """He initialisation: without biases and normalisation nothing weaker gets off the ground."""
    weight = torch.empty(outputs, inputs, side, side)
    nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return nn.Parameter(weight.contiguous(memory_format=torch.channels_last))


def _conv_relu(x: Tensor, weight: Tensor) -> Tensor:
    return F.relu(F.conv2d(x, weight), inplace=True)


class Branch(nn.Module):
    """Four convolutions."""

    def __init__(self, width: int, last: int = 3) -> None:
        super().__init__()
        self.conv1 = _convolution(3, width, 3)
        self.conv2 = _convolution(width, width, 3)
        self.conv3 = _convolution(width, width, 3)
        self.conv4 = _convolution(width, width, last)

    def forward(self, x: Tensor) -> Tensor:
        for weight in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = _conv_relu(x, weight)
        return x


def _dormant(features: Tensor) -> Tensor:
    """Return which channels of (B, C, H, W) hardly ever fire."""
    return (features > 0).float().mean((0, 2, 3)) < DORMANT


class PooledBranch(Branch):
    """A 3x3 pool after the first `before_pool` of the convolutions; features on each of the grids."""

    def __init__(self, width: int, before_pool: int, last: int = 3) -> None:
        super().__init__(width, last)
        self.before_pool = before_pool

    def forward(self, x: Tensor) -> list[Tensor]:
        weights = [self.conv1, self.conv2, self.conv3, self.conv4]
        for weight in weights[: self.before_pool - 1]:
            x = _conv_relu(x, weight)
        x = F.conv2d(x, weights[self.before_pool - 1])
        grids = []
        # The second grid's windows are those that begin one pixel outside, without the first of them: a slice of x
        # would cost more than a convolution. Max and ReLU commute; a ninth of the pixels is left for the ReLU.
        for y in (F.max_pool2d(x, 3, STRIDE), F.max_pool2d(x, 3, STRIDE, padding=1)[..., 1:, 1:]):
            y = F.relu(y, inplace=True)
            for weight in weights[self.before_pool :]:
                y = _conv_relu(y, weight)
            grids.append(y)
        return grids


class Dense(nn.Module):
    """x @ weight + bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(inputs, outputs), mode="fan_out"))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Head(nn.Module):
    """b-NET or e-NET: the fusion convolutions and the dense layers."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, width, 3)
        self.conv2 = _convolution(width, width, 3)
        self.conv3 = _convolution(width, width, 3)
        self.conv4 = _convolution(width, width, 1)
        self.dense1, self.dense2, self.dense3 = Dense(width, 300), Dense(300, 150), Dense(150, outputs)

    def forward(self, coarse: list[Tensor], fine: Tensor, at: Tensor) -> Tensor:
        """Return logits (N, outputs) for the edges `at`.

        Args:
            coarse: by grid, (B, C1, H', W') features; `conv1` takes their channels first.
            fine: (B, C2, H, W) features on pixels.
            at: (N, 3) int64: crop, row and column, seen from the first edge that the crop can hold; by grid.
        """
        split = coarse[0].shape[1]
        v = F.conv2d(fine, self.conv1[:, split:])
        offset = torch.arange(5, device=at.device)
        x = _windows(v, at[:, 0], at[:, 1:], offset)
        of_grid = [at[at[:, 1] % STRIDE == grid] for grid in GRIDS]
        u = [
            _windows(F.conv2d(features, self.conv1[:, :split]), edges[:, 0], edges[:, 1:] // STRIDE, offset)
            for features, edges in zip(coarse, of_grid, strict=True)
        ]
        x = F.relu(x + torch.cat(u), inplace=True)
        x = _conv_relu(x, self.conv2)
        x = _conv_relu(x, self.conv3)
        x = _conv_relu(x, self.conv4).flatten(1)
        return self.dense3(F.relu(self.dense2(F.relu(self.dense1(x)))))


def _windows(features: Tensor, crop: Tensor, corner: Tensor, offset: Tensor) -> Tensor:
    """Return the 5x5 windows (N, C, 5, 5), channels last, of (B, C, H, W) whose first pixel is `corner` (N, 2)."""
    _, channels, height, width = features.shape
    rows = (corner[:, :1] + offset)[:, :, None]
    columns = (corner[:, 1:] + offset)[:, None, :]
    index = (crop[:, None, None] * height + rows) * width + columns
    # Gathered as float32: the gradients of overlapping windows add up, too many of them for bfloat16.
    flat = features.permute(0, 2, 3, 1).reshape(-1, channels).float()
    return flat.index_select(0, index.flatten()).view(-1, 5, 5, channels).permute(0, 3, 1, 2)


class Tip22(nn.Module):
    """B-NET and E-NET, which share branches 1 to 3 (f1-NET)."""

    patch = 41  # px, side of what an edge is judged by
    side, crops = 77, 24  # px of a training crop, and crops per step
    every_edge = False  # whether edges may lie anywhere, or on the grids only

    def __init__(self, width: int = 64, bins: int = len(RADIUS_BINS)) -> None:
        super().__init__()
        self.branch1 = PooledBranch(width, before_pool=1)
        self.branch2 = PooledBranch(width, before_pool=3, last=1)
        self.branch3 = Branch(width)
        self.blur = Head(3 * width, width, bins)
        self.edge_branch1 = PooledBranch(width, before_pool=1)
        self.edge = Head(4 * width, width, 2)

    def forward(self, crops: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of both networks, (N, bins) and (N, 2): 0 = pattern, 1 = depth.

        Args:
            crops: (B, 3, S, S) in [0, 1].
            at: (N, 3) int64, edges as crop, row and column of a pixel on one of the grids.
        """
        at = at - at.new_tensor([0, self.patch // 2, self.patch // 2])
        order = (at[:, 1] % STRIDE).argsort(stable=True)  # by grid
        back = order.argsort()
        coarse = [
            torch.cat(pair, 1) for pair in zip(self.branch1(crops), self.branch2(crops[..., 7:-7, 7:-7]), strict=True)
        ]
        fine = self.branch3(crops[..., 13:-13, 13:-13])
        blur = self.blur(coarse, fine, at[order])
        with_own = [torch.cat(pair, 1) for pair in zip(self.edge_branch1(crops), coarse, strict=True)]
        edge = self.edge(with_own, fine, at[order])
        return blur[back], edge[back]

    def dormant(self, crops: Tensor) -> Iterator[tuple[str, Tensor, Tensor, list[Tensor]]]:
        """Yield, of every convolution of the branches, which of its channels hardly ever fire on (B, 3, S, S) crops.

        That is its branch's name, a mask (width,), its weight, and views (outputs, width, ...) of what reads its
        channels. What is done to the weights meanwhile counts for the layers that follow.
        """
        order = {
            "edge_branch1": 0,
            "branch1": 1,
            "branch2": 2,
            "branch3": 3,
        }  # in edge.conv1; blur.conv1 lacks the first
        width = len(self.branch1.conv1)
        for name, place in order.items():
            branch = getattr(self, name)
            weights = [branch.conv1, branch.conv2, branch.conv3, branch.conv4]
            heads = [self.edge.conv1[:, place * width :][:, :width]]
            if place > 0:
                heads.append(self.blur.conv1[:, (place - 1) * width :][:, :width])
            x = crops
            for number, weight in enumerate(weights, 1):
                yield name, _dormant(F.conv2d(x, weight)), weight, heads if number == 4 else [weights[number]]
                x = F.relu(F.conv2d(x, weight))
                if number == getattr(branch, "before_pool", None):
                    x = F.max_pool2d(x, 3, STRIDE)


class CellHead(nn.Module):
    """From a cell's features to logits."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.dense1, self.dense2 = Dense(width, 2 * width), Dense(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense2(F.relu(self.dense1(x)))


class Fast(nn.Module):
    """One network for both questions, asked once per cell of 3x3 pixels: all edges in a cell get its answer.

    A convolution of 9x9 pixels and stride 3 turns cells into features, `depth` of 3x3 cells follow; VALID, no bias.
    """

    every_edge = True

    def __init__(self, width: int = 64, bins: int = len(RADIUS_BINS), depth: int = 6) -> None:
        super().__init__()
        self.patch = 9 + 2 * STRIDE * depth
        self.side, self.crops = self.patch + 30, 36
        self.stem = _convolution(3, width, 9)
        self.convs = nn.ParameterList(_convolution(width, width, 3) for _ in range(depth))
        self.blur, self.edge = CellHead(width, bins), CellHead(width, 2)

    def forward(self, crops: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Tip22.forward``; `at` holds any pixels whose cells' patches lie in the crop."""
        x = F.relu(F.conv2d(crops, self.stem, stride=STRIDE), inplace=True)
        for weight in self.convs:
            x = _conv_relu(x, weight)
        cell = (at[:, 1:] - (self.patch // 2 - 1)) // STRIDE
        features = x.permute(0, 2, 3, 1)[at[:, 0], cell[:, 0], cell[:, 1]]
        return self.blur(features), self.edge(features)

    def dormant(self, crops: Tensor) -> Iterator[tuple[str, Tensor, Tensor, list[Tensor]]]:
        """As ``Tip22.dormant``."""
        weights = [self.stem, *self.convs]
        heads = [head.dense1.weight.T for head in (self.blur, self.edge)]
        x, stride = crops, STRIDE
        for number, weight in enumerate(weights, 1):
            readers = heads if number == len(weights) else [weights[number]]
            yield "convs", _dormant(F.conv2d(x, weight, stride=stride)), weight, readers
            x, stride = F.relu(F.conv2d(x, weight, stride=stride)), 1


MODELS = {"tip22": Tip22, "fast": Fast}


def read_model(folder: Path) -> Tip22 | Fast:
    """Return the network of a model folder; architecture, width, depth and number of bins are those of its weights. The
    network of distances, which training/propagation.py has, is not part of it.

    Raises:
        ValueError: the crops of the model do not share their centre, as those of the published weights.
        OSError: no model is in the folder.
    """
    weights = {
        name: torch.from_numpy(array.copy())
        for name, array in read_weights(folder).items()
        if name not in propagation_shapes()
    }
    if "crop_offset: 1" in (folder / "model.txt").read_text(encoding="utf-8").splitlines():
        raise ValueError(f"{folder}: expected a model whose crops share their centre, got crop_offset 1")
    name, first, last = (
        ("fast", "stem", "blur.dense2") if "stem" in weights else ("tip22", "branch1.conv1", "blur.dense3")
    )
    depth = {"depth": sum(tensor.startswith("convs.") for tensor in weights)} if name == "fast" else {}
    model = MODELS[name](len(weights[first]), len(weights[f"{last}.bias"]), **depth)
    model.load_state_dict(weights)
    return model


def read_teacher(folder: Path, model: Tip22 | Fast) -> Tip22 | Fast:
    """Return the network of a model folder as it was trained, to answer what `model` learns.

    Raises:
        ValueError: it takes other patches or has other radius bins.
        OSError: no model is in the folder.
    """
    teacher = read_model(folder)
    bins, expected = (len([*each.blur.children()][-1].bias) for each in (teacher, model))
    if (type(teacher), teacher.patch, bins) != (type(model), model.patch, expected):
        raise ValueError(f"{folder}: expected a teacher of the same architecture, depth and {expected} radius bins")
    sharpen(teacher, 1 / SHARPENING)
    return teacher.requires_grad_(False)


SHARPENING = 1.5
"""Shipped models have B-NET's logits times this. Targets are shared between two bins, which makes probabilities wider
than what is known of a radius; of 1, 1.25, 1.5, 1.75, 2 and 3 it made the best maps of the tuning scenes, on average of
both models."""


def sharpen(model: Tip22 | Fast, factor: float) -> None:
    """Multiply B-NET's logits by `factor`."""
    *_, last = model.blur.children()
    with torch.no_grad():
        for parameter in last.parameters():
            parameter *= factor
