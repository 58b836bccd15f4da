# SPDX-License-Identifier: Apache-2.0
"""The command line: what is read, what is written, what is left alone, and what it says when something is wrong."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

import defocus_fast
from defocus_fast import _files, _images, benchmark, cli, model_io
from defocus_fast.cli._record import FILE as RECORD

Estimate = Callable[..., Result]


def scene(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Coloured squares of 8 px, all different: edges everywhere, and no symmetry."""
    squares = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3))
    return np.kron(squares, np.ones((8, 8, 1))).astype(np.uint8)


def save(path: str, array: NDArray[np.uint8] | None = None, **options: Any) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Image.fromarray(scene() if array is None else array).save(path, **options)


def names(folder: Path) -> set[str]:
    """What lies in a folder, but for the record of what is done."""
    return {path.name for path in folder.iterdir()} - {RECORD}


def test_everything_is_written_for_a_photograph(estimate: Estimate, random_model: str, folder: Path) -> None:
    save("a.png")
    result = estimate("a.png", "-o", "new/maps")
    assert result.exit_code == 0, result.output
    assert names(folder / "new/maps") == {"a.blur.npy", "a.blur.png", "a.overlay.jpg"}
    radii = np.load("new/maps/a.blur.npy")
    estimator = defocus_fast.Estimator(48, 64, model=random_model, precision="float32", num_threads=2)
    expected = estimator.estimate(scene())
    assert radii.dtype == np.float32
    np.testing.assert_array_equal(radii, expected.map)
    row = next(line for line in result.stdout.splitlines() if "a.png" in line)
    assert f"64 x 48 {len(expected.edges)} {expected.pattern_edges.sum()}" in " ".join(row.split())
    assert f"{np.median(radii):.2f}" in row
    assert "value / 500" in result.stdout


def test_png_holds_parts_of_a_pixel_and_says_so(folder: Path) -> None:
    radii = np.array([[0, 0.5, 1.2309], [1.2311, 100, 140]], np.float32)
    _files.write_whole(folder / "m.png", lambda file: _images.write_png(file, radii))
    with Image.open("m.png") as image:
        assert image.mode.startswith("I")
        assert image.text["blur_units_per_px"] == "500"
        assert image.text["Description"].endswith("value / 500")
        np.testing.assert_array_equal(np.asarray(image), [[0, 250, 615], [616, 50000, 65535]])


def test_saved_png_is_the_map(estimate: Estimate, folder: Path) -> None:
    save("a.png")
    assert estimate("a.png", "--save", "png", "--save", "npy").exit_code == 0
    assert names(folder) == {"a.png", "a.blur.png", "a.blur.npy"}
    values = np.asarray(Image.open("a.blur.png"))
    np.testing.assert_allclose(values / 500, np.load("a.blur.npy"), atol=0.001001)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(folder: Path, orientation: int) -> None:
    """Corner by corner, against what the EXIF standard says where row 0 and column 0 are seen."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif", "a.webp"):
        save(name, exif=exif, **({"lossless": True} if name == "a.webp" else {}))  # type: ignore[arg-type]
        stored = scene()
        upright = stored if orientation < 5 else stored.swapaxes(0, 1)
        if orientation in (3, 4, 7, 8):
            upright = upright[::-1]
        if orientation in (2, 3, 6, 7):
            upright = upright[:, ::-1]
        np.testing.assert_array_equal(_images.read_photo(folder / name), upright)


def test_a_turned_photograph_gets_a_turned_map(estimate: Estimate, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save("turned.jpg", exif=exif, quality=95, subsampling=0)
    assert estimate("turned.jpg", "--save", "npy").exit_code == 0
    assert np.load("turned.blur.npy").shape == (64, 48)


def test_kinds_of_pixels(folder: Path) -> None:
    colour = scene()
    grey = colour[..., 0]
    deep = np.random.default_rng(2).integers(0, 65536, grey.shape, dtype=np.uint16)
    image = Image.fromarray(colour)

    def read(picture: Image.Image, name: str, **options: Any) -> NDArray[np.generic]:
        picture.save(name, **options)
        return _images.read_photo(folder / name)

    np.testing.assert_array_equal(read(Image.fromarray(grey), "grey.png"), grey)
    bits = grey > 127
    np.testing.assert_array_equal(read(Image.fromarray(bits), "bits.png"), bits * np.uint8(255))
    for name in ("deep.png", "deep.tif"):
        got = read(Image.fromarray(deep), name)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(np.rint(got * 65535), deep)
    real = np.float32(grey) / 255
    np.testing.assert_array_equal(read(Image.fromarray(real), "float.tif"), real)
    palette = image.quantize(32)
    np.testing.assert_array_equal(read(palette, "palette.png"), np.asarray(palette.convert("RGB")))
    inks = image.convert("CMYK")
    np.testing.assert_array_equal(read(inks, "cmyk.tif"), np.asarray(inks.convert("RGB")))
    for picture, name in ((image, "a.png"), (image.convert("L"), "b.png")):
        veiled = picture.copy()
        alpha = np.full((48, 64), 255, np.uint8)
        alpha[:10] = 0
        veiled.putalpha(Image.fromarray(alpha))
        expected = np.asarray(picture).copy()
        expected[:10] = 255
        np.testing.assert_array_equal(read(veiled, name), expected)
    np.testing.assert_array_equal(read(image, "frames.tif", save_all=True, append_images=[image]), colour)


def test_one_bad_file_does_not_stop_the_others(
    estimate: Estimate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("first.png")
    save("last.jpg")
    save("whole.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:2000])
    save("whole.jpg")
    Path("cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:-200])
    Path("text.jpg").write_text("not an image")
    Path("empty.jpg").touch()
    Path("nothing").mkdir()
    Image.new("L", (400, 400)).save("bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60000)
    bad = ["cut.png", "cut.jpg", "text.jpg", "empty.jpg", "missing.jpg", "nothing", "bomb.png"]
    result = estimate("first.png", *bad, "last.jpg", "--save", "npy", "-o", "out")
    assert result.exit_code == 1
    assert names(folder / "out") == {"first.blur.npy", "last.blur.npy"}
    for name in bad:
        assert sum(line.startswith(f"{name}: ") for line in result.stderr.splitlines()) == 1, name
    for reason in ("missing.jpg: no such file", "text.jpg: not a JPEG", "bomb.png: Image size", "nothing: no images"):
        assert reason in result.stderr
    assert "truncated" in result.stderr
    assert "7 of 9 failed" in result.stderr
    assert "Traceback" not in result.output


def test_what_is_no_file_does_not_stop_the_others(estimate: Estimate, folder: Path) -> None:
    """Nor is it waited for."""
    save("a.png")
    os.symlink("loop.png", "loop.png")
    os.mkfifo("pipe.png")
    bad = {
        "loop.png": "too many",
        "pipe.png": "not a regular",
        "/dev/zero": "not a regular",
        "x" * 300: "file name too",
    }
    result = estimate(*bad, "", "a.png", "--save", "npy")
    assert result.exit_code == 1
    for name, reason in bad.items():
        assert f"{name}: {reason}" in result.stderr
    assert '"": expected the name of a file or folder' in result.stderr, "it is not the current folder"
    assert "5 of 6 failed" in result.stderr
    assert "a.blur.npy" in names(folder)


def test_a_folder_may_hold_anything(estimate: Estimate, folder: Path) -> None:
    """What cannot be read is told."""
    Path("in/folder.png").mkdir(parents=True)
    save("in/a.png")
    os.mkfifo("in/pipe.png")
    os.mkfifo("in/pipe.blur.png")
    for name, target in (("loop.png", "loop.png"), ("nowhere.overlay.jpg", "nowhere"), ("long.png", "x" * 300)):
        os.symlink(target, f"in/{name}")
    result = estimate("in", "--save", "npy", "-o", "out")
    assert result.exit_code == 1
    assert sorted(result.stderr.splitlines()) == [
        "5 of 6 failed",
        "in/long.png: file name too long",
        "in/loop.png: too many levels of symbolic links",
        "in/nowhere.overlay.jpg: no such file",
        "in/pipe.blur.png: not a regular file",
        "in/pipe.png: not a regular file",
    ]
    assert names(folder / "out") == {"a.blur.npy"}


def test_photographs_may_have_names_like_results(estimate: Estimate, folder: Path) -> None:
    Path("in").mkdir()
    for name in ("holiday.jpg", "holiday.overlay.jpg", "x.blur.png"):
        save(f"in/{name}")
    assert estimate("in", "-o", "out").exit_code == 0
    pictures = {name for name in names(folder / "out") if not name.endswith(".npy")}
    assert pictures == {
        f"{stem}{suffix}"
        for stem in ("holiday", "holiday.overlay", "x.blur")
        for suffix in (".blur.png", ".overlay.jpg")
    }
    before = Path("in/holiday.overlay.jpg").read_bytes()
    result = estimate("in", "-o", "in")
    assert result.exit_code == 1
    assert "holiday.overlay.jpg would overwrite a photograph of this run" in result.stderr
    assert Path("in/holiday.overlay.jpg").read_bytes() == before


def test_16_bit_out_of_range_is_refused(estimate: Estimate, folder: Path) -> None:
    Image.fromarray(np.full((20, 20), 70000, np.int32)).save("wide.tif")
    Image.fromarray(np.full((20, 20), 3.5, np.float32)).save("bright.tif")
    result = estimate("wide.tif", "bright.tif")
    assert result.exit_code == 1
    assert "expected greyscale of 1, 8 or 16 bits" in result.stderr
    assert "bright.tif: image:" in result.stderr
    assert names(folder) == {"wide.tif", "bright.tif"}


def test_equal_names_do_not_overwrite_each_other(estimate: Estimate, folder: Path) -> None:
    for name, shape in (("a/p.png", (48, 64)), ("b/p.png", (64, 48)), ("b/P.jpg", (40, 40)), ("b/p-2.png", (32, 32))):
        Path(name).parent.mkdir(exist_ok=True)
        save(name, scene(*shape))
    result = estimate("a/p.png", "b/p.png", "b/P.jpg", "b/p-2.png", "a/p.png", "--save", "npy", "-o", "out")
    assert result.exit_code == 0, result.output
    shapes = {path.name: np.load(path).shape for path in Path("out").glob("*.npy")}
    assert shapes == {
        "p.blur.npy": (48, 64),
        "p-2.blur.npy": (64, 48),
        "P-3.blur.npy": (40, 40),
        "p-2-2.blur.npy": (32, 32),
    }
    assert "b/p.png (as p-2)" in result.stdout, "nobody would find the results under their changed name"


def test_no_photograph_is_overwritten(estimate: Estimate, folder: Path) -> None:
    save("p.jpg")
    save("p.blur.png", scene(32, 32))
    os.symlink("p.jpg", "q.overlay.jpg")
    save("q.png")
    before = {name: Path(name).read_bytes() for name in names(folder)}
    result = estimate("p.jpg", "p.blur.png", "q.png", "q.overlay.jpg", "-o", "../" + folder.name)
    assert result.exit_code == 1
    assert result.stderr.count("would overwrite a photograph") == 2
    for name, content in before.items():
        assert Path(name).read_bytes() == content
    assert "p.blur.npy" not in names(folder)
    assert "p.blur.blur.png" in names(folder), "the photographs that are in nobody's way are done"


@pytest.mark.parametrize("kind", _files.OUTPUTS)
def test_only_results_are_replaced(estimate: Estimate, folder: Path, kind: str) -> None:
    """Not a picture that lies there and is not of the run, nor anything else; the others are done."""
    save("in/a.png")
    save("in/b.png")
    result = f"a{_files.OUTPUTS[kind]}"
    for content in (Path("in/a.png").read_bytes(), b"notes", np.lib.format.magic(1, 0)):
        Path(result).write_bytes(content)
        outcome = estimate("in", "--save", kind)
        assert outcome.exit_code == 1
        assert f"in/a.png: {result} is there and is no result of an earlier run; use another -o" in outcome.stderr
        assert Path(result).read_bytes() == content
        assert Path(result.replace("a", "b", 1)).exists()
    Path(result).write_bytes(b"")
    for _ in range(2):
        assert estimate("in", "--save", kind).exit_code == 0, "an empty file, and then a result"
        Path(RECORD).unlink()


def test_deblur_replaces_results_only(random_model: str, folder: Path) -> None:
    save("in/a.png")
    command = ["deblur", "in", "--model", random_model, "--threads", "1"]
    save("a.deblurred.png")
    before = Path("a.deblurred.png").read_bytes()
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 1
    assert "a.deblurred.png is there and is no result of an earlier run" in result.stderr
    assert Path("a.deblurred.png").read_bytes() == before
    Path("a.deblurred.png").unlink()
    for _ in range(2):
        assert CliRunner().invoke(cli.main, command).exit_code == 0


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["cull", "a.png"], "--csv"),
        (["cull", "a.png"], "--json"),
        (["bench", "a.png", "--seconds", "0"], "--json"),
        (["evaluate", "."], "--json"),
        (["evaluate", ".", "--mask", "sharp"], "--plot"),
    ],
)
def test_files_of_figures_replace_earlier_ones_only(
    random_model: str, folder: Path, command: list[str], option: str
) -> None:
    save("a.png")
    np.save("a.npy", np.indices((48, 64))[1] / 10)
    Path("mine.png").write_bytes(Path("a.png").read_bytes())
    Path("mine.json").write_text('{"software": "mine"}')

    def run(*more: str) -> Result:
        return CliRunner().invoke(cli.main, [*command, *more, "--model", random_model])

    for name in ("a.png", "mine.png", "mine.json", "a.npy"):
        before = Path(name).read_bytes()
        result = run(option, name)
        assert result.exit_code == 2
        assert f"{name} is there and was not written by this option" in result.stderr
        assert Path(name).read_bytes() == before
    Path("mine.png").unlink()
    for name in ("new.png", "new.svg", "new.pdf") if option == "--plot" else ("new",):
        Path(name).touch()
        for _ in range(2):
            assert run(option, name).exit_code == 0, "an empty file, and then its own"
        assert Path(name).stat().st_size
        Path(name).unlink()
    assert run(option, "-").exit_code == 2
    assert not Path("-").exists()


def test_two_outputs_are_two_files(random_model: str, folder: Path) -> None:
    save("a.png")
    result = CliRunner().invoke(cli.main, ["cull", "a.png", "--csv", "x", "--json", "./x", "--model", random_model])
    assert result.exit_code == 2
    assert "x is the file of --csv" in result.stderr
    assert names(folder) == {"a.png"}


def test_a_folder_means_its_pictures_without_earlier_results(estimate: Estimate, folder: Path) -> None:
    Path("in/sub").mkdir(parents=True)
    for name in ("in/b.JPG", "in/a.webp", "in/.hidden.png", "in/sub/c.png"):
        save(name)
    Path("in/notes.txt").write_text("x")
    for _ in range(2):
        assert estimate("in", "-o", "in").exit_code == 0
        results = {stem + suffix for stem in "ab" for suffix in (".blur.npy", ".blur.png", ".overlay.jpg")}
        assert names(folder / "in") == results | {"b.JPG", "a.webp", ".hidden.png", "sub", "notes.txt"}


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(folder: Path) -> None:
    path = folder / "map.npy"
    path.write_bytes(b"old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half of")
        file.flush()
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _files.write_whole(path, fail)
    assert path.read_bytes() == b"old"
    assert names(folder) == {"map.npy"}


def test_a_result_that_cannot_be_written_is_reported(estimate: Estimate, folder: Path) -> None:
    save("a.png")
    save("b.png")
    Path("a.blur.npy").mkdir()
    result = estimate("a.png", "b.png", "--save", "npy")
    assert result.exit_code == 1
    assert "a.png: a.blur.npy is there and is no result of an earlier run" in result.stderr
    assert names(folder) == {"a.png", "b.png", "a.blur.npy", "b.blur.npy"}


def test_names_as_long_as_they_may_be(estimate: Estimate, folder: Path) -> None:
    name = "\N{FILM FRAMES}" * 59 + ".png"  # 4 bytes each; file systems take 255
    save(name)
    assert estimate(name, "--save", "npy").exit_code == 0
    assert len(names(folder)) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9000), (3000, 20), (48, 64), (64, 48), (1500, 2900)])
def test_overlay_of_every_shape(size: tuple[int, int]) -> None:
    radii = np.linspace(0, 6, size[0] * size[1], dtype=np.float32).reshape(size)
    drawing = _images.draw_overlay(np.full(size, 128, np.uint8), radii, 6.0)
    assert max(drawing.size) <= 2048
    assert min(drawing.size) >= 150
    assert len(drawing.getcolors(2**22) or []) > 50, "no colour bar"


def test_overlay_shows_the_map_where_the_photograph_is() -> None:
    radii = np.zeros((300, 300), np.float32)
    radii[:150] = 6
    drawing = np.asarray(_images.draw_overlay(np.full((300, 300, 3), 128, np.uint8), radii, 6.0)).astype(int)
    np.testing.assert_array_equal(drawing[16:316, 16:316], 128)
    coloured = drawing[16:316, 332:632]
    assert (coloured[:150] == coloured[0, 0]).all()
    assert (coloured[150:] == coloured[-1, -1]).all()
    assert coloured[0, 0, 0] - coloured[-1, -1, 0] > 100, "6 px is yellow and 0 px is blue"


def test_one_estimator_serves_neighbours_of_one_size(
    estimate: Estimate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    original = defocus_fast.Estimator.__init__

    def count(self: defocus_fast.Estimator, height: int, width: int, **options: Any) -> None:
        made.append((height, width))
        original(self, height, width, **options)

    monkeypatch.setattr(defocus_fast.Estimator, "__init__", count)
    for name, shape in (("a", (48, 64)), ("b", (48, 64)), ("c", (40, 40))):
        save(f"{name}.png", scene(*shape))
    assert estimate(".", "--save", "npy").exit_code == 0
    assert made == [(1, 1), (48, 64), (40, 40)]  # the first one checks the options


def test_psi_reaches_the_estimator(estimate: Estimate, folder: Path) -> None:
    save("a.png")
    maps = []
    for psi in ("0", "1000"):
        assert estimate("a.png", "--save", "npy", "--psi", psi).exit_code == 0
        maps.append(np.load("a.blur.npy"))
    assert np.abs(maps[0] - maps[1]).max() > 0.01


@pytest.mark.parametrize(
    "arguments",
    [
        ["estimate"],
        ["estimate", "a.png", "--save", "gif"],
        ["estimate", "a.png", "--psi", "-1"],
        ["estimate", "a.png", "--threads", "0"],
        ["estimate", "a.png", "--precision", "float64"],
        ["estimate", "a.png", "-o", "a.png"],
        ["estimate", "a.png", "-o", ""],
        ["estimate", "a.png", "-o", "a.png/out"],
        ["estimate", "a.png", "--model", "no-such-model"],
        ["import-weights", "no-such-folder", "out"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_status_2(folder: Path, arguments: list[str]) -> None:
    save("a.png")
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr
    assert names(folder) == {"a.png"}


@pytest.mark.parametrize("arguments", [[], ["--model"], ["--psi"], ["--threads"]])
def test_arguments_that_are_longer_than_any_path(folder: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.main, ["estimate", *arguments, "7" * 100_000])
    assert result.exit_code == 2
    assert "expected arguments of at most 4095 characters, got one of 100000, which begins with 777" in result.stderr
    assert len(result.output) < 500


def test_a_model_folder_needs_no_slash(random_model: str, folder: Path) -> None:
    shutil.copytree(random_model, "mine")
    save("a.png")
    result = CliRunner().invoke(cli.main, ["estimate", "a.png", "--model", "mine", "--save", "npy"])
    assert result.exit_code == 0, result.output


def test_odd_names_are_shown_harmlessly(estimate: Estimate, folder: Path) -> None:
    save("[red]x[bold] \x1b[2J.png")
    result = estimate("[red]x[bold] \x1b[2J.png", "gone\x1b[31m.png", "--save", "npy")
    assert result.exit_code == 1
    assert "[red]x[bold]" in result.stdout
    assert "\x1b" not in result.output
    command = ["estimate", "[red]x[bold] \x1b[2J.png", "--model", "gone\x1b[31m"]
    result = CliRunner().invoke(cli.main, command, color=True)  # without, click takes escape sequences out
    assert result.exit_code == 2
    assert "\x1b" not in result.output


def test_info() -> None:
    result = CliRunner().invoke(cli.main, ["info"])
    assert result.exit_code == 0, result.output
    facts = [*defocus_fast.build_config().values(), *defocus_fast.available_kernels(), *defocus_fast.shipped_models()]
    for fact in facts:
        assert fact in result.stdout
    assert "device cuda" in result.stdout
    assert result.stdout.count("trained: ") == len(defocus_fast.shipped_models())
    assert all(line == line.rstrip() for line in result.stdout.splitlines()), "scripts read it"


def test_info_and_estimate_with_a_driver_that_cannot_be_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "emulated" not in defocus_fast.build_config()["cuda"]:
        pytest.skip("the CUDA part is not built with DEFOCUS_FAST_CUDA_EMULATION")
    monkeypatch.setenv("EMULATION_DEVICE", "other driver")
    result = CliRunner().invoke(cli.main, ["info"])
    assert result.exit_code == 0, result.output
    assert "not available: device: the NVIDIA driver cannot be used" in " ".join(result.stdout.split())
    save("a.png")
    assert CliRunner().invoke(cli.main, ["estimate", "a.png"]).exit_code == 0
    result = CliRunner().invoke(cli.main, ["estimate", "a.png", "--device", "cuda"])
    assert result.exit_code == 2
    assert "device: the NVIDIA driver cannot be used" in result.stderr


def published_files(folder: Path, seed: int = 0) -> None:
    """Write random weights in the files and layout of the published ones."""
    shapes = model_io.expected_shapes(
        {
            "branch1.conv1": np.empty(4),
            "blur.dense3.bias": np.empty(23),
            **{f"{head}.dense{i}.bias": np.empty(6) for head in ("blur", "edge") for i in (1, 2)},
        }
    )
    rng = np.random.default_rng(seed)
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for head, branches in (("blur", ["branch1"]), ("edge", ["branch1", "edge_branch1"])):
        (folder / head).mkdir(parents=True)
        parts = [*branches, "branch2", "branch3", head]
        order = [f"{part}.conv{i}" for part in parts for i in (1, 2, 3, 4)]
        order += [f"{head}.dense{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")]
        for i, name in enumerate(order):
            array = weights[name].transpose(2, 3, 1, 0) if ".conv" in name else weights[name]
            savemat(folder / head / f"{i}.mat", {"weights": array})


def test_import_weights(folder: Path) -> None:
    pytest.importorskip("onnx")
    published_files(folder / "in")
    result = CliRunner().invoke(cli.main, ["import-weights", "in", "out"])
    assert result.exit_code == 0, result.output
    assert "GPL-3.0" in result.stdout
    facts = dict(line.split(": ", 1) for line in Path("out/model.txt").read_text().splitlines())
    assert (facts["name"], facts["crop_offset"], facts["width"]) == ("published", "1", "4")
    assert "GPL-3.0" in facts["trained"]
    assert defocus_fast.Estimator(48, 64, model="./out").estimate(scene()).map.shape == (48, 64)


def test_import_weights_names_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published_files(folder / "in")
    for name in [name for name in sys.modules if name.split(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = CliRunner().invoke(cli.main, ["import-weights", "in", "out"])
    assert result.exit_code == 1
    assert 'the package onnx is needed: pip install "defocus_fast[models]"' in result.stderr


def test_import_weights_of_wrong_folders(folder: Path) -> None:
    pytest.importorskip("onnx")
    published_files(folder / "in")
    Path("in/edge/25.mat").unlink()
    Path("empty").mkdir()
    for name, file in (("empty", "0.mat"), ("in", "25.mat")):
        result = CliRunner().invoke(cli.main, ["import-weights", name, "out"])
        assert result.exit_code == 1
        assert "no such file: " in result.stderr
        assert file in result.stderr
    Path("in/edge/25.mat").write_bytes(b"not a mat file")
    result = CliRunner().invoke(cli.main, ["import-weights", "in", "out"])
    assert result.exit_code == 1
    assert "does not hold the published weights" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize("options", [("--psi", "nan"), ("--threads", "2000"), ("--model", "nope")])
def test_options_that_no_photograph_can_work_with(estimate: Estimate, folder: Path, options: tuple[str, str]) -> None:
    save("a.png")
    result = estimate("a.png", *options, "-o", "out")
    assert result.exit_code == 2
    assert options[1] in result.stderr
    assert names(folder) == {"a.png"}


def script() -> str:
    return str(Path(sys.executable).with_name("defocus-fast"))


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    # Where these tests run in a shell's background, SIGINT is ignored, which programs inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    process: subprocess.Popen[str] = subprocess.Popen([script(), *arguments], **output)
    signal.signal(signal.SIGINT, before)
    return process


def test_the_installed_command(folder: Path) -> None:
    for command in ([script()], [sys.executable, "-m", "defocus_fast"]):
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert result.stdout.split()[-1] == defocus_fast.__version__


@pytest.mark.parametrize(
    ("module", "packages"),
    [
        ("defocus_fast; defocus_fast.Estimator", "click, rich, PIL, cmap, onnx"),
        ("defocus_fast.cli", "numpy, rich, PIL"),
    ],
)
def test_what_is_not_needed_is_not_loaded(module: str, packages: str) -> None:
    """The library does without the command line's packages, and help without the library's."""
    program = f"import sys, {module}; print(set({packages.split(', ')}) & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_all_names_of_the_library_are_there() -> None:
    program = "import defocus_fast; print({'__version__', *defocus_fast.__all__} - set(dir(defocus_fast)));"
    program += "from defocus_fast import *; print(Estimator(8, 8).height, defocus_fast.__version__)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["set()", "8", defocus_fast.__version__]
    with pytest.raises(AttributeError, match="module 'defocus_fast' has no attribute 'nonsense'"):
        defocus_fast.nonsense  # noqa: B018


def without_privileges() -> None:
    """Have files' modes hold for root, too, who could read and write all of them."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability)


@pytest.mark.skipif(sys.platform != "linux", reason="privileges of root are dropped as on Linux")
def test_what_may_not_be_read_or_written(random_model: str, folder: Path) -> None:
    for name in ("a.png", "unreadable.png", "closed/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        save(name)
    os.symlink("closed/b.png", "link.png")
    Path("full").mkdir()
    modes = {"unreadable.png": 0o000, "closed": 0o600, "full": 0o500}
    for name, mode in modes.items():
        Path(name).chmod(mode)
    options = ["--model", random_model, "-o"]
    process = start("estimate", "unreadable.png", "closed", ".", *options, "out", preexec_fn=without_privileges)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert sorted(stderr.split("\n")) == [
        "",
        "3 of 4 failed",
        "closed/b.png: permission denied",
        "link.png: permission denied",
        "unreadable.png: permission denied",
    ]
    process = start("estimate", "a.png", *options, "full", preexec_fn=without_privileges)
    assert "-o: cannot write into the folder full" in process.communicate()[1]
    assert process.returncode == 2
    process = start("evaluate", ".", "--json", "closed/out.json", preexec_fn=without_privileges)
    assert "cannot write into the folder closed" in process.communicate()[1]
    assert process.returncode == 2
    Path("closed").chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="needs limits of Unix")
@pytest.mark.parametrize("kind", ["npy", "png", "overlay", "error"])
def test_a_full_disk_is_told_as_that(random_model: str, folder: Path, kind: str) -> None:
    import resource

    save("a.png", np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8))
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (2000, 2000))
    process = start("estimate", "a.png", "--model", random_model, "--save", kind, "-o", "out", preexec_fn=limit)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "a.png: file too large" in stderr
    assert names(folder / "out") == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["info", "--help"])
def test_output_that_cannot_be_written(command: str) -> None:
    with open("/dev/full", "w") as full:
        process = start(command, stdout=full)
        assert process.communicate()[1] == "Error: standard output: No space left on device\n"
    assert process.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="needs descriptors of Unix")
def test_output_that_is_closed() -> None:
    process = start("info", stdout=None, preexec_fn=functools.partial(os.close, 1))
    assert process.communicate()[1] == ""
    assert process.returncode == 0


def test_names_that_the_terminal_cannot_show(random_model: str, folder: Path) -> None:
    save("\N{CAMERA}.png")
    command = ["estimate", "\N{CAMERA}.png", "gone \N{CAMERA}.png", "--model", random_model]
    process = start(*command, env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    stdout, stderr = process.communicate()
    assert "gone ?.png: no such file" in stderr
    assert " ?.png " in stdout
    assert "\N{CAMERA}.blur.npy" in names(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the folder")
def test_a_current_folder_that_is_gone(folder: Path) -> None:
    Path("gone").mkdir()
    process = start("estimate", "a.png", cwd="gone", preexec_fn=functools.partial(os.rmdir, "../gone"))
    assert process.communicate()[1] == "Error: the current folder: No such file or directory\n"
    assert process.returncode == 1


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.skipif(os.name == "nt", reason="pipes differ on Windows")
@pytest.mark.parametrize("command", ["info", "--help"])
def test_output_that_nobody_reads(command: str) -> None:
    """The signal that ends other commands ends this one."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start(command, stdout=writer)
    os.close(writer)
    assert process.communicate()[1] == ""
    assert process.returncode == -signal.SIGPIPE


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
if os.name != "nt":
    SIGNALS.append((signal.SIGQUIT, 131))


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
@pytest.mark.parametrize(("number", "status"), SIGNALS)
@pytest.mark.parametrize("module", ["click", "numpy", "rich"])
def test_signals_while_modules_are_loaded(folder: Path, module: str, number: signal.Signals, status: int) -> None:
    Path(f"{module}.py").write_text("import os, time; os.mkdir('loading'); time.sleep(60)")
    save("a.png")
    with start("estimate", "a.png", env=os.environ | {"PYTHONPATH": "."}) as process:
        wait_for(Path("loading").exists)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (status, "")
    assert stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in stderr


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_signals_leave_no_part_of_a_file(random_model: str, folder: Path, number: signal.Signals, status: int) -> None:
    Image.new("L", (5000, 4000)).save("a.png")
    with start("estimate", "a.png", "--model", random_model, "--save", "png", "-o", "out") as process:
        wait_for(lambda: list(Path().glob("out/.*.part")))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == status
    assert stderr == "0 of 1 done\ninterrupted\n"
    assert names(folder / "out") == set()


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_signals_after_the_end_change_nothing() -> None:
    """Python's own handlers are gone when the last objects are deleted."""
    program = """
import atexit, os, signal, sys
from defocus_fast.__main__ import main
class Last:
    def __del__(self, kill=os.kill, arguments=(os.getpid(), signal.SIGINT)):
        kill(*arguments)
last = Last()
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[1:] = ["--version"]
main()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("error", ["MemoryError()", 'RuntimeError("can\'t start new thread")'])
def test_too_little_memory_is_one_line(folder: Path, random_model: str, error: str) -> None:
    save("a.png")
    program = f"""
import sys, threading
from defocus_fast.__main__ import main
def start(self):
    raise {error}
threading.Thread.start = start
main()
"""
    command = [sys.executable, "-c", program, "estimate", "a.png", "--model", random_model, "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("0 of 1 done\nError: not enough memory")
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.skipif(os.name == "nt", reason="signals of terminals differ on Windows")
def test_ctrl_c_stops_at_once_and_keeps_what_is_done(random_model: str, folder: Path) -> None:
    save("a.png")
    save("b.png", np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8), compress_level=0)
    command = ["estimate", "a.png", "b.png", "--model", random_model, "--threads", "1", "-o", "out", "--device", "cpu"]
    with start(*command) as process:
        wait_for(Path("out/a.overlay.jpg").exists)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
        assert time.monotonic() - sent < 3
    assert process.returncode == 130
    assert "1 of 2 done" in stderr
    assert "Traceback" not in stderr
    assert "a.png" in stdout
    assert names(folder / "out") == {"a.blur.npy", "a.blur.png", "a.overlay.jpg"}


# ---- bench


def test_bench(tmp_path: Path, random_model: str, random_cells: str) -> None:
    """Every size, model and precision has a row, and the whole frame is no shorter than its stages."""
    file = tmp_path / "times.json"
    models = ["--model", random_model, "--model", random_cells]
    sizes = ["--size", "40x30", "--size", "21x9"]
    result = CliRunner().invoke(cli.main, ["bench", *sizes, *models, "--seconds", "0", "--json", str(file)])
    assert result.exit_code == 0, result.output
    frames = json.loads(file.read_text())["frames"]
    assert [(frame["size"], frame["model"]) for frame in frames] == [
        (size, model) for size in ([30, 40], [9, 21]) for model in (random_model, random_cells)
    ]
    for frame in frames:
        whole = frame["stages"].pop("whole frame")
        assert len(whole) == 3
        assert all(sum(stages) <= total for *stages, total in zip(*frame["stages"].values(), whole, strict=True))


@pytest.mark.parametrize("command", [["bench"], ["evaluate", "."]])
def test_json_goes_to_a_folder_that_is_there(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, [*command, "--json", str(tmp_path / "no" / "times.json")])
    assert result.exit_code == 2
    assert "expected a file in an existing folder, got" in result.output


@pytest.mark.parametrize("channels", [(), (3,)])
def test_bench_shows_a_photograph_in_every_size(folder: Path, random_cells: str, channels: tuple[int, ...]) -> None:
    """Grey ones too: the middle of one that is too large, mirrored where it is too small."""
    picture = np.random.default_rng(2).integers(0, 256, (30, 40, *channels), np.uint8)
    np.testing.assert_array_equal(benchmark.of_size(picture, 20, 10), picture[5:25, 15:25])
    mirrored = np.concatenate([picture, picture[::-1]])[:50, 10:30]
    np.testing.assert_array_equal(benchmark.of_size(picture, 50, 20), mirrored)
    save("a.png", picture)
    sizes = ["--size", "24x16", "--size", "50x20"]
    result = CliRunner().invoke(cli.main, ["bench", "a.png", *sizes, "--model", random_cells, "--seconds", "0"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("size", ["40", "0x30", "40x", "ax3", "999999x2"])
def test_bench_refuses_sizes(size: str) -> None:
    result = CliRunner().invoke(cli.main, ["bench", "--size", size])
    assert result.exit_code == 2
    assert "expected WIDTHxHEIGHT in pixels" in result.output


def test_ranges_are_shown_as_in_messages() -> None:
    result = CliRunner().invoke(cli.main, ["estimate", "--help"])
    assert "0<=x<=1000000]" in result.output


def test_bench_refuses_seconds_that_are_no_number() -> None:
    result = CliRunner().invoke(cli.main, ["bench", "--seconds", "nan"])
    assert result.exit_code == 2
    assert "expected a number, got nan" in result.output
