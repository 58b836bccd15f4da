# SPDX-License-Identifier: Apache-2.0
"""Measures of accuracy, each against numbers worked out by hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from images import texture
from matplotlib.figure import Figure
from PIL import Image
from scipy.io import savemat

from defocus_fast import Estimator, _images, cli, evaluation
from defocus_fast.cli.evaluate import VARIANTS


def test_truth_is_read_from_every_format(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint16).reshape(3, 4)
    np.save(tmp_path / "a.npy", values)
    savemat(tmp_path / "a.mat", {"radius": values, "unit": "px"})
    Image.fromarray(values).save(tmp_path / "a.png")
    for suffix in evaluation.TRUTH_SUFFIXES:
        for file in (tmp_path / f"a{suffix}", tmp_path / f"b{suffix.upper()}"):
            if file.stem == "b":
                (tmp_path / f"a{suffix}").rename(file)
            found = evaluation.read_truth(file, scale=0.5)
            assert found.dtype == np.float64
            np.testing.assert_array_equal(found, values / 2)


@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_masks_of_few_colours_are_read_as_what_they_show(tmp_path: Path, mode: str) -> None:
    """A palette's numbers say nothing: here 0 is white."""
    mask = np.random.default_rng(1).integers(0, 2, (5, 6), np.uint8) * 255
    image = Image.fromarray(mask).convert(mode)
    if mode == "P":
        image = Image.fromarray(np.uint8(mask == 0), "P")
        image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(evaluation.read_truth(tmp_path / "mask.png", mask=True), mask)


def test_pairs(tmp_path: Path) -> None:
    """By stem, whatever the case of the suffixes; an image is not its own ground truth."""
    for name in ("a.JPG", "a.npy", "c.jpg", "c.png", "c.MAT", "d.jpg", "e.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "other").mkdir()
    again = evaluation.pairs(tmp_path, tmp_path / "other" / "..")
    assert [path.name for path in again[1]] == ["d.jpg", "e.png"]
    found, without = evaluation.pairs(tmp_path, tmp_path)
    assert {(picture.name, known.name) for picture, known in found} >= {("a.JPG", "a.npy"), ("c.jpg", "c.MAT")}
    assert [path.name for path in without] == ["d.jpg", "e.png"]


def test_unfit_truth(tmp_path: Path) -> None:
    savemat(tmp_path / "two.mat", {"a": np.ones((2, 2)), "b": np.ones((2, 2))})
    with pytest.raises(ValueError, match=r"expected one two-dimensional array, got \['a', 'b'\]"):
        evaluation.read_truth(tmp_path / "two.mat")
    for wrong, message in (
        (np.zeros((2, 2, 2)), r"expected numbers of shape \(H, W\), got float64 of shape \(2, 2, 2\)"),
        (np.array([[1, np.nan]]), r"expected finite numbers >= 0, got some from nan to nan"),
        (np.array([[1, np.inf]]), r"expected finite numbers >= 0, got some from 1 to inf"),
        (np.array([[1, -2]]), r"expected finite numbers >= 0, got some from -2 to 1"),
    ):
        np.save(tmp_path / "wrong.npy", wrong)
        with pytest.raises(ValueError, match=message):
            evaluation.read_truth(tmp_path / "wrong.npy")
    with open(tmp_path / "wrong.npy", "wb") as file:
        np.savez(file, radius=np.ones((2, 2)))
    with pytest.raises(ValueError, match="magic string is not correct"):
        evaluation.read_truth(tmp_path / "wrong.npy")
    picture = Image.new("RGB", (2, 2), (1, 2, 3))
    for coloured in (picture, picture.quantize(2), picture.convert("LA")):
        coloured.save(tmp_path / "wrong.png")
        with pytest.raises(ValueError, match=f"expected radii in px as greyscale .*, got {coloured.mode}"):
            evaluation.read_truth(tmp_path / "wrong.png")
        assert evaluation.read_truth(tmp_path / "wrong.png", mask=True).shape == (2, 2)
    for channels in (3, 4):  # Pillow reads these with 8 bits
        cv2.imwrite(str(tmp_path / "wrong.png"), np.full((2, 2, channels), 1000, np.uint16))
        with pytest.raises(ValueError, match="expected 8 bits a channel or 16-bit greyscale, got 16-bit colour"):
            evaluation.read_truth(tmp_path / "wrong.png")


def answer(**fields: Any) -> Any:
    return SimpleNamespace(**fields)


def test_radius_scores() -> None:
    """Left half 1 px, right half 3 px; two edges far from the jump, one at it."""
    truth = np.ones((20, 20))
    truth[:, 10:] = 3
    radii = truth + 0.5
    radii[:10] += 1  # 1.5 off in the upper half, where the error expected is larger
    expected_error = np.where(np.arange(20)[:, None] < 10, 2.0, 0.25) * np.ones((1, 20))
    edges = np.array([[5, 2], [5, 9], [5, 17], [15, 3]])  # the last one of a coarse octave, which does not count here
    depth = np.zeros((20, 20), bool)
    depth[5, 9] = depth[5, 2] = True
    bins = [0.5, 1.0, 3.0]
    result = answer(
        map=radii,
        expected_error=expected_error,
        edges=edges,
        octave=np.array([0, 0, 0, 1], np.uint8),
        pattern_edges=~depth,
        depth_edges=depth,
        stage_ms={"detect_edges": 1.0, "propagate": 2.5},
        radii=np.array([1.25, 9, 2.0, 7.0], np.float32),
        bin_probabilities=np.array([[0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0, 0, 1]], np.float32),
    )
    scores = evaluation.radius_scores("x", result, truth, bins)
    assert scores.mae == pytest.approx(1.0)
    assert scores.relative == pytest.approx(1 / 3)
    octaves = np.log2([[2 / 1.5, 4 / 3.5], [3 / 1.5, 5 / 3.5]])  # 0.5 px too large below, 1.5 px above
    assert scores.octave_error == pytest.approx(octaves.mean())
    low, high = evaluation.range_means([scores, scores])  # the other ranges have no pixels
    assert low == pytest.approx({"from": 0, "to": 2, "share": 0.5, "mae": 1, "octave_error": octaves[:, 0].mean()})
    assert high == pytest.approx({"from": 2, "to": 6, "share": 0.5, "mae": 1, "octave_error": octaves[:, 1].mean()})
    assert scores.expected_error == pytest.approx([0.25] * 5 + [2.0] * 5)
    assert scores.actual_error == pytest.approx([0.5] * 5 + [1.5] * 5)
    assert scores.edge_mae == pytest.approx((0.25 + 1.0) / 2)
    assert scores.edge_accuracy == 0.5
    assert scores.pattern_recall == 0.5
    assert scores.depth_recall == 1.0
    assert scores.ms == 3.5


def test_mask_scores() -> None:
    radii = np.array([[0.0, 1.0, 2.0, 10.0]])
    blurred = np.array([[False, True, False, True]])
    scores = evaluation.mask_scores("x", radii, blurred)
    assert (scores.precision[0], scores.recall[0]) == (0.5, 1.0)  # everything is found
    assert (scores.precision[-1], scores.recall[-1]) == (1.0, 0.5)
    assert (scores.adaptive_precision, scores.adaptive_recall) == (1.0, 0.5)  # threshold 3
    assert scores.adaptive_f == pytest.approx(1.3 * 0.5 / (0.3 + 0.5))


def test_mask_scores_where_nothing_is_out_of_focus() -> None:
    scores = evaluation.mask_scores("x", np.array([[0.0, 1.0]]), np.zeros((1, 2), bool))
    assert np.isnan([*scores.precision, *scores.recall, scores.adaptive_f]).all()
    assert scores.accuracy == [0.0] + 255 * [0.5]


def test_one_alpha_for_all_images() -> None:
    """The first image alone is all right with alpha in (0, 0.2], the second with (0.6, 1], where the mean is best."""
    first, second = np.array([[0.0, 2, 10, 10]]), np.array([[0.0, 6, 6, 10, 10]])
    scores = [evaluation.mask_scores("x", radii, radii >= least) for radii, least in ((first, 2), (second, 10))]
    means = evaluation.mask_means(scores)
    assert means["best_alpha"] == 154 / 255  # at 153 / 255 the threshold is 6, which is found
    assert means["best_accuracy"] == (3 / 4 + 1) / 2
    assert means["best_f"] == pytest.approx(1.3 * (2 / 3 + 1) / 2 / (0.3 + (2 / 3 + 1) / 2))
    assert means["adaptive_precision"] == (1 + 2 / 4) / 2
    # Where nothing is out of focus, nothing is found, but something is told right.
    scores.append(evaluation.mask_scores("z", first, first > 10))
    assert evaluation.mask_means(scores)["best_accuracy"] == pytest.approx((3 / 4 + 1 + 2 / 4) / 3)
    assert evaluation.mask_means(scores)["best_f"] == means["best_f"]


def test_mask_scores_of_a_map_that_is_the_same_everywhere() -> None:
    """All of it is found, at any threshold, however the sums that make the threshold are rounded."""
    for radius in np.random.default_rng(1).random(100):
        scores = evaluation.mask_scores(
            "x", np.full((2, 2), radius, np.float32), np.array([[True, True], [True, False]])
        )
        assert (scores.adaptive_precision, scores.adaptive_recall) == (0.75, 1.0)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, ["evaluate", *map(str, arguments)], catch_exceptions=False)


PICTURES = [(60, 70), (50, 40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, size in enumerate(PICTURES):
        Image.fromarray(texture(*size, seed=i)).save(tmp_path / f"{i}.png")
        np.save(tmp_path / f"{i}.npy", np.full(size, 2.0 + i, np.float32))
    Image.fromarray(texture(8, 8)).save(tmp_path / "no truth.png")
    return tmp_path


def test_command(folder: Path, random_model: str) -> None:
    result = run(
        folder, "--model", random_model, "--ablations", "--json", folder / "out.json", "--precision", "float32"
    )
    assert result.exit_code == 0, result.output
    assert "2 images, 1 more without ground truth" in result.output
    rows = json.loads((folder / "out.json").read_text())["results"]
    assert [row["variant"] for row in rows] == list(VARIANTS)
    options: dict[str, Any]
    paper = {"labels": "hard", "octaves": 1}
    ablations = ({"octaves": 1}, {"psi": 0.0}, {"depth_threshold": 1.0}, paper, {}, {})
    for row, options, stride in zip(rows, ({}, *ablations), (1, 1, 1, 1, 1, 2, 3), strict=True):
        for i, (picture, size) in enumerate(zip(row["images"], PICTURES, strict=True)):
            estimator = Estimator(*size, model=random_model, precision="float32", **options)
            radii = estimator.estimate(texture(*size, seed=i), edge_stride=stride).map
            assert picture["mae"] == pytest.approx(float(np.abs(radii - (2.0 + i)).mean()), rel=1e-6)
    assert (
        len({row["images"][0]["mae"] for row in rows}) == 6
    )  # every ablation changes something, but for octaves, of which they have one
    assert f"{np.mean([picture['mae'] for picture in rows[0]['images']]):.3f}" in result.output


def test_command_with_other_octaves_and_distances(tmp_path: Path) -> None:
    image = texture(150, 140)
    Image.fromarray(image).save(tmp_path / "0.png")
    np.save(tmp_path / "0.npy", np.full(image.shape[:2], 2.0, np.float32))
    result = run(tmp_path, "--octaves", 1, "--distances", "domain_transform", "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [row["variant"] for row in rows] == ["as shipped", "octaves 1", "distances domain_transform"]
    options: list[dict[str, Any]] = [{}, {"octaves": 1}, {"distances": "domain_transform"}]
    maps = [Estimator.for_image(image, **each).estimate(image).map for each in options]
    for row, radii in zip(rows, maps, strict=True):
        assert row["means"]["mae"] == pytest.approx(float(np.abs(radii - 2.0).mean()), rel=1e-6)
    assert len({row["means"]["mae"] for row in rows}) == 3


@pytest.mark.filterwarnings("error")
def test_command_scores_pictures_without_edges(folder: Path, random_model: str) -> None:
    """They count where there is something to count; what is not a number is null in JSON."""
    for name, size in (("grey", (40, 50)), ("dot", (1, 1))):
        Image.fromarray(np.full(size, 128, np.uint8)).save(folder / f"{name}.png")
        np.save(folder / f"{name}.npy", np.full(size, 3.0))
    file = folder / "out.json"
    result = run(folder, "--model", random_model, "--json", file)
    assert result.exit_code == 0, result.output
    pictures = {
        each["name"]: each for each in json.loads(file.read_text(), parse_constant=pytest.fail)["results"][0]["images"]
    }
    assert len(pictures) == 4
    for name in ("grey.png", "dot.png"):
        assert pictures[name]["mae"] >= 0
        assert pictures[name]["edge_mae"] is pictures[name]["pattern_recall"] is None
    edge_mae = np.mean([pictures[name]["edge_mae"] for name in ("0.png", "1.png")])
    assert f" {edge_mae:.3f} " in result.output


def test_command_with_masks(folder: Path, random_model: str) -> None:
    truth = folder / "masks"
    truth.mkdir()
    for i, size in enumerate([(60, 70), (50, 40)]):
        mask = np.zeros(size, np.uint8)
        mask[: size[0] // 2] = 255
        Image.fromarray(mask).save(truth / f"{i}.png")
    outputs = {}
    for meaning in ("sharp", "blurred"):
        file = folder / f"{meaning}.json"
        result = run(folder, "--truth", truth, "--mask", meaning, "--model", random_model, "--json", file)
        assert result.exit_code == 0, result.output
        assert "best F" in result.output
        means = json.loads(file.read_text())["results"][0]["means"]
        numbers = " +".join(f"{means[key]:.3f}" for key in ("best_f", "best_accuracy", "best_alpha"))
        assert re.search(numbers, result.output)
        outputs[meaning] = json.loads(file.read_text())["results"][0]["images"][0]
    # At the lowest threshold everything is found: precision is the share of the mask.
    assert outputs["sharp"]["precision"][0] == outputs["blurred"]["precision"][0] == 0.5
    assert outputs["sharp"]["recall"] != outputs["blurred"]["recall"]


@pytest.mark.parametrize("suffix", ["png", "SVG", "pdf"])
def test_plot(folder: Path, random_model: str, random_cells: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A curve for every model: mean recall and precision of the images in which anything is out of focus."""
    for i, size in enumerate(PICTURES):
        Image.fromarray(np.arange(size[0] * size[1]).reshape(size) < 900).save(folder / f"{i}.mask.png")
    Image.fromarray(texture(20, 20)).save(folder / "sharp.png")
    truth = folder / "truth"
    truth.mkdir()
    for i in (0, 1):
        (folder / f"{i}.mask.png").rename(truth / f"{i}.png")
    Image.fromarray(np.zeros((20, 20), bool)).save(truth / "sharp.png")
    drawn: list[Figure] = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (drawn.append(self), savefig(self, *args, **kw)))
    plot, figures = folder / f"curves.{suffix}", folder / "out.json"
    models = ["--model", random_model, "--model", random_cells]
    result = run(folder, "--truth", truth, "--mask", "blurred", *models, "--plot", plot, "--json", figures)
    assert result.exit_code == 0, result.output
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [random_model, random_cells]
    rows = json.loads(figures.read_text())["results"]
    for line, row in zip(axes.lines, rows, strict=True):
        images = [image for image in row["images"] if image["name"] != "sharp.png"]
        for measure, values in (("recall", line.get_xdata()), ("precision", line.get_ydata())):
            np.testing.assert_allclose(values, np.mean([image[measure] for image in images], axis=0))
    assert not np.array_equal(axes.lines[0].get_ydata(), axes.lines[1].get_ydata())
    assert plot.read_bytes().startswith({"png": b"\x89PNG", "SVG": b"<?xml", "pdf": b"%PDF"}[suffix])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "a.png"], "--plot draws how well masks are found, and needs --mask"),
        (["--mask", "sharp", "--plot", "a.jpg"], "expected a name that ends in .png, .svg, .pdf, got a.jpg"),
        (["--mask", "sharp", "--plot", "gone/a.png"], "expected a file in an existing folder"),
    ],
)
def test_plots_that_cannot_be(
    folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = run(".", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_command_refuses(folder: Path, random_model: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    result = run(folder, "--truth", empty, "--model", random_model)
    assert result.exit_code == 1
    assert "has ground truth" in result.output
    result = run(folder, "--model", "absent")
    assert result.exit_code == 2
    assert "is no shipped model" in result.output
    for scale in ("0", "-1", "inf", "nan"):
        assert run(folder, "--scale", scale).exit_code == 2
    for mask, shown in ((np.uint8([0, 255]), "0, 255"), (np.array([0, 1]), "0, 1"), (np.array([0, 1]) > 0, "0, 1")):
        np.save(folder / "0.npy", np.tile(mask, (60, 35)))
        for scale in ("1", "0.5"):
            result = run(folder, "--model", random_model, "--scale", scale)
            assert result.exit_code == 1
            assert f"0.npy: expected radii in px, got a mask ({shown}); for masks use --mask" in result.output
    np.save(folder / "0.npy", np.tile(np.float32([0, 1]), (60, 35)))
    assert run(folder, "--model", random_model).exit_code == 0  # radii that happen to be these
    np.save(folder / "0.npy", np.ones((3, 3)))
    result = run(folder, "--model", random_model)
    assert result.exit_code == 1
    assert "0.npy: expected shape (60, 70) as of the image, got (3, 3)" in result.output
    # All of what is not fit is told at once.
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    result = run(folder, "--model", random_model)
    assert result.exit_code == 1
    assert "1.png: " in result.output
    assert "0.npy: " in result.output


def test_command_leaves_out_its_own_results(folder: Path, random_model: str) -> None:
    assert CliRunner().invoke(cli.main, ["estimate", str(folder), "-o", str(folder)]).exit_code == 0
    (folder / ".hidden.png").write_bytes((folder / "0.png").read_bytes())
    assert "2 images, 1 more without ground truth" in run(folder, "--model", random_model).output


@pytest.mark.parametrize(("kept_bytes", "reads"), [(2**20, 2), (60 * 70 * 11, 3), (0, 4)])
def test_images_that_are_kept_are_read_once(
    folder: Path, random_model: str, monkeypatch: pytest.MonkeyPatch, kept_bytes: int, reads: int
) -> None:
    """All, the first, or none; they are 11 bytes a pixel with their ground truth, the first of 60x70."""
    read = []
    original = _images.read_photo
    monkeypatch.setattr(_images, "read_photo", lambda path: read.append(path) or original(path))
    monkeypatch.setattr("defocus_fast.cli.evaluate.KEPT_BYTES", kept_bytes)
    result = run(folder, "--model", random_model)
    assert result.exit_code == 0, result.output
    assert len(read) == reads


def test_a_model_of_any_name_in_a_terminal(folder: Path, random_model: str) -> None:
    """Progress is shown there, and takes no name for markup."""
    shutil.copytree(random_model, folder / "[" / "x]")
    ours, its = os.openpty()
    command = [Path(sys.executable).with_name("defocus-fast"), "evaluate", folder, "--model", "[/x]"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=its, cwd=folder, env=os.environ | {"TERM": "xterm"})
    os.close(its)
    os.close(ours)
    assert result.returncode == 0
    assert b"[/x]" in result.stdout


def test_table_in_a_narrow_terminal(folder: Path, random_model: str) -> None:
    """No digit is left out."""
    ours, its = os.openpty()
    command = [Path(sys.executable).with_name("defocus-fast"), "evaluate", folder, "--model", random_model]
    subprocess.run(command, stdout=its, check=True, env=os.environ | {"COLUMNS": "60", "TERM": "xterm"})
    os.close(its)
    output = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "…" not in output
    assert len(re.findall(r" \d\.\d{3} ", output)) == 9
