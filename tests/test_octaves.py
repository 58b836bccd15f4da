# SPDX-License-Identifier: Apache-2.0
"""An image read at several sizes gives the edges of each size, and one map of them all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from images import texture
from tolerances import PROPAGATED

import defocus_fast
from defocus_fast import BlurMap, Estimator

SIZE = (301, 267)  # three octaves, none of them of even sides


def halved(image: np.ndarray) -> np.ndarray:
    """Return means of 2 x 2 pixels; a last odd row or column is left out."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    four = [image[y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)]
    if image.dtype == np.uint8:
        return np.uint8((np.sum(four, axis=0, dtype=int) + 2) // 4)
    return np.float32((four[0] + four[1] + four[2] + four[3]) * np.float32(0.25))


def estimate(
    image: np.ndarray, model: str, octaves: int | None, edges: np.ndarray | None = None, **options: Any
) -> BlurMap:
    """Of whole reductions; tests/test_grid.py has those on other grids."""
    options = {"precision": "float32", "grid": "corner"} | options
    estimator = Estimator.for_image(image, model=model, octaves=octaves, **options)
    return estimator.estimate(image, edges=edges, bin_probabilities=True)


def neighbours(says: np.ndarray, edges: np.ndarray, finer: bool) -> np.ndarray:
    """Return what a neighbouring octave says beside edges, all bits of it."""
    found = []
    for y, x in edges:
        rows, columns = (
            slice(max(2 * i - 1, 0), 2 * i + 3) if finer else slice(max(i // 2 - 2, 0), i // 2 + 3) for i in (y, x)
        )
        found.append(np.bitwise_or.reduce(says[rows, columns], axis=None))
    return np.array(found, np.uint8)


def asked_edges(alone: list[BlurMap]) -> list[np.ndarray]:
    """Return which edges of each octave the networks are asked about: the third octave first, then its neighbours, then
    theirs, as far as it does not say (1: read, 2: perhaps large enough for a coarser octave, 4: small enough for a
    finer one and large enough to count there, 8: small enough) that they would count nothing."""
    asked: list[np.ndarray] = [np.zeros(0)] * len(alone)
    says: list[np.ndarray] = [np.zeros(0)] * len(alone)
    first = min(2, len(alone) - 1)
    for octave in (*range(first, -1, -1), *range(first + 1, len(alone))):
        found, kept = alone[octave], np.ones(len(alone[octave].edges), bool)
        unasked = 0
        if octave != first:
            finer = octave > first
            beside = neighbours(says[octave - 1 if finer else octave + 1], found.edges, finer)
            kept = (beside == 0) | (beside & (2 if finer else 4) > 0)
            unasked = 1 + (0 if finer else 4 * (beside & 8 > 0))
        most = found.radii + 2 * found.radius_std
        sharp = found.radii - 2 * found.radius_std <= 2.5
        bits = 1 + 2 * (most >= 5) + 8 * sharp + 4 * (sharp & ((most >= 1.25) | (octave == 1)))
        says[octave] = np.zeros(found.map.shape, np.uint8)
        says[octave][tuple(found.edges.T)] = np.where(kept, bits, unasked)
        asked[octave] = kept
    return asked


def ramp(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1)


def picture(height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """Return coarse and fine structure, so that every octave has edges."""
    coarse = np.kron(texture(height // 8 + 1, width // 8 + 1, seed=1), np.ones((8, 8, 1))).astype(int)
    return np.uint8((texture(height, width).astype(int) + coarse[:height, :width]) // 2)


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(300, 420, 0.4), (432, 500, 0.4), (700, 640, 640 / 1080), (1300, 1090, 1.0)]
)
def test_thresholds_of_weak_edges_grow_with_the_image(height: int, width: int, factor: float) -> None:
    """Up to the paper's."""
    image = texture(height, width) // 2 + 60
    for size in (image, np.ascontiguousarray(image.swapaxes(0, 1))):
        found, same, more = (
            estimate(size, "tiny", None, **({"fine_thresholds": each} if each else {}))
            for each in (None, factor, 0.95 * factor)
        )
        np.testing.assert_array_equal(found.edges, same.edges)
        assert len(more.edges) > len(found.edges)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fine_thresholds", [None, 0.7])
def test_edges_are_those_of_the_reduced_images(dtype: type, channels: int, fine_thresholds: float | None) -> None:
    """All of them, but for those that would count nothing."""
    options = {"fine_thresholds": fine_thresholds} if fine_thresholds else {}
    model = "fast"  # random networks call nothing sharp
    image = picture() if dtype == np.uint8 else picture().astype(np.float32) / 255
    image = image if channels == 3 else np.ascontiguousarray(image[..., 0])
    found = estimate(image, model, None, **options)
    assert list(np.unique(found.octave)) == [0, 1, 2]
    alone = []
    for octave in range(3):
        factor = (fine_thresholds or 0.4) ** (1 - octave / 2)  # in the second octave its square root
        alone.append(estimate(image, model, 1, canny_low=0.08 * factor, canny_high=0.2 * factor))
        image = halved(image)
    for octave, asked in enumerate(asked_edges(alone)):
        own, scale = found.octave == octave, 2**octave
        assert not asked.all() or octave == 2
        np.testing.assert_array_equal(found.edges[own], alone[octave].edges[asked] * scale + scale // 2)
        # Which edges are asked decides how the convolutions' squares lie: the same sums in another order.
        np.testing.assert_allclose(found.radii[own], alone[octave].radii[asked] * scale, rtol=1e-5)
        # A variance is known as exactly as the probabilities of radii that lie up to a px apart.
        variances = found.radius_std[own] ** 2, (alone[octave].radius_std[asked] * scale) ** 2
        np.testing.assert_allclose(*variances, rtol=2e-4, atol=1e-5 * scale**2)
        for name in ("depth_probability", "radius_probability", "bin_probabilities"):
            np.testing.assert_allclose(
                getattr(found, name)[own], getattr(alone[octave], name)[asked], rtol=0, atol=1e-5
            )


def enlarged(values: np.ndarray, size: tuple[int, int], scale: int) -> np.ndarray:
    """Return the linear interpolation between the centres of pixels `scale` times as large, constant beyond them."""
    for side in reversed(size):
        centres = (np.arange(values.shape[1]) + 0.5) * scale
        values = np.array([np.interp(np.arange(side) + 0.5, centres, line) for line in values]).T
    return values


def spread_by_hand(image: np.ndarray, found: BlurMap, octaves: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return map, expected error and barriers of the edges found by the model `random_cells` in so many octaves.

    Radii are spread on pixels twice as large, in large images four times.
    """
    size = image.shape[:2]
    spread = 2 if min(size) >= 2000 else 1
    scale = 2**spread
    shape = np.array(size) // scale
    of_octave = 2.0**found.octave
    is_depth = found.depth_probability > 0.5
    read = found.radii / of_octave  # px of the octave
    certainty = (0.15 / (0.15 + found.radius_std / of_octave)) ** 2
    weight = np.where(is_depth, np.where(found.octave == 0, 0.02, 0.05), 1 - found.depth_probability) * certainty
    weight *= np.where(found.octave > 0, ramp(read - 2.5), 1) * of_octave**1.5
    weight *= np.where(found.octave < octaves - 1, 1e-3 + (1 - 1e-3) * ramp((6 - read) / 1.5), 1)

    own = (found.edges // of_octave[:, None]).astype(int)
    coarser = 2 ** np.maximum(found.octave.astype(int) - spread, 0)[:, None]
    finer = np.maximum(spread - found.octave.astype(int), 0)[:, None]
    at = np.minimum((own >> finer) * coarser + coarser // 2, shape - 1)
    weights, sums, squares, barriers = (np.zeros(shape) for _ in range(4))

    def seed(edges: np.ndarray, where: np.ndarray, share: float) -> None:
        edges = edges & (where >= 0).all(1) & (where < shape).all(1)
        for total, value in ((weights, 1.0), (sums, found.radii), (squares, found.radii**2 + found.radius_std**2)):
            np.add.at(total, tuple(where[edges].T), (share * weight * value)[edges])

    beside = is_depth & (found.octave > 0)
    seed(~beside, at, 1)
    for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        aside = 2 * 2 ** found.octave.astype(int) // scale
        seed(beside, at + aside[:, None] * np.array(step), 0.25)
    for (y, x), side in zip(
        at[is_depth & ((found.octave == 0) | (read > 2.5))],
        coarser[is_depth & ((found.octave == 0) | (read > 2.5)), 0],
        strict=True,
    ):
        first = side // 2
        barriers[y - first : y - first + side, x] = barriers[y, x - first : x - first + side] = True

    reduced = image
    for _ in range(spread):
        reduced = halved(reduced)
    sigma_s = min(size) / 4
    options: dict[str, Any] = {"psi": 4.5 * sigma_s / scale, "sigma_s": sigma_s / scale, "guide_sigma_s": 7 / scale}
    options |= {"sigma_r": 0.5, "iterations": 3}
    total = np.maximum(weights, 1e-300)
    mean = reference.propagate(reduced, sums / total, weights, barriers, **options)
    second = reference.propagate(reduced, squares / total, weights, barriers, **options)
    weight_there = reference.spread(reduced, weights, barriers, **options)
    error = reference.expected_error(weight_there, mean, second, 9.2e-5 * scale**2, 0.25, 2)
    return enlarged(mean, size, scale), enlarged(error, size, scale), barriers


@pytest.mark.parametrize("size", [SIZE, (2003, 2009)])
def test_map_is_what_all_edges_spread(random_cells: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    found = estimate(image, random_cells, 3)
    radii, error, barriers = spread_by_hand(image, found, 3)
    # radii are up to four times larger
    np.testing.assert_allclose(found.map, radii, rtol=0, atol=8 * PROPAGATED)
    np.testing.assert_allclose(found.expected_error, error, rtol=2e-3, atol=0)
    depth = found.edges[(found.depth_probability > 0.5) & (found.octave == 0)]
    np.testing.assert_array_equal(np.argwhere(found.depth_edges), depth)
    # coarse ones are among them
    assert barriers.sum() > len(np.unique(depth * barriers.shape // found.map.shape, axis=0))


@pytest.mark.parametrize("model", ["fast", "tip22"])
def test_number_of_threads_and_strides_do_not_matter(model: str) -> None:
    image = picture()
    first = estimate(image, model, 8, num_threads=1, grid="auto")
    padded = np.zeros((SIZE[0], 2 * SIZE[1], 4), np.uint8)
    padded[:, ::-2, 3:0:-1] = image
    for same, threads in ((image, 3), (padded[:, ::-2, 3:0:-1], 2)):
        again = estimate(same, model, 8, num_threads=threads, grid="auto")
        for name in ("map", "expected_error", "edges", "radii", "octave", "depth_edges"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_blur_beyond_the_bins_is_read() -> None:
    """Blocks blurred by 16 px: without coarse octaves the largest bin is all that can be said."""
    rng = np.random.default_rng(0)
    light = np.kron(rng.random((8, 8)), np.ones((80, 80)))
    disk = np.hypot(*(np.mgrid[-320:320, -320:320] + 0.5)) <= 16
    blurred = np.fft.irfft2(np.fft.rfft2(light) * np.fft.rfft2(np.fft.ifftshift(disk / disk.sum())))
    image = np.uint8(np.rint(255 * np.clip(blurred, 0, 1)))
    narrow, wide = (np.median(Estimator.for_image(image, octaves=n).estimate(image).map) for n in (1, 8))
    assert narrow < 9
    assert 16 * 0.7 < wide < 16 * 1.3  # an octave is a factor of 2


def test_given_edges_are_those_of_the_image(random_cells: str) -> None:
    image = picture()
    edges = defocus_fast.detect_edges(image)
    given = estimate(image, random_cells, 3, edges=edges)
    alone = estimate(image, random_cells, 1)
    for name in ("edges", "radii", "depth_probability", "depth_edges", "pattern_edges"):
        np.testing.assert_array_equal(getattr(given, name), getattr(alone, name))
    assert not given.octave.any()
    radii, error, _ = spread_by_hand(image, given, 1)  # where other frames of this estimator are spread
    np.testing.assert_allclose(given.map, radii, rtol=0, atol=2 * PROPAGATED)
    np.testing.assert_allclose(given.expected_error, error, rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    ("size", "octaves"), [((1, 1), 1), ((127, 900), 1), ((128, 128), 2), ((255, 256), 2), ((256, 900), 3)]
)
def test_octaves_end_where_images_are_small(size: tuple[int, int], octaves: int) -> None:
    found = Estimator(*size, octaves=8).estimate(texture(*size))
    assert found.octave.max(initial=0) <= octaves - 1
    if min(size) > 100:
        assert found.octave.max() == octaves - 1
