# SPDX-License-Identifier: Apache-2.0
"""MATLAB's files: what SciPy writes is read as SciPy reads it, and what is damaged is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from defocus_fast._mat import read_mat

NUMBERS = ["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8", "?"]


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"one": (1, 1), "few": (1, 3), "map": (5, 7), "kernel": (3, 3, 2, 4), "none": (0, 0)}
    return {
        f"{name}_{i}": rng.integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)
        for i, dtype in enumerate(NUMBERS)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_of_every_type_and_shape(tmp_path: Path, compressed: bool) -> None:
    file = tmp_path / "a.mat"
    others = {"text": "px", "cell": [1, "a"], "struct": {"map": np.ones((2, 2))}, "complex": np.full((2, 2), 1j)}
    savemat(file, arrays() | others, do_compression=compressed)
    found, expected = read_mat(file), loadmat(file)
    assert found.keys() >= arrays().keys()
    assert not found.keys() & (others.keys() - {"cell"})
    for name in arrays():
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files(tmp_path: Path, compressed: bool) -> None:
    """Any byte may be any other, and any end may be missing. Of some of these SciPy's reader dies."""
    whole, file = tmp_path / "a.mat", tmp_path / "b.mat"
    savemat(whole, {"map": np.arange(12.0).reshape(3, 4), "few": np.uint8([[1, 2]])}, do_compression=compressed)
    content = whole.read_bytes()
    messages = []
    rng = np.random.default_rng(1)
    for i in range(600):
        damaged = bytearray(content[: len(content) if i % 4 else rng.integers(len(content))])
        for _ in range(rng.integers(1, 4) if damaged[128:] else 0):
            damaged[rng.integers(124, len(damaged))] = rng.choice([0, 1, 6, 14, 15, 127, 128, 255])
        file.write_bytes(damaged)
        try:
            assert all(array.nbytes < 1000 for array in read_mat(file).values())
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(
        message.startswith(("a damaged MATLAB file: ", "expected a MATLAB file of version 5 to 7"))
        for message in messages
    )


def test_other_files(tmp_path: Path) -> None:
    savemat(tmp_path / "4.mat", {"map": np.ones((2, 2))}, format="4")
    (tmp_path / "7.3.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400))
    (tmp_path / "empty.mat").touch()
    for file in tmp_path.iterdir():
        with pytest.raises(ValueError, match="expected a MATLAB file of version 5 to 7, little-endian"):
            read_mat(file)


def test_little_that_would_become_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.mat"
    savemat(file, {f"a{i}": np.zeros((100, 100)) for i in range(5)}, do_compression=True)
    assert len(read_mat(file)) == 5
    monkeypatch.setattr("defocus_fast._mat._MOST_BYTES", 200_000)
    with pytest.raises(ValueError, match="a damaged MATLAB file: expected an element of 80048 bytes"):
        read_mat(file)
