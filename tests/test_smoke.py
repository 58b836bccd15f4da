# SPDX-License-Identifier: Apache-2.0
"""Enough to trust an installed wheel: needs nothing but the package and pytest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import defocus_fast


def test_facts() -> None:
    config = defocus_fast.build_config()
    assert config["version"] == defocus_fast.__version__
    assert config["kernels"].split(", ") == defocus_fast.available_kernels()
    assert (Path(defocus_fast.get_cmake_path()) / "defocus_fastConfig.cmake").is_file()


@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_a_blurred_checkerboard_is_blurred(model: str) -> None:
    """The shipped weights tell a sharp image from one averaged over a 9 px square (like a disk of radius 5 px)."""
    y, x = np.mgrid[:160, :200]
    sharp = np.where((y // 20 + x // 20) % 2, 200.0, 60.0)
    padded = np.pad(sharp, 4, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9))
    blurred = windows.mean(axis=(2, 3))
    radii = [np.median(defocus_fast.estimate_blur(image.astype(np.uint8), model=model)) for image in (sharp, blurred)]
    assert radii[0] < 1.5
    assert 3 < radii[1] < 6.5


def test_models_are_shipped() -> None:
    assert sorted(defocus_fast.shipped_models()) == ["fast", "tiny", "tip22"]
