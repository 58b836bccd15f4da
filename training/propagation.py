# SPDX-License-Identifier: Apache-2.0
"""The network that tells the domain transform where radii may spread, and the filter itself with its gradient.

The network reads regions of 8 x 8 px of the octave in which radii are spread: what stands in them of edges, of contrast
and of the guide, and the image's size; and its context, which is what the whole image is like. For each region it gives
logarithms of factors (see GAIN and the others), between whose centres is interpolated; the filter is that of the
estimator. So it cannot invent radii, only say which ones count where, and how far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from defocus_fast import Estimator, domain_transform_filter
from defocus_fast.model_io import DILATIONS, PROPAGATION

REGION = 8  # px of the octave in which radii are spread
GROUPS = 5  # of octaves, from the one above the spreading one's; the last holds all that are coarser
INPUTS, WIDTH, OUTPUTS = PROPAGATION  # see `sample`
GAIN, ACROSS, DOWN, BARRIER, WEIGHT, ERROR = 0, 1, 2, 3, 5, 16
"""Factors of the guide's differences; distances in px that are added along rows and along columns; factors of psi at
barriers of the first group and of coarser ones, of the weights of the kinds of edges (pattern edges of the first group,
the second and coarser ones; each of the SIDES of depth edges of the first group and of coarser ones) and of the
expected error."""
KINDS = ERROR - WEIGHT
_OF_EDGES = np.arange(7 * GROUPS).reshape(GROUPS, 7)
INPUTS_OF = {
    "density": _OF_EDGES[:, [0, 3]].ravel(),
    "radius": _OF_EDGES[:, [1, 4]].ravel(),
    "deviation": _OF_EDGES[:, [2, 5]].ravel(),
    "depth": _OF_EDGES[:, 6],
    "contrast": _OF_EDGES.size + np.array([0, 1, 2]),
    "barriers": _OF_EDGES.size + np.array([3, 4]),
    "size": _OF_EDGES.size + np.array([5]),
    "guide": _OF_EDGES.size + np.array([6, 7]),
}
"""Inputs by what they are of, in the order of `of_edges` and `sample`."""
SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, below, above
CONTEXT = 3  # the convolution to whose outputs what the image is like is added
LIMIT = 8.0  # of the logarithms
CERTAIN = 0.15
LEAST_WEIGHT = 1e-18
FAINT = 2e-6  # energy that rounding to 1/255 leaves

Array = np.ndarray[Any, Any]


def reduced(image: Array, times: int) -> Array:
    """Return the image `times` octaves coarser, as the estimator reduces it."""
    for _ in range(times):
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        four = image[:height, :width].astype(np.uint16)
        image = ((four[::2, ::2] + four[1::2, ::2] + four[::2, 1::2] + four[1::2, 1::2] + 2) // 4).astype(np.uint8)
    return image


def differences(guide: Array) -> Array:
    """Return the sums over channels of |guide'| along rows and along columns, (2, height, width)."""
    found = np.zeros((2, *guide.shape[:2]), np.float32)
    found[0, :, 1:] = np.abs(np.diff(guide, axis=1)).sum(2)
    found[1, 1:] = np.abs(np.diff(guide, axis=0)).sum(2)
    return found


def regions_of(height: int, width: int) -> tuple[int, int]:
    return -(-height // REGION), -(-width // REGION)


def padded(values: Array, **how: Any) -> Array:
    """Add rows and columns to (..., height, width), as numpy.pad does, until regions are whole."""
    rows, columns = regions_of(*values.shape[-2:])
    fill = [(0, 0)] * (values.ndim - 2)
    return np.pad(
        values, [*fill, (0, rows * REGION - values.shape[-2]), (0, columns * REGION - values.shape[-1])], **how
    )


def means(values: Array) -> Array:
    """Return the means of the regions of (..., height, width), (..., rows, columns); the last ones may be smaller."""
    rows, columns = regions_of(*values.shape[-2:])
    count, total = (
        padded(each).reshape(*each.shape[:-2], rows, REGION, columns, REGION).sum((-3, -1), dtype=np.float32)
        for each in (np.ones(values.shape[-2:], np.float32), values)
    )
    return np.asarray(total / count, np.float32)


def contrasts(image: Array) -> Array:
    """Return how much contrast each region of the (height, width, channels) image has in three bands, from fine to
    coarse: means of the logarithms of the variance of four pixels that become one, (3, rows, columns)."""
    grey = padded(image.mean(2, dtype=np.float32) / np.float32(255), mode="edge")
    rows, columns = grey.shape[0] // REGION, grey.shape[1] // REGION
    found = []
    for _ in range(3):
        four = np.stack([grey[y::2, x::2] for y in (0, 1) for x in (0, 1)])
        grey = four.mean(0)
        logarithms = np.log10((four**2).mean(0) - grey**2 + FAINT)
        side = grey.shape[0] // rows
        found.append(logarithms.reshape(rows, side, columns, side).mean((1, 3)))
    return np.asarray((np.stack(found) + 4) / 1.5, np.float32)


def size(height: int, width: int) -> float:
    """Return how large the image is: radii grow with it. Of the octave in which radii are spread; as far as training
    scenes go."""
    return math.log2(min(max(min(height, width), 176), 600) / 300)


@dataclass
class Sample:
    """What one image gives to the network and the filter."""

    inputs: Array  # (INPUTS, rows, columns)
    seeds: Array  # (3, n): weight, and weight times radius and mean square
    kinds: Array  # (n): which of the weights
    at: Array  # (2, n): row and column
    barriers: Array  # (2, height, width): of the first group, of coarser ones
    guide: Array  # (2, height, width) of differences()
    sigma_s: float  # px
    octave: int  # in which radii are spread, whose px these are
    truth: Array  # (height, width)


def sample(
    estimator: Estimator, image: Array, truth: Array, largest_radius: float, threshold: float, learned: bool = True
) -> Sample:
    """Return what the estimator finds in an image, ready for the network, or for the filter without it.

    The constants are those of cpp/src/formulas.hpp, whose names are given beside them.
    """
    found = estimator.estimate(image)
    shorter, count = min(image.shape[:2]), 1
    while shorter >> count >= 64:  # octave_count
        count += 1
    spread = min(count - 1, 2 if shorter >> 2 >= 500 else 1)  # resolve
    small = reduced(image, spread)
    height, width = small.shape[:2]
    octave = found.octave.astype(int)
    scale = 2.0**octave
    read, deviation = found.radii / scale, found.radius_std / scale
    depth = found.depth_probability.astype(np.float64) > threshold
    own = found.edges // (2**octave)[:, None]
    up = 2 ** np.maximum(octave - spread, 0)
    down = 2 ** np.maximum(spread - octave, 0)
    at = np.minimum(own // down[:, None] * up[:, None] + up[:, None] // 2, [height - 1, width - 1])  # put

    group = np.clip(octave - spread + 1, 0, GROUPS - 1)
    inputs = [of_edges(found, depth, group, at, octave - spread, spread, (height, width)), contrasts(small)]
    unit = small.astype(np.float32) / 255
    guide = domain_transform_filter(unit, unit, sigma_s=7 / 2**spread, sigma_r=0.5, iterations=3)
    slopes = differences(guide)

    # edge_weight, octave_weight
    weight = np.where(depth, np.where(octave == 0, 0.02, 0.05), 1 - found.depth_probability)
    weight = weight * (CERTAIN / (CERTAIN + deviation)) ** 2
    weight = weight * np.where(octave > 0, np.clip(read - 2.5, 0, 1), 1) * scale**1.5
    weight = weight * np.where(octave < count - 1, 1e-3 + (1 - 1e-3) * np.clip((largest_radius - read) / 1.5, 0, 1), 1)
    seeds_of = []  # which edges, where, which weight, and what share of it
    beside = depth & (learned | (octave > 0))  # is_beside_barrier
    places = [(~beside, (0, 0), np.minimum(group, 2), 1.0)]
    places += [(beside, side, 3 + len(SIDES) * (group > 0) + i, 0.25) for i, side in enumerate(SIDES)]
    for which, side, kind, share in places:
        these = np.flatnonzero(which)
        aside = np.maximum(2 * 2 ** octave[these] // 2**spread, 2 if learned else 0)  # beside_barrier
        place = at[these] + aside[:, None] * np.array(side)
        inside = ((place >= 0) & (place < [height, width])).all(1) & (weight[these] > 0)
        these = these[inside]
        seeds_of.append((these, place[inside], kind[these], np.full(len(these), share)))
    ids, ways, kinds, shares = (np.concatenate(each) for each in zip(*seeds_of, strict=True))
    of_seed = weight[ids] * shares
    radius = found.radii[ids].astype(np.float64)
    square = radius**2 + found.radius_std[ids].astype(np.float64) ** 2
    seeds = np.stack([of_seed, of_seed * radius, of_seed * square]).astype(np.float32)

    barriers = np.zeros((2, height, width), np.float32)
    wall = depth & ((octave == 0) | (read > 2.5))  # is_barrier
    for (y, x), side, coarse in zip(at[wall], up[wall], (group[wall] > 0).astype(int), strict=True):  # for_barrier
        before = side // 2
        barriers[coarse, max(y - before, 0) : y - before + side, x] = 1
        barriers[coarse, y, max(x - before, 0) : x - before + side] = 1
    inputs += [means(barriers), np.full((1, *regions_of(height, width)), size(height, width)), 5 * means(slopes)]
    true = truth[: height << spread, : width << spread].reshape(height, 1 << spread, width, 1 << spread).mean((1, 3))
    return Sample(
        np.concatenate(inputs).astype(np.float32),
        seeds,
        kinds.astype(np.int64),
        ways.T.astype(np.int64),
        barriers,
        slopes,
        shorter / (4 if count > 1 else 8) / 2**spread,
        spread,
        true.astype(np.float32),
    )


def of_edges(
    found: Any, depth: Array, group: Array, at: Array, coarser: Array, spread: int, size: tuple[int, int]
) -> Array:
    """Return per group of octaves what is known of the edges in each region: of pattern edges and of depth edges how
    many there are, as a share of a straight line's across the region, and the means of log2 of their radius and of
    their standard deviation; and the mean depth probability of all, (7 * GROUPS, rows, columns)."""
    rows, columns = regions_of(*size)
    sums = np.zeros((GROUPS, 2, 5, rows, columns), np.float32)
    region = group, depth.astype(int), *(at // REGION).T
    values = (
        2.0**coarser / REGION,
        np.ones(len(group)),
        np.log2(found.radii / 2.0**spread + 0.25),
        found.radius_std / 2.0 ** (coarser + spread),
        found.depth_probability,
    )
    for i, value in enumerate(values):
        np.add.at(sums[:, :, i], region, value)
    means_of = sums[:, :, 2:4] / np.maximum(sums[:, :, 1:2], 1)
    of_kinds = np.concatenate([np.minimum(sums[:, :, :1], 2), means_of], 2).reshape(GROUPS, -1, rows, columns)
    both = sums.sum(1)
    return np.concatenate([of_kinds, both[:, 4:] / np.maximum(both[:, 1:2], 1)], 1).reshape(-1, rows, columns)


class _Scan(torch.autograd.Function):
    """A pass forward and one backward along the first dimension: (n, batch, channels, lines), and the coefficients
    (n, batch, 1, lines), of which the first is not used."""

    @staticmethod
    def forward(ctx: Any, signals: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        there = signals.clone()
        rows, coefficients = there.unbind(0), v.unbind(0)
        for i in range(1, len(rows)):
            torch.lerp(rows[i], rows[i - 1], coefficients[i], out=rows[i])
        back = there.clone()
        rows = back.unbind(0)
        for i in range(len(rows) - 2, -1, -1):
            torch.lerp(rows[i], rows[i + 1], coefficients[i + 1], out=rows[i])
        ctx.save_for_backward(signals, v, there, back)
        return back

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        signals, v, there, back = ctx.saved_tensors
        of_back = gradient.clone()
        rows, coefficients = of_back.unbind(0), v.unbind(0)
        for i in range(len(rows) - 1):
            rows[i + 1].addcmul_(rows[i], coefficients[i + 1])
        of_v = torch.zeros_like(v)
        of_v[1:] = (of_back[:-1] * (back[1:] - there[:-1])).sum(2, keepdim=True)
        of_there = of_back.clone()
        of_there[:-1] *= 1 - v[1:]
        rows = of_there.unbind(0)
        for i in range(len(rows) - 1, 0, -1):
            rows[i - 1].addcmul_(rows[i], coefficients[i])
        of_v[1:] += (of_there[1:] * (there[:-1] - signals[1:])).sum(2, keepdim=True)
        of_signals = of_there.clone()
        of_signals[1:] *= 1 - v[1:]
        return of_signals, of_v


def spread(signals: torch.Tensor, across: torch.Tensor, down: torch.Tensor, sigma_s: float) -> torch.Tensor:
    """Return the recursive domain transform of signals (batch, channels, height, width), three iterations, for
    distances (batch, height, width) to the left and the upper neighbour."""
    iterations = 3
    for i in range(iterations):
        sigma = sigma_s * math.sqrt(3) * 2 ** (iterations - 1 - i) / math.sqrt(4**iterations - 1)
        for distance, order in ((across, (3, 0, 1, 2)), (down, (2, 0, 1, 3))):
            v = torch.exp(-math.sqrt(2) / sigma * distance)[:, None].permute(order).contiguous()
            lines = _Scan.apply(signals.permute(order).contiguous(), v)
            signals = lines.permute(tuple(order.index(i) for i in range(4)))
    return signals


class Propagation(nn.Module):
    """Inputs (batch, INPUTS, rows, columns) -> logarithms of the factors, (batch, OUTPUTS, rows, columns)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(WIDTH if i else INPUTS, WIDTH, 3, padding=d, dilation=d) for i, d in enumerate(DILATIONS)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        self.context = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.out = nn.Conv2d(WIDTH, OUTPUTS, 1)
        nn.init.zeros_(self.context.weight)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        scale, offset = torch.ones(OUTPUTS), torch.zeros(OUTPUTS)
        scale[[ACROSS, DOWN]], offset[[ACROSS, DOWN]] = 4.0, -2.0
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("offset", offset[:, None, None], persistent=False)

    def blind(self, names: Sequence[str]) -> None:
        """Keep some inputs, whose names are those of INPUTS_OF, or the "context" from the network, in training too."""
        for name in names:
            weight, of = (
                (self.context.weight, slice(None))
                if name == "context"
                else (self.convs[0].weight, torch.from_numpy(INPUTS_OF[name]))
            )
            seen = torch.ones_like(weight)
            seen[:, of] = 0
            weight.register_hook(seen.mul)
            with torch.no_grad():
                weight.mul_(seen)

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        for i, conv in enumerate(self.convs):
            before, x = x, conv(x)
            if i == CONTEXT:
                image = torch.cat([before.mean((2, 3)), before.amax((2, 3))], 1)
                x = x + self.context(image)[..., None, None]
            x = functional.relu(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.trunk(x)) * self.scale + self.offset

    def weights(self) -> dict[str, Array]:
        """Return the tensors of a model folder."""
        tensors = {"propagation.context.weight": self.context.weight.T}
        for i, conv in enumerate(self.convs):
            tensors |= {f"propagation.{i}.weight": conv.weight, f"propagation.{i}.bias": conv.bias}
        last = len(DILATIONS)
        tensors[f"propagation.{last}.weight"] = self.out.weight * self.scale[..., None]
        tensors[f"propagation.{last}.bias"] = self.out.bias * self.scale[:, 0, 0] + self.offset[:, 0, 0]
        return {name: value.detach().numpy().astype(np.float32) for name, value in tensors.items()}

    def save(self, file: Path) -> None:
        """Keep what `load` reads, as NumPy's .npz. Half of the precision is enough for a training to begin with."""
        values = {name: value.half().numpy() for name, value in self.state_dict().items() if value.dim()}
        np.savez_compressed(file, **values)

    def load(self, file: Path) -> None:
        try:
            with np.load(file) as values:
                self.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()})
        except OSError:
            raise
        except Exception:  # NumPy, zipfile and PyTorch raise many kinds of errors on files that are something else
            raise ValueError(f"{file}: expected an .npz file of training.train_propagation, got another file") from None


def enlarged(regions: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return (..., rows, columns) between the centres of the regions, (..., height, width)."""
    rows, columns = regions.shape[-2:]
    whole = functional.interpolate(
        regions, size=(rows * REGION, columns * REGION), mode="bilinear", align_corners=False
    )
    return whole[..., :height, :width]


def propagate(logarithms: torch.Tensor | None, batch: list[Sample], squares: bool = False) -> tuple[torch.Tensor, ...]:
    """Return the maps (batch, height, width) and, if asked for, the filtered weights and squares and the factors of the
    expected error. All images have one size. Without logarithms, the filter is the paper's."""
    height, width = batch[0].truth.shape
    sigma_s = batch[0].sigma_s
    guide = torch.from_numpy(np.stack([s.guide for s in batch]))
    barrier = 4.5 * sigma_s * torch.from_numpy(np.stack([s.barriers for s in batch]))  # relative_psi
    if logarithms is None:
        factors = torch.ones(len(batch), OUTPUTS, height, width)
        factors[:, [ACROSS, DOWN]] = 0
    else:
        factors = enlarged(torch.exp(logarithms.clamp(-LIMIT, LIMIT)), height, width)
    slope = sigma_s / 0.5 * factors[:, GAIN]
    wall = 1 + (factors[:, BARRIER : BARRIER + 2] * barrier).amax(1)
    across = slope * guide[:, 0] + factors[:, ACROSS] + wall
    down = slope * guide[:, 1] + factors[:, DOWN] + wall
    channels = 3 if squares else 2
    signals = torch.zeros(len(batch), channels, height * width)
    for n, s in enumerate(batch):
        at = torch.from_numpy(s.at[0] * width + s.at[1])
        of_kind = factors[n, WEIGHT : WEIGHT + KINDS].reshape(KINDS, -1)[torch.from_numpy(s.kinds), at]
        signals[n] = signals[n].index_add(1, at, torch.from_numpy(s.seeds[:channels]) * of_kind)
    filtered = spread(signals.view(len(batch), channels, height, width), across, down, sigma_s)
    total = signals.sum(2)
    of_all = (total[:, 1] / total[:, 0].clamp_min(LEAST_WEIGHT))[:, None, None]
    weight = filtered[:, 0]
    # Where next to nothing arrives, the quotient is right but its gradient would overflow.
    far = torch.where(weight >= torch.finfo(torch.float32).tiny, filtered[:, 1] / weight, of_all.expand_as(weight))
    near = weight >= LEAST_WEIGHT
    maps = torch.where(near, filtered[:, 1] / torch.where(near, weight, torch.ones_like(weight)), far.detach())
    return (maps, weight, filtered[:, 2], factors[:, ERROR]) if squares else (maps,)


def deviation(maps: torch.Tensor, weight: torch.Tensor, squares: torch.Tensor, octave: int) -> torch.Tensor:
    """Return deviation_at of cpp/src/formulas.hpp."""
    doubt, unknown = 9.2e-5 * 4**octave, 0.58 * (maps + 1)
    variance = (squares - weight * maps**2).clamp_min(0)
    return torch.sqrt((variance + doubt * unknown**2) / (weight + doubt))
