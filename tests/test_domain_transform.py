# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
import reference
from images import SIZES, texture
from tolerances import FILTER, PROPAGATED

import defocus_fast

RECURSIVE = 2  # cv2.ximgproc.DTF_RF


@pytest.mark.parametrize("kernels", defocus_fast.available_kernels())
@pytest.mark.parametrize("channels", [1, 3])
def test_filter_equals_the_definition(channels: int, kernels: str) -> None:
    for seed, size in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        image = rng.random((*size, channels), np.float32).reshape(*size, *([3] if channels == 3 else []))
        guide = texture(*size, seed).astype(np.float32) / 255
        for sigma_s, sigma_r, iterations in [(7.0, 0.5, 5), (45.0, 3.75, 5), (0.2, 0.1, 1), (200.0, 2.0, 3)]:
            found = defocus_fast.domain_transform_filter(
                image, guide, sigma_s=sigma_s, sigma_r=sigma_r, iterations=iterations, kernels=kernels
            )
            expected = reference.domain_transform_filter(image, guide, sigma_s, sigma_r, iterations)
            np.testing.assert_allclose(found, expected, rtol=0, atol=FILTER, err_msg=f"{size} {sigma_s}")


@pytest.mark.parametrize("seed", range(20))
def test_filter_agrees_with_opencv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 400)), int(rng.integers(1, 400)))
    guide = texture(*size, seed).astype(np.float32) / 255
    image = rng.random((*size, 3), np.float32)
    for sigma_s, sigma_r in [(7.0, 0.5), (min(size) / 8, 3.75)]:
        expected = cv2.ximgproc.dtFilter(guide, image, sigma_s, sigma_r, mode=RECURSIVE, numIters=5)
        found = defocus_fast.domain_transform_filter(image, guide, sigma_s=sigma_s, sigma_r=sigma_r)
        np.testing.assert_allclose(found, expected.reshape(image.shape), rtol=0, atol=FILTER)


def scene(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = rng.random((height, width))
    pattern, depth = kind < 0.08, kind > 0.97
    radii = np.where(pattern, rng.integers(2, 25, (height, width)) / 4, np.nan).astype(np.float32)
    return texture(height, width, seed), radii, pattern, depth


@pytest.mark.parametrize("kernels", defocus_fast.available_kernels())
def test_propagation_equals_the_definition(kernels: str) -> None:
    for seed, size in enumerate([(40, 41), (63, 65), (101, 203), (7, 150), (150, 7)]):
        image, radii, pattern, depth = scene(*size, seed)
        if not pattern.any():
            pattern[0, 0], radii[0, 0] = True, 3.0
        for picture in (image, image[..., 0]):
            for psi in (0.0, 20.0):  # at 100 the reference underflows too, see below
                found = defocus_fast.propagate(picture, radii, pattern, depth, psi=psi, kernels=kernels)
                expected = reference.propagate(picture, radii, pattern, depth, psi)
                assert np.isfinite(found).all()
                np.testing.assert_allclose(found, expected, rtol=0, atol=PROPAGATED, err_msg=f"{size} {psi}")


def test_depth_edges_keep_the_sides_apart() -> None:
    image = np.full((60, 80), 128, np.uint8)
    pattern, depth, radii = np.zeros((60, 80), bool), np.zeros((60, 80), bool), np.zeros((60, 80), np.float32)
    pattern[30, [20, 60]], radii[30, [20, 60]] = True, [1.0, 5.0]
    blended = defocus_fast.propagate(image, radii, pattern, depth)
    depth[:, 40] = True
    divided = defocus_fast.propagate(image, radii, pattern, depth)
    assert 1.05 < blended[30, 30] < blended[30, 50] < 4.95  # without a barrier the two radii mix
    np.testing.assert_allclose(divided[:, :40], 1.0, atol=0.01)
    np.testing.assert_allclose(divided[:, 41:], 5.0, atol=0.01)


def test_out_of_reach_is_the_mean_radius() -> None:
    image = np.full((40, 400), 128, np.uint8)
    pattern, depth, radii = np.zeros((40, 400), bool), np.zeros((40, 400), bool), np.zeros((40, 400), np.float32)
    pattern[20, [3, 5]], radii[20, [3, 5]] = True, [1.0, 2.0]
    depth[:, 200:230] = True
    found = defocus_fast.propagate(image, radii, pattern, depth, psi=1000.0)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[:, 300:], 1.5)


def test_no_pattern_edge_is_zero() -> None:
    image, radii, pattern, depth = scene(33, 35)
    found = defocus_fast.propagate(image, radii, np.zeros_like(pattern), depth)
    np.testing.assert_array_equal(found, 0.0)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    image, radii, pattern, depth = scene(301, 517)
    one = defocus_fast.propagate(image, radii, pattern, depth, num_threads=1)
    for num_threads in (2, 3, 8):
        again = defocus_fast.propagate(image, radii, pattern, depth, num_threads=num_threads)
        np.testing.assert_array_equal(one, again)


def test_arguments_are_checked() -> None:
    image, radii, pattern, depth = scene(20, 30)
    with pytest.raises(ValueError, match="radii: expected height x width 20 x 30, got 20 x 29"):
        defocus_fast.propagate(image, radii[:, :29], pattern, depth)
    with pytest.raises(ValueError, match="finite px >= 0 at pattern edges, got nan"):
        defocus_fast.propagate(image, np.full_like(radii, np.nan), pattern, depth)
    with pytest.raises(TypeError, match="radii: expected float32"):
        defocus_fast.propagate(image, radii.astype(np.float64), pattern, depth)
    with pytest.raises(TypeError, match="pattern_edges: expected bool or uint8"):
        defocus_fast.propagate(image, radii, pattern.astype(np.int32), depth)
    with pytest.raises(TypeError, match="image: expected float32 of shape"):
        defocus_fast.domain_transform_filter(image, image)
    with pytest.raises(ValueError, match="guide: expected height x width"):
        defocus_fast.domain_transform_filter(radii, np.zeros((20, 31), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("name", ["image", "guide"])
def test_filter_refuses_what_is_not_finite(value: float, strided: bool, name: str) -> None:
    arrays = {key: np.zeros((40, 30, 3), np.float32) for key in ("image", "guide")}
    arrays[name][33, 17, 1] = value
    if strided:
        arrays = {key: array[..., ::-1] for key, array in arrays.items()}
    with pytest.raises(ValueError, match=rf"{name}: expected float32 values in \[-3.4.*, 3.4.*\], got NaN or infinity"):
        defocus_fast.domain_transform_filter(*arrays.values())
