# SPDX-License-Identifier: Apache-2.0
"""The filters that bench/propagation.py compares with, against loops over all pairs of edges."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from images import texture

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import propagation

Array = np.ndarray[Any, Any]


@pytest.fixture
def edges() -> tuple[Array, Array, Array]:
    """Radii, mask and probabilities; some edges touch, others are alone."""
    rng = np.random.default_rng(4)
    pattern = rng.random((30, 36)) < 0.25
    pattern[0, 0] = pattern[-1, -1] = True
    radii = np.where(pattern, rng.uniform(0.5, 6, pattern.shape), 0).astype(np.float32)
    return radii, pattern, np.where(pattern, rng.uniform(0.2, 1, pattern.shape), 0).astype(np.float32)


def test_connected_edge_filter(edges: tuple[Array, Array, Array]) -> None:
    radii, pattern, _ = edges
    at = np.argwhere(pattern)
    linked = np.abs(at[:, None] - at).max(2) == 1
    data = 1 + propagation.CEF_SCALES
    system = np.diag(data + 2 * propagation.CEF_GAMMA * linked.sum(1)) - 2 * propagation.CEF_GAMMA * linked
    found = propagation.connected_edge_filter(radii, pattern)
    np.testing.assert_allclose(found[pattern], np.linalg.solve(system, data * radii[pattern]), rtol=1e-5)
    alone = np.zeros_like(pattern)
    alone[tuple(at[~linked.any(1)].T)] = True
    assert alone.any()
    np.testing.assert_allclose(found[alone], radii[alone], rtol=1e-6)
    assert np.abs(found - radii)[pattern].max() > 1


def test_probability_joint_bilateral_filter(edges: tuple[Array, Array, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    """With narrow Gaussians: those that were published hardly differ from a mean over the window."""
    for name, value in (("SPACE", 4.0), ("RANGE", 30.0), ("PROBABILITY", 0.4)):
        monkeypatch.setattr(propagation, f"PJBF_{name}", value)
    radii, pattern, probability = edges
    image = texture(*pattern.shape)
    guide = cv2.ximgproc.rollingGuidanceFilter(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), None, -1, 1.5, 1.5, 3, cv2.BORDER_REFLECT
    )
    found = propagation.probability_joint_bilateral_filter(radii, pattern, probability, image)
    at = np.argwhere(pattern)
    for y, x in at:
        near = at[np.abs(at - (y, x)).max(1) <= 13]
        rows, columns = near.T
        exponent = ((near - (y, x)) ** 2).sum(1) / 4.0**2 + (guide[rows, columns] - guide[y, x]) ** 2 / 30.0**2
        weight = np.exp(-(exponent + (1 - probability[rows, columns]) ** 2 / 0.4**2) / 2)
        assert found[y, x] == pytest.approx(np.average(radii[rows, columns], weights=weight), rel=1e-4)
