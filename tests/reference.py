# SPDX-License-Identifier: Apache-2.0
"""The stages in plain NumPy, float64, as the papers write them: slow and obviously right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def domain_distances(guide: Array, sigma_s: float, sigma_r: float, extra: Array | float = 0.0) -> tuple[Array, Array]:
    """Equation 11 of Gastal and Oliveira along x and y; `extra` is added at every pixel (the paper's psi)."""
    guide = guide.reshape(*guide.shape[:2], -1)
    across = np.zeros(guide.shape[:2])
    down = np.zeros(guide.shape[:2])
    across[:, 1:] = np.abs(np.diff(guide, axis=1)).sum(axis=2)
    down[1:] = np.abs(np.diff(guide, axis=0)).sum(axis=2)
    return 1 + sigma_s / sigma_r * across + extra, 1 + sigma_s / sigma_r * down + extra


def _filter_rows(signal: Array, feedback: Array) -> Array:
    out = signal.copy()
    for x in range(1, out.shape[1]):
        out[:, x] += feedback[:, x] * (out[:, x - 1] - out[:, x])
    for x in range(out.shape[1] - 2, -1, -1):
        out[:, x] += feedback[:, x + 1] * (out[:, x + 1] - out[:, x])
    return out


def recursive_filter(signal: Array, distances: tuple[Array, Array], sigma_s: float, iterations: int) -> Array:
    """Section 5 of Gastal and Oliveira: equations 14 and 21, a fresh exponential in every iteration."""
    across, down = distances
    out = signal.astype(np.float64)
    for i in range(1, iterations + 1):
        sigma = sigma_s * np.sqrt(3) * 2 ** (iterations - i) / np.sqrt(4**iterations - 1)
        a = np.exp(-np.sqrt(2) / sigma)
        out = _filter_rows(out, a**across)
        out = _filter_rows(out.T, (a**down).T).T
    return out


def domain_transform_filter(image: Array, guide: Array, sigma_s: float, sigma_r: float, iterations: int) -> Array:
    distances = domain_distances(guide, sigma_s, sigma_r)
    channels = image.reshape(*image.shape[:2], -1)
    filtered = [recursive_filter(channels[..., c], distances, sigma_s, iterations) for c in range(channels.shape[2])]
    return np.stack(filtered, axis=2).reshape(image.shape)


def spread(
    image: NDArray[np.uint8],
    signal: Array,
    depth: NDArray[np.bool_],
    psi: float,
    sigma_s: float | None = None,
    sigma_r: float = 3.75,
    iterations: int = 5,
    guide_sigma_s: float = 7.0,
) -> Array:
    """The signal, filtered along the guide that the image filtered by itself is, not across depth edges."""
    picture = (image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)) / 255.0
    if sigma_s is None:
        sigma_s = min(picture.shape[:2]) / 8
    guide = domain_transform_filter(picture, picture, guide_sigma_s, 0.5, iterations)
    distances = domain_distances(guide, sigma_s, sigma_r, psi * depth)
    return recursive_filter(signal, distances, sigma_s, iterations)


def propagate(
    image: NDArray[np.uint8],
    radii: Array,
    weights: NDArray[np.bool_] | Array,
    depth: NDArray[np.bool_],
    psi: float,
    **options: Any,
) -> Array:
    """Section III-C of the paper, `weights` being its mask of pattern edges; NaN where none is in reach."""
    with np.errstate(invalid="ignore", divide="ignore"):
        weighted = weights * np.where(weights > 0, radii, 0.0)
        return spread(image, weighted, depth, psi, **options) / spread(
            image, weights.astype(float), depth, psi, **options
        )


def expected_error(filtered: Array, mean: Array, square: Array, doubt: float, a: float, b: float) -> Array:
    """From what weight reaches each pixel, and the mean and the mean square of the mixture there."""
    variance = np.maximum(square - mean**2, 0)
    unknown = 0.58 * (mean + 1)
    return np.hypot(a, b * np.sqrt((filtered * variance + doubt * unknown**2) / (filtered + doubt)))
