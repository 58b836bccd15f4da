# SPDX-License-Identifier: Apache-2.0
"""The networks of the paper (Fig. 4), evaluated for all edges of a crop at once.

Features are computed once per crop. Edges are taken on a grid 3 px apart: then everything behind the 3x3 pool of
branches 1 and 2 is needed on that grid only, a ninth of the positions. A crop of side 41 + 3 k holds (k + 1)^2 grid
points, the first at pixel (20, 20). Per edge the result is that of the literal network on its centred 41, 27 and
15 px crops.

Parameters carry the names under which they are exported: convolutions are (out, in, ky, kx) without bias, dense
weights (in, out).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 3  # px between grid points, and side of a cell


def _convolution(inputs: int, outputs: int, side: int) -> nn.Parameter:
    """He initialisation: without biases and normalisation nothing weaker gets off the ground."""
    weight = torch.empty(outputs, inputs, side, side)
    nn.init.kaiming_normal_(weight, nonlinearity="relu")
    return nn.Parameter(weight.contiguous(memory_format=torch.channels_last))


def _conv_relu(x: Tensor, weight: Tensor) -> Tensor:
    return F.relu(F.conv2d(x, weight), inplace=True)


class Branch(nn.Module):
    """Four convolutions; a 3x3 pool after the first `before_pool` of them, if that is not None."""

    def __init__(self, width: int, before_pool: int | None, last: int = 3) -> None:
        super().__init__()
        self.before_pool = before_pool
        self.conv1 = _convolution(3, width, 3)
        self.conv2 = _convolution(width, width, 3)
        self.conv3 = _convolution(width, width, 3)
        self.conv4 = _convolution(width, width, last)

    def forward(self, x: Tensor) -> Tensor:
        for number, weight in enumerate((self.conv1, self.conv2, self.conv3, self.conv4), 1):
            if number == self.before_pool:  # max and ReLU commute; a ninth of the pixels is left for the ReLU
                x = F.relu(F.max_pool2d(F.conv2d(x, weight), 3, STRIDE), inplace=True)
            else:
                x = _conv_relu(x, weight)
        return x


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

    def forward(self, coarse: Tensor, fine: Tensor, at: Tensor) -> Tensor:
        """Return logits (N, outputs) for the grid points `at`.

        Args:
            coarse: (B, C1, k + 7, k + 7), features on the grid; `conv1` takes its channels first.
            fine: (B, C2, 3 k + 7, 3 k + 7), features on pixels.
            at: (N, 3) int64: crop, row and column on the grid.
        """
        split = coarse.shape[1]
        u = F.conv2d(coarse, self.conv1[:, :split])
        v = F.conv2d(fine, self.conv1[:, split:])
        offset = torch.arange(5)
        x = F.relu(_windows(u, at[:, 0], at[:, 1:], offset) + _windows(v, at[:, 0], at[:, 1:] * STRIDE, offset))
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
    every_edge = False  # whether edges may lie anywhere, or on the grid only

    def __init__(self, width: int = 64, levels: int = 23) -> None:
        super().__init__()
        self.branch1 = Branch(width, before_pool=1)
        self.branch2 = Branch(width, before_pool=3, last=1)
        self.branch3 = Branch(width, before_pool=None)
        self.blur = Head(3 * width, width, levels)
        self.edge_branch1 = Branch(width, before_pool=1)
        self.edge = Head(4 * width, width, 2)

    def forward(self, crops: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of both networks, (N, levels) and (N, 2): 0 = pattern, 1 = depth.

        Args:
            crops: (B, 3, S, S) in [0, 1].
            at: (N, 3) int64, edges as crop, row and column of a pixel on the grid.
        """
        at = torch.cat([at[:, :1], (at[:, 1:] - self.patch // 2) // STRIDE], 1)
        coarse = torch.cat([self.branch1(crops), self.branch2(crops[..., 7:-7, 7:-7])], 1)
        fine = self.branch3(crops[..., 13:-13, 13:-13])
        blur = self.blur(coarse, fine, at)
        edge = self.edge(torch.cat([self.edge_branch1(crops), coarse], 1), fine, at)
        return blur, edge


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

    def __init__(self, width: int = 64, levels: int = 23, depth: int = 6) -> None:
        super().__init__()
        self.patch = 9 + 2 * STRIDE * depth
        self.stem = _convolution(3, width, 9)
        self.convs = nn.ParameterList(_convolution(width, width, 3) for _ in range(depth))
        self.blur, self.edge = CellHead(width, levels), CellHead(width, 2)

    def forward(self, crops: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Tip22.forward``; `at` holds any pixels whose cells' patches lie in the crop."""
        x = F.relu(F.conv2d(crops, self.stem, stride=STRIDE), inplace=True)
        for weight in self.convs:
            x = _conv_relu(x, weight)
        cell = (at[:, 1:] - (self.patch // 2 - 1)) // STRIDE
        features = x.permute(0, 2, 3, 1)[at[:, 0], cell[:, 0], cell[:, 1]]
        return self.blur(features), self.edge(features)


MODELS = {"tip22": Tip22, "fast": Fast}
