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


def estimate(image: np.ndarray, model: str, octaves: int | None, **options: Any) -> BlurMap:
    estimator = Estimator.for_image(image, model=model, precision="float32", octaves=octaves, **options)
    return estimator.estimate(image, bin_probabilities=True)


def kept(alone: BlurMap, finer: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return which edges of an octave the networks are asked about, and what it says to the next one: 1 at sharp edges,
    2 at others, 0 elsewhere."""
    says = np.zeros(alone.map.shape, np.uint8)
    asked = np.ones(len(alone.edges), bool)
    if finer is not None:
        nearby = [finer[max(2 * y - 1, 0) : 2 * y + 3, max(2 * x - 1, 0) : 2 * x + 3] for y, x in alone.edges]
        asked = np.array([set(np.unique(window)) - {0} != {1} for window in nearby], bool)
    sharp = ~asked | (alone.radii + 2 * alone.radius_std < 3)
    says[tuple(alone.edges.T)] = np.where(sharp, 1, 2)
    return asked, says


def ramp(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Coarse and fine structure, so that every octave has edges."""
    fine = texture(*SIZE).astype(int)
    coarse = np.kron(texture(38, 34, seed=1), np.ones((8, 8, 1))).astype(int)[: SIZE[0], : SIZE[1]]
    return np.uint8((fine + coarse) // 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_edges_are_those_of_the_reduced_images(picture: np.ndarray, dtype: type, channels: int) -> None:
    """All of them, but for those beside edges that a finer octave calls sharp."""
    model = "fast"  # random networks call nothing sharp
    image = picture if dtype == np.uint8 else picture.astype(np.float32) / 255
    image = image if channels == 3 else np.ascontiguousarray(image[..., 0])
    found = estimate(image, model, None)
    assert list(np.unique(found.octave)) == [0, 1, 2]
    says, dropped = None, 0
    for octave in range(3):
        alone = estimate(image, model, 1)
        asked, says = kept(alone, says)
        dropped += (~asked).sum()
        own, scale = found.octave == octave, 2**octave
        np.testing.assert_array_equal(found.edges[own], alone.edges[asked] * scale + scale // 2)
        # Which edges are asked decides how the convolutions' squares lie: the same sums in another order.
        np.testing.assert_allclose(found.radii[own], alone.radii[asked] * scale, rtol=1e-5)
        np.testing.assert_allclose(found.radius_std[own], alone.radius_std[asked] * scale, rtol=1e-4)
        for name in ("depth_probability", "radius_probability", "bin_probabilities"):
            np.testing.assert_allclose(getattr(found, name)[own], getattr(alone, name)[asked], rtol=0, atol=1e-5)
        image = halved(image)
    assert dropped > 100


def test_map_is_what_all_edges_spread(random_cells: str, picture: np.ndarray) -> None:
    found = estimate(picture, random_cells, None)
    is_depth = found.depth_probability > 0.5
    read = found.radii / 2.0**found.octave  # px of the octave
    weight = np.where(is_depth, 0.02, 1 - found.depth_probability)
    weight = weight * (0.15 / (0.15 + found.radius_std / 2.0**found.octave)) ** 2 * 2 ** (1.5 * found.octave)
    weight *= np.where(found.octave > 0, ramp(read - 2), 1)
    weight *= np.where(found.octave < 2, 1e-3 + (1 - 1e-3) * ramp((6 - read) / 1.5), 1)
    weights, sums, squares = np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE)
    at = tuple(found.edges.T)
    np.add.at(weights, at, weight)
    np.add.at(sums, at, weight * found.radii)
    np.add.at(squares, at, weight * (found.radii**2 + found.radius_std**2))

    barriers = np.zeros(SIZE, bool)
    for (y, x), octave, depth, radius in zip(found.edges, found.octave, is_depth, read, strict=True):
        if depth and (octave == 0 or radius > 2):
            half = 2**octave // 2
            barriers[y - half : y - half + 2**octave, x] = barriers[y, x - half : x - half + 2**octave] = True
    np.testing.assert_array_equal(found.depth_edges, barriers)
    assert barriers.sum() > (found.octave == 0)[is_depth].sum()  # coarse ones are among them

    options: dict[str, Any] = {"psi": 100.0, "sigma_r": 0.5, "iterations": 3}
    total = np.maximum(weights, 1e-300)
    mean = reference.propagate(picture, sums / total, weights, barriers, **options)
    np.testing.assert_allclose(found.map, mean, rtol=0, atol=8 * PROPAGATED)  # radii are up to four times larger
    second = reference.propagate(picture, squares / total, weights, barriers, **options)
    spread = np.sqrt(np.maximum(second - mean**2, 0))
    np.testing.assert_allclose(found.expected_error, np.hypot(0.25, 2 * spread), rtol=2e-3, atol=0)


@pytest.mark.parametrize("model", ["fast", "tip22"])
def test_number_of_threads_and_strides_do_not_matter(picture: np.ndarray, model: str) -> None:
    first = estimate(picture, model, 8, num_threads=1)
    padded = np.zeros((SIZE[0], 2 * SIZE[1], 4), np.uint8)
    padded[:, ::-2, 3:0:-1] = picture
    for image, threads in ((picture, 3), (padded[:, ::-2, 3:0:-1], 2)):
        again = estimate(image, model, 8, num_threads=threads)
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


def test_given_edges_are_those_of_the_image(picture: np.ndarray) -> None:
    edges = defocus_fast.detect_edges(picture)
    given = Estimator(*SIZE).estimate(picture, edges=edges)
    alone = Estimator(*SIZE, octaves=1).estimate(picture)
    np.testing.assert_array_equal(given.map, alone.map)
    assert not given.octave.any()


@pytest.mark.parametrize(
    ("size", "octaves"), [((1, 1), 1), ((127, 900), 1), ((128, 128), 2), ((255, 256), 2), ((256, 900), 3)]
)
def test_octaves_end_where_images_are_small(size: tuple[int, int], octaves: int) -> None:
    found = Estimator(*size, octaves=8).estimate(texture(*size))
    assert found.octave.max(initial=0) <= octaves - 1
    if min(size) > 100:
        assert found.octave.max() == octaves - 1
