# SPDX-License-Identifier: Apache-2.0
"""Where cells and the pixels of coarse octaves lie does not depend on how far a view has moved by whole pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from images import Picture, texture
from scipy import ndimage
from tolerances import PROPAGATED

import defocus_fast
from defocus_fast import Estimator

PERIODS = {"fast": 12, "tip22": 4}  # px, of three octaves
SIGMA = np.sqrt(2)


def strongest(image: Picture) -> tuple[int, int]:
    """Return the edge with the largest gradient, the first one of equals, away from borders."""
    value = image.max(2).astype(np.float64) / 255
    smooth = ndimage.gaussian_filter(value, SIGMA, truncate=4)
    magnitude = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    magnitude[~defocus_fast.detect_edges(image)] = 0
    y, x = np.unravel_index(magnitude.argmax(), magnitude.shape)
    return int(y), int(x)


def framed(height: int, width: int, seed: int) -> Picture:
    """Return a texture within a flat frame: near the border nothing is an edge, mirrored or not."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[30:-30, 30:-30] = texture(height - 60, width - 60, seed)
    return image


CASES = [("fast", kind, seed) for kind in ("uint8", "float32", "grey") for seed in (1, 2, 3)]


@pytest.mark.parametrize(("model", "kind", "seed"), [*CASES, ("tip22", "uint8", 1)])
def test_the_image_is_put_on_a_canvas(model: str, kind: str, seed: int) -> None:
    """An anchored image is as one at whose borders so much is mirrored that its strongest edge is at a multiple of the
    period."""
    image = framed(270, 301, seed)
    if kind == "grey":
        image = np.repeat(image[..., 1:2], 3, 2)
    (y, x), period = strongest(image), PERIODS[model]
    before = -y % period, -x % period
    canvas = np.pad(image, [(n, period - 1 - n) for n in before] + [(0, 0)], mode="symmetric")
    if kind == "grey":
        image, canvas = image[..., 0], canvas[..., 0]
    elif kind == "float32":
        image, canvas = image.astype(np.float32) / 255, canvas.astype(np.float32) / 255
    options: dict[str, Any] = {"model": model, "precision": "float32", "distances": "domain_transform"}
    options |= {"sigma_s": 30.0}
    found = Estimator.for_image(image, grid="anchored", **options).estimate(image)
    expected = Estimator.for_image(canvas, grid="corner", **options).estimate(canvas)
    assert len(np.unique(found.octave)) == 3
    inside = tuple(slice(n, n + side) for n, side in zip(before, image.shape[:2], strict=True))
    np.testing.assert_array_equal(found.edges, expected.edges - before)
    for name in ("pattern_edges", "depth_edges"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[inside])
    # Tiles lie elsewhere: the same sums in another order.
    np.testing.assert_allclose(found.radii, expected.radii, rtol=1e-4)
    np.testing.assert_allclose(found.map, expected.map[inside], rtol=0, atol=8 * PROPAGATED)
    np.testing.assert_allclose(found.expected_error, expected.expected_error[inside], rtol=2e-3)


def test_views_that_moved_by_whole_pixels_get_the_same_answer() -> None:
    """Away from borders, where a view shows something else: the same radii at the same edges, and a map that changes by
    what the borders' edges spread. In float32: bfloat16 rounds differently where Winograd's squares lie elsewhere."""
    scene = texture(400, 420, seed=4) // 2 + 64
    scene[200:230, 200:230] = 0  # the strongest edges
    scene[205:225, 205:225] = 255
    height, width, border = 350, 360, 105  # the networks see 102 px around an edge of the third octave
    moves = [(0, 0), (0, 1), (1, 0), (2, 4), (37, 41)]
    views = [np.ascontiguousarray(scene[y : y + height, x : x + width]) for y, x in moves]
    changes = {}
    for grid in ("auto", "corner"):
        maps = []
        known: list[dict[tuple[int, ...], float]] = []
        for view, move in zip(views, moves, strict=True):
            found = Estimator(height, width, grid=grid, distances="domain_transform", precision="float32").estimate(
                view
            )
            at = found.edges + move
            inside = ((at >= border + moves[-1][1]) & (at < height - border)).all(1)
            keys = np.column_stack([found.octave, at])[inside]
            known.append(dict(zip(map(tuple, keys.tolist()), found.radii[inside], strict=True)))
            maps.append(found.map[border - move[0] : 280 - move[0], border - move[1] : 280 - move[1]])
        changes[grid] = [float(np.abs(map_ - maps[0]).mean()) for map_ in maps[1:4]]
        if grid == "auto":
            assert len(known[0]) > 500
            for other in known[1:]:
                assert other.keys() == known[0].keys()
                np.testing.assert_allclose(list(other.values()), list(known[0].values()), rtol=1e-4)
    assert max(changes["auto"]) < 0.01
    assert min(changes["corner"]) > 0.03


def test_grids_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="grid: anchored needs more than one octave; accepted: corner, auto"):
        Estimator(300, 300, grid="anchored", octaves=1)
    with pytest.raises(ValueError, match="grid: anchored needs images that are no frames of a video; accepted: corner"):
        defocus_fast.VideoEstimator(300, 300, grid="anchored")
    image = texture(160, 170)
    one, other = (Estimator(160, 170, octaves=1, grid=grid).estimate(image).map for grid in ("auto", "corner"))
    np.testing.assert_array_equal(one, other)


def test_images_without_edges() -> None:
    image = np.full((140, 150, 3), 77, np.uint8)
    found = Estimator(140, 150).estimate(image)
    assert not len(found.edges)
    assert found.map.shape == found.pattern_edges.shape == (140, 150)
    assert not found.map.any()
