# SPDX-License-Identifier: Apache-2.0
"""Edges are scikit-image's, pixel for pixel: no tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from images import KINDS, SIZES, texture
from skimage.feature import canny

import defocus_fast


def expected(image: np.ndarray, *parameters: float) -> np.ndarray:
    value = image.max(axis=2) if image.ndim == 3 else image
    return canny(value / 255.0 if value.dtype == np.uint8 else value, *parameters)


@pytest.mark.parametrize("kernels", defocus_fast.available_kernels())
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_skimage_on_every_size(kind: str, kernels: str) -> None:
    for seed, size in enumerate(SIZES):
        image = KINDS[kind](*size, seed)
        for sigma, low, high in [(2**0.5, 0.08, 0.20), (1.0, 0.0, 0.1), (2.7, 0.02, 0.02)]:
            for picture in (image, image.astype(np.float32) / np.float32(255)):
                found = defocus_fast.detect_edges(picture, sigma=sigma, low=low, high=high, kernels=kernels)
                np.testing.assert_array_equal(found, expected(picture, sigma, low, high), err_msg=f"{size} {sigma}")


@pytest.mark.parametrize("kind", ["binary", "blocks", "ramps"])
def test_equal_to_skimage_where_rounding_decides(kind: str) -> None:
    edges = 0
    for seed in range(150):
        image = KINDS[kind](*np.random.default_rng(seed).integers(20, 90, 2), seed)
        found = defocus_fast.detect_edges(image)
        np.testing.assert_array_equal(found, expected(image, 2**0.5, 0.08, 0.20))
        edges += found.sum()
    assert edges > 10_000  # the images do have edges


def test_equal_to_skimage_on_large_pictures_for_any_number_of_threads() -> None:
    image = texture(700, 1100, seed=3)
    reference = expected(image, 2**0.5, 0.08, 0.20)
    assert 0.01 < reference.mean() < 0.5
    for num_threads in (1, 2, 5):
        np.testing.assert_array_equal(defocus_fast.detect_edges(image, num_threads=num_threads), reference)


@pytest.mark.parametrize("size", [(64, 64), (150, 63), (200, 129), (90, 4300), (700, 190)])
@pytest.mark.parametrize("along", ["rows", "columns"])
@pytest.mark.parametrize("end", ["first", "last"])
def test_hysteresis_follows_a_long_weak_chain(size: tuple[int, int], along: str, end: str) -> None:
    """A winding line of weak edges, strong at one end, is kept whole, through every thread's rows."""
    height, width = size if along == "rows" else size[::-1]
    image = np.zeros((height, width), np.float32)
    for turn, y in enumerate(range(6, height - 6, 8)):
        image[y : y + 3, 4:-4] = 0.02
        if y + 8 < height - 6:
            x = 4 if turn % 2 else width - 7
            image[y : y + 11, x : x + 3] = 0.02
    weak = canny(image, 1.0, 0.004, 0.5)
    image[6:9, 4:24] *= np.geomspace(40, 1, 20, dtype=np.float32)
    image = image if end == "first" else image[::-1]
    image = np.ascontiguousarray(image if along == "rows" else image.T)
    reference = expected(image, 1.0, 0.004, 0.5)
    assert not weak.any()
    assert reference.sum() > 0.1 * image.size
    for num_threads in (1, 2, 5):
        found = defocus_fast.detect_edges(image, sigma=1.0, low=0.004, high=0.5, num_threads=num_threads)
        np.testing.assert_array_equal(found, reference)


@pytest.mark.parametrize("sigma", [0.001, 0.1, 0.124, 0.126])
def test_equal_to_skimage_for_tiny_sigmas(sigma: float) -> None:
    image = texture(70, 90, seed=4)
    np.testing.assert_array_equal(defocus_fast.detect_edges(image, sigma=sigma), expected(image, sigma, 0.08, 0.20))


def test_unknown_kernels() -> None:
    with pytest.raises(ValueError, match='kernels: expected one of auto, .*(portable|neon), got "mmx"'):
        defocus_fast.detect_edges(np.zeros((9, 9), np.uint8), kernels="mmx")
