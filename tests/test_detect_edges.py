# SPDX-License-Identifier: Apache-2.0
"""Edges are scikit-image's, pixel for pixel: no tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import KINDS, SIZES, texture
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
                found = defocus_fast.detect_edges(picture, sigma, low, high, kernels=kernels)
                np.testing.assert_array_equal(found, expected(picture, sigma, low, high), err_msg=f"{size} {sigma}")


@pytest.mark.parametrize("kind", ["binary", "blocks", "ramps"])
def test_equal_to_skimage_where_rounding_decides(kind: str) -> None:
    edges = 0
    for seed in range(150):
        image = KINDS[kind](*np.random.default_rng(seed).integers(20, 90, 2), seed)
        found = defocus_fast.detect_edges(image)
        np.testing.assert_array_equal(found, expected(image, 2**0.5, 0.08, 0.20))
        edges += found.sum()
    assert edges > 10_000  # the pictures do have edges


def test_equal_to_skimage_on_large_pictures_for_any_number_of_threads() -> None:
    image = texture(700, 1100, seed=3)
    reference = expected(image, 2**0.5, 0.08, 0.20)
    assert 0.01 < reference.mean() < 0.5
    for num_threads in (1, 2, 5):
        np.testing.assert_array_equal(defocus_fast.detect_edges(image, num_threads=num_threads), reference)


def test_hysteresis_follows_a_long_weak_chain() -> None:
    """One strong pixel at the end of a spiral of weak edges keeps all of it."""
    image = np.zeros((200, 200), np.float32)
    for i in range(8, 100, 12):
        image[i:-i, i:-i] = 0.35 if (i // 12) % 2 == 0 else 0.3
    image[8:12, 8:12] = 1.0
    np.testing.assert_array_equal(defocus_fast.detect_edges(image, 1.0, 0.05, 0.5), expected(image, 1.0, 0.05, 0.5))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ((0.0, 0.1, 0.2), r"sigma: expected px in \(0, 64\], got 0"),
        ((65.0, 0.1, 0.2), "sigma"),
        ((float("nan"), 0.1, 0.2), "sigma"),
        ((1.0, 0.3, 0.2), "0 <= low <= high, got low 0.3"),
        ((1.0, -0.1, 0.2), "low"),
        ((1.0, 0.1, float("inf")), "high"),
    ],
)
def test_parameters_out_of_range(parameters: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        defocus_fast.detect_edges(np.zeros((9, 9), np.uint8), *parameters)


def test_unknown_kernels() -> None:
    with pytest.raises(ValueError, match='kernels: expected one of auto, .*portable, got "mmx"'):
        defocus_fast.detect_edges(np.zeros((9, 9), np.uint8), kernels="mmx")
