# SPDX-License-Identifier: Apache-2.0
"""Batches of crops from shards of synthetic scenes. Every step draws its crops from its own seed."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.networks import GRIDS, STRIDE, Fast, Tip22
from training.synthesis import DEPTH, NO_EDGE, PATTERN, RADIUS_SCALE

ATTEMPTS = 10_000  # at a scene with a labelled edge
DEPTH_CROPS = 0.5  # share of the crops drawn around a depth edge, where the scene has one
VALIDATION_CROPS = 2048


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


def _ignore_stop(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which reach the processes that draw crops too, to the one that trains."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def batches_from(step: int, steps: Steps, workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Return the batches of `step` and all that follow; `workers` processes draw them ahead."""
    loader = torch.utils.data.DataLoader(
        steps,
        batch_size=None,
        sampler=itertools.count(step),
        num_workers=workers,
        worker_init_fn=_ignore_stop,
        pin_memory=pin_memory,
    )
    return iter(loader)


def held_out(model: Tip22 | Fast, shards: Path, device: torch.device) -> list[Batch]:
    """Return the batches that all models of the same patch size are validated on."""
    sampler = Sampler(shards / "validation", model.side, model.patch, model.every_edge)
    rng = np.random.default_rng(12345)
    return [sampler(model.crops, rng).on(device) for _ in range(VALIDATION_CROPS // model.crops)]
