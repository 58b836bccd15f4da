# SPDX-License-Identifier: Apache-2.0
"""Model folders that somebody wrote to do harm, or damaged: each is refused with a message, and nothing else happens.

tests/fuzz looks for more of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import defocus_fast
from defocus_fast import model_io


def refused(folder: Path, message: str) -> None:
    with pytest.raises(defocus_fast.ModelError, match=message) as error:
        defocus_fast.Estimator(20, 20, model=folder, device="cpu")
    assert str(folder) in str(error.value)  # says which file
    assert str(error.value).isprintable()


@pytest.fixture
def cells(random_cells: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_cells, tmp_path / "hostile"))


@pytest.fixture
def tip22(random_model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_model, tmp_path / "hostile"))


STEM = "tensor stem: 0 12 3 9 9"
RANGES = "int8_ranges: stem 1.5 convs.0 2\n"


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        ("format: 3", "format: 2", 'format: expected 3, got "2"'),
        ("format: 3\n", "", 'expected a line "format: ...", got none'),
        ("name: cells", "name: \N{BELL}", r'name: expected 1 to 60 printable ASCII characters, got "\?+"'),
        ("name: cells", "name: " + 61 * "x", "name: expected 1 to 60 printable ASCII characters"),
        ("name: cells", "name: ", "name: expected 1 to 60 printable ASCII characters"),
        ("width: 12", "width: 12\nwidth: 12", 'expected each key once, got "width" twice'),
        ("width: 12", "width: 12\nheight: 12", 'unknown key "height"; accepted: format, name, width, '),
        ("width: 12", "width 12", 'expected lines "key: value", got "width 12"'),
        ("width: 12", "width: 12\n", 'expected lines "key: value", got ""'),
        ("width: 12", "width: 64.9", r'width: expected an integer in \[1, 1024\], got "64.9"'),
        ("width: 12", "width: 6x9", 'width: expected an integer .*got "6x9"'),
        ("width: 12", "width:  12 abc", 'width: expected an integer .*got " 12 abc"'),
        ("width: 12", "width: 12 ", 'width: expected an integer .*got "12 "'),
        ("width: 12", "width: 1e1", 'width: expected an integer .*got "1e1"'),
        ("width: 12", "width: 0", 'width: expected an integer .*got "0"'),
        ("width: 12", "width: 2147483647", 'width: expected an integer .*got "2147483647"'),
        ("width: 12", "width: 99999999999999999999", "width: expected an integer "),
        ("width: 12", "width: 1024", 'tensor ".*": expected shape .*1024.*, got '),
        ("architecture: cells", "architecture: cell", 'architecture: expected tip22 or cells, got "cell"'),
        ("architecture: cells", "architecture: tip22", 'expected a line "crop_offset: ...", got none'),
        ("depth: 2", "depth: 1", 'tensor "convs.1": expected none of this name, got one'),
        ("depth: 2", "depth: 3", 'tensor "convs.2": expected shape 12 x 12 x 3 x 3, got none'),
        ("depth: 2", "depth: -1", r"depth: expected an integer in \[0, 64\]"),
        ("depth: 2", "depth: 65", r"depth: expected an integer in \[0, 64\]"),
        ("depth: 2", "depth: 2\ncrop_offset: 0", 'unknown key "crop_offset"'),
        ("depth_threshold: 0.5", "depth_threshold: nan", r"depth_threshold: expected a number in \[0, 1\]"),
        ("depth_threshold: 0.5", "depth_threshold: -0.1", r"depth_threshold: expected a number in \[0, 1\]"),
        ("sigma_r: 0.5", "sigma_r: 0", r"sigma_r: expected a number in \[0.001, 1000\]"),
        ("sigma_r: 0.5", "sigma_r: 1e400", r"sigma_r: expected a number in \[0.001, 1000\]"),
        ("iterations: 3", "iterations: 17", r"iterations: expected an integer in \[1, 16\]"),
        ("error_floor: 0.25", "error_floor: inf", r"error_floor: expected a number in \[0, 1000\]"),
        ("error_slope: 2.0", "error_slope: 1e39", r"error_slope: expected a number in \[0, 1000\]"),
        ("radius_bins: 0.5", "radius_bins: -0.5", r"radius_bins: expected a number in \[0, 1000\]"),
        ("radius_bins: 0.5", "radius_bins: nan", "radius_bins: expected a number"),
        ("radius_bins: 0.5 0.75", "radius_bins: 0.75 0.75", 'radius_bins: expected ascending radii, got "0.75"'),
        ("radius_bins: 0.5 0.75", "radius_bins: 0.5  0.75", 'radius_bins: expected a number .*got ""'),
        ("radius_bins: 0.5 0.75", "radius_bins: 0.5", 'tensor "blur.dense2.bias": expected shape 22, got 23'),
        ("radius_bins: 0.5", "radius_bins:" + 64 * " 0.1" + " 0.5", "radius_bins: expected at most 64, got 87"),
        ("trained: ", "int8_ranges: stem 1\ntrained: ", "int8_ranges: expected a number for each of convs.0 stem, got"),
        ("trained: ", RANGES.replace("2", "0") + "trained: ", r"int8_ranges: convs.0: expected a number in"),
        ("trained: ", RANGES.replace("2", "inf") + "trained: ", r"int8_ranges: convs.0: expected a number in"),
        (
            "trained: ",
            RANGES.replace("convs.0", "convs.1") + "trained: ",
            "int8_ranges: expected a number for each of convs.0 stem",
        ),
        (
            "trained: ",
            RANGES.replace("\n", " stem 2\n") + "trained: ",
            "int8_ranges: expected a number for each of convs.0 stem",
        ),
        (STEM, STEM.replace("12", "24"), 'tensor "stem": expected shape 12 x 3 x 9 x 9, got 24 x 3 x 9 x 9'),
        (STEM, STEM.replace("3 9", "3 9 1"), 'tensor "stem": expected an offset and 1 to 4 sides, got "0 12 3 9 1 9"'),
        (STEM, STEM.replace("12 3", "12 -3"), r'tensor "stem": expected an integer in \[1, 2147483647\], got "-3"'),
        (STEM, STEM.replace("12 3", "12 4294967299"), 'tensor "stem": expected an integer'),
        (STEM, "tensor stem: 0", 'tensor "stem": expected an offset and 1 to 4 sides, got "0"'),
        (STEM, STEM.replace(": 0", ": 64"), 'tensor "stem": expected offset 0, got 64'),
        (STEM, STEM.replace(": 0", ": -64"), 'tensor "stem": expected an integer'),
        ("tensor convs.1: 16896", "tensor convs.1: 11712", 'tensor "convs.1": expected offset 16896, got 11712'),
        ("tensor convs.1:", "tensor convs.2:", 'tensor "convs.1": expected shape 12 x 12 x 3 x 3, got none'),
    ],
)
def test_mutated_text(cells: Path, line: str, wrong: str, message: str) -> None:
    text = (cells / "model.txt").read_text(encoding="utf-8")
    assert line in text
    (cells / "model.txt").write_text(text.replace(line, wrong), encoding="utf-8")
    refused(cells, "model.txt: " + message)


@pytest.fixture
def learned(cells: Path) -> Path:
    """With a network for the distances."""
    rng = np.random.default_rng(0)
    shapes = model_io.propagation_shapes()
    weights = {name: (0.1 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    model_io.add_propagation(cells, weights)
    defocus_fast.Estimator(200, 200, model=cells, device="cpu", distances="learned")
    return cells


@pytest.mark.parametrize(
    ("tensor", "wrong", "message"),
    [
        ("context.weight", "", 'tensor "propagation.context.weight": expected shape 96 x 48, got none'),
        ("context.weight", "context.weight: 0 48 96", "expected shape 96 x 48, got 48 x 96"),
        ("context.weight", "context.weight: 0 96 48 1 1", "expected shape 96 x 48, got 96 x 48 x 1 x 1"),
        ("context.weight", "context.bias: 0 48", 'tensor "propagation.context.weight": expected shape 96 x 48, got no'),
        ("6.bias", "7.bias: 0 17", 'tensor "propagation.6.bias": expected shape 17, got none'),
        ("0.weight", "", 'tensor "propagation.0.bias": expected none of this name, got one'),
    ],
)
def test_mutated_networks_of_distances(learned: Path, tensor: str, wrong: str, message: str) -> None:
    """The first is what such a network was before it had a context."""
    lines = (learned / "model.txt").read_text(encoding="utf-8").splitlines()
    changed = [
        wrong and f"tensor propagation.{wrong}" if line.startswith(f"tensor propagation.{tensor}:") else line
        for line in lines
    ]
    assert changed != lines
    (learned / "model.txt").write_text("".join(f"{line}\n" for line in changed if line), encoding="utf-8")
    refused(learned, "model.txt: .*" + message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "expected finite weights, got others in propagation.context.weight"),
        (1e36, "expected weights with which no answer can exceed"),
    ],
)
def test_contexts_that_overflow(learned: Path, value: float, message: str) -> None:
    lines = (learned / "model.txt").read_text(encoding="utf-8").splitlines()
    (line,) = (each for each in lines if each.startswith("tensor propagation.context.weight: "))
    values = np.fromfile(learned / "weights.bin", "<f4")
    values[int(line.split()[2]) // 4] = value
    values.tofile(learned / "weights.bin")
    refused(learned, "weights.bin: " + message)


def test_a_hidden_layer_of_absurd_width(tip22: Path) -> None:
    text = (tip22 / "model.txt").read_text(encoding="utf-8")
    for key in ("blur.dense1.bias", "blur.dense1.weight", "blur.dense2.weight"):
        start, _, rest = text.partition(f"tensor {key}: ")
        value, _, rest = rest.partition("\n")
        value = " ".join([value.split()[0], *value.split()[1:]]).replace(" 16", " 1000000000", 1)
        text = f"{start}tensor {key}: {value}\n{rest}"
    (tip22 / "model.txt").write_text(text, encoding="utf-8")
    refused(tip22, 'model.txt: tensor "blur.dense1.bias": expected shape 4096, got 1000000000')


def test_crop_offset(tip22: Path) -> None:
    text = (tip22 / "model.txt").read_text(encoding="utf-8")
    (tip22 / "model.txt").write_text(text.replace("crop_offset: 0", "crop_offset: 2"), encoding="utf-8")
    refused(tip22, r"crop_offset: expected an integer in \[0, 1\]")


def test_texts_that_are_no_models(cells: Path) -> None:
    for text in (b"", b"\n", b"\0" * 1000, b"\xff\xfe: \xff\n", bytes(range(256)), os.urandom(2**20)):
        (cells / "model.txt").write_bytes(text)
        refused(cells, "model.txt: expected ")
    text = b"format: 3\nname: a\n"
    for other in (text.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + text):
        (cells / "model.txt").write_bytes(other)
        refused(cells, "model.txt: expected lines that end with LF, and no byte order mark, got ")
    (cells / "model.txt").write_bytes(b"x: y\n" * 2**18)
    refused(cells, "model.txt: expected at most 1048576 bytes, got 1310720")


def test_weights_of_another_length(cells: Path) -> None:
    weights = (cells / "weights.bin").read_bytes()
    padding = -len(weights) % 64  # no more than would come before a next tensor
    assert padding
    for wrong in (weights[:-1], weights[: len(weights) // 2], b"", *(weights + bytes(n) for n in (1, padding, 64))):
        (cells / "weights.bin").write_bytes(wrong)
        refused(cells, f"weights.bin: expected {len(weights)} bytes, got {len(wrong)}")
    os.truncate(cells / "weights.bin", 2**40)  # a file without blocks
    refused(cells, "weights.bin: expected at most 268435456 bytes, got 1099511627776")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 1000, -1])
def test_weights_that_are_not_finite(cells: Path, value: float, at: int) -> None:
    weights = np.fromfile(cells / "weights.bin", "<f4")
    weights[at] = value
    weights.tofile(cells / "weights.bin")
    refused(cells, "weights.bin: expected finite weights, got others in (stem|convs.0|edge.dense2.bias)$")


@pytest.mark.parametrize("model", ["cells", "tip22"])
def test_weights_that_overflow(model: str, request: pytest.FixtureRequest) -> None:
    """Each is a number; their sums over some layers are none."""
    folder = request.getfixturevalue(model)
    weights = np.fromfile(folder / "weights.bin", "<f4")
    (weights * 1e9).astype("<f4").tofile(folder / "weights.bin")
    refused(folder, r"weights.bin: expected weights with which no answer can exceed 1e\+25, got up to ")


def _replace(file: Path, by: Callable[[Path], object]) -> None:
    file.unlink()
    by(file)


@pytest.mark.parametrize("name", ["model.txt", "weights.bin"])
@pytest.mark.parametrize(
    ("by", "message"),
    [
        (os.mkfifo, "expected a file, got something else"),
        (os.mkdir, "expected a file, got something else"),
        (lambda file: os.symlink("/dev/zero", file), "expected a file, got something else"),
        (lambda file: os.symlink(file.name, file), "expected a file, got Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file(cells: Path, name: str, by: Callable[[Path], object], message: str) -> None:
    _replace(cells / name, by)
    refused(cells, f"{name}: {message}")


def test_missing_weights(cells: Path) -> None:
    (cells / "weights.bin").unlink()
    refused(cells, "weights.bin: expected a file, got No such file or directory")


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("format: 3\n", encoding="utf-8")
    refused(tmp_path / "loop", "model.txt: expected a file, got Too many levels of symbolic links")
    for absent in ("file", "absent", "x" * 3000):
        with pytest.raises(defocus_fast.ModelError, match="is no model folder: no .*/model.txt;|File name too long"):
            defocus_fast.Estimator(20, 20, model=tmp_path / absent)
    with pytest.raises(defocus_fast.ModelError, match='"./fast" is no model folder: no ./fast/model.txt; accepted: a'):
        defocus_fast.Estimator(20, 20, model=Path("./fast"))


def test_names_that_are_no_utf8(cells: Path) -> None:
    """They are told as Python tells names of files."""
    folder = cells.rename(cells.with_name("model \udcff"))
    (folder / "weights.bin").write_bytes(b"")
    with pytest.raises(defocus_fast.ModelError, match="model \udcff/weights.bin: expected [0-9]+ bytes, got 0"):
        defocus_fast.Estimator(20, 20, model=folder, device="cpu")
    with pytest.raises(defocus_fast.ModelError, match='"fast\udcff" is no shipped model'):
        defocus_fast.Estimator(20, 20, model="fast\udcff", device="cpu")


def test_graphs_are_not_read(cells: Path) -> None:
    """The ONNX files are for other engines: what they refer to is not opened."""
    for graph in cells.glob("*.onnx"):
        graph.write_bytes(b"\xff" * 100)
    defocus_fast.Estimator(20, 20, model=cells, device="cpu")


def test_shipped_models_elsewhere(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFOCUS_FAST_MODELS", str(cells.parent))
    assert defocus_fast.shipped_models() == ["hostile"]
    assert defocus_fast.Estimator(20, 20, model="hostile", device="cpu").model == "cells"
    with pytest.raises(defocus_fast.ModelError, match='"fast" is no shipped model: .*; accepted: .* .hostile.'):
        defocus_fast.Estimator(20, 20, model="fast", device="cpu")
