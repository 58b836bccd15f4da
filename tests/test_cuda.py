# SPDX-License-Identifier: Apache-2.0
"""Whole frames on the emulated device against the CPU, and what is said where something is missing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tolerances
from emulated import device_options
from images import texture

import defocus_fast
from defocus_fast import _core

SIZES = [(1, 1), (1, 50), (50, 1), (7, 5), (63, 65)]
STAGES = ["detect_edges", "extract_features", "classify_edges", "estimate_radii", "propagate"]


def pair(model: str, height: int, width: int, **options: Any) -> tuple[defocus_fast.Estimator, defocus_fast.Estimator]:
    """The same estimator on the CPU and on the device."""
    max_edges, evaluation = options.pop("max_edges", height * width), options.pop("evaluation", "shared")
    device = device_options(model, height, width, max_edges, evaluation)
    cpu = defocus_fast.Estimator(height, width, model=model, device="cpu", precision="float32", **options)
    return cpu, defocus_fast.Estimator(height, width, model=model, **device, **options)


def check(expected: defocus_fast.BlurMap, got: defocus_fast.BlurMap) -> None:
    np.testing.assert_array_equal(got.edges, expected.edges)
    np.testing.assert_array_equal(got.octave, expected.octave)
    np.testing.assert_array_equal(got.pattern_edges, expected.pattern_edges)
    np.testing.assert_array_equal(got.depth_edges, expected.depth_edges)
    for name in ("depth_probability", "radius_probability", "bin_probabilities"):
        close(got, expected, name, tolerances.PROBABILITY_DEVICE)
    close(got, expected, "radii", tolerances.RADIUS_DEVICE)
    close(got, expected, "radius_std", tolerances.DEVIATION_DEVICE)
    close(got, expected, "map", tolerances.RADIUS_DEVICE + tolerances.PROPAGATED)
    close(got, expected, "expected_error", tolerances.ERROR_DEVICE)


def close(got: defocus_fast.BlurMap, expected: defocus_fast.BlurMap, name: str, tolerance: float) -> None:
    np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=0, atol=tolerance, err_msg=name)


def threshold_between(cpu: defocus_fast.Estimator, picture: np.ndarray, edges: np.ndarray | None) -> float:
    """A depth threshold that splits the edges far from all of them: rounding decides nothing."""
    found = np.unique(cpu.estimate(picture, edges=edges).depth_probability)
    if len(found) < 2:
        return 0.5
    middle = found[len(found) // 4 : 3 * len(found) // 4 + 2]
    gap = int(np.diff(middle).argmax())
    return float(middle[gap] + middle[gap + 1]) / 2


@pytest.mark.parametrize("labels", ["posterior", "hard"])
@pytest.mark.parametrize("architecture", ["random_model", "random_cells"])
def test_frames_equal_the_cpu_s(architecture: str, labels: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(architecture)
    rng = np.random.default_rng(0)
    for size in SIZES:
        picture = texture(*size, seed=1)
        masks = [None, np.zeros(size, bool), np.ones(size, bool), rng.random(size) < 0.1]
        for i, edges in enumerate(masks):
            cpu, _ = pair(model, *size, labels=labels)
            cpu, device = pair(model, *size, labels=labels, depth_threshold=threshold_between(cpu, picture, edges))
            shown = [picture, picture[..., 1].astype(np.float32) / 255, picture[..., ::-1], picture[::-1, ::-1]][i]
            mask = edges if edges is None else edges.astype(np.uint8) * 7
            expected = cpu.estimate(shown, edges=mask, bin_probabilities=True)
            check(expected, device.estimate(shown, edges=mask, bin_probabilities=True))
            out = np.zeros((size[0], 2 * size[1]), np.float32)[:, ::2]
            device.estimate_into(shown, out)
            cpu.estimate_into(shown, again := np.zeros(size, np.float32))
            np.testing.assert_allclose(out, again, rtol=0, atol=tolerances.RADIUS_DEVICE + tolerances.PROPAGATED)


@pytest.mark.parametrize(("architecture", "size"), [("random_model", (30, 1030)), ("random_cells", (1550, 20))])
def test_pictures_of_several_tiles(architecture: str, size: tuple[int, int], request: pytest.FixtureRequest) -> None:
    """A tile has at most 512 px (tip22) or 1536 px (cells)."""
    picture = texture(*size, seed=2)
    edges = np.random.default_rng(1).random(size) < 0.05
    cpu, device = pair(request.getfixturevalue(architecture), *size, depth_threshold=1, max_edges=5000)
    check(
        cpu.estimate(picture, edges=edges, bin_probabilities=True),
        device.estimate(picture, edges=edges, bin_probabilities=True),
    )


@pytest.mark.parametrize(
    ("architecture", "evaluation"), [("random_cells", "shared"), ("random_model", "shared"), ("random_model", "patch")]
)
def test_octaves(architecture: str, evaluation: str, request: pytest.FixtureRequest) -> None:
    """Radii of the second octave are twice as large, and so is what may be between them and the CPU's."""
    picture = texture(131, 140, seed=3)
    picture = np.uint8((picture + np.kron(texture(17, 18, seed=4), np.ones((8, 8, 1)))[:131, :140]) // 2)
    model = request.getfixturevalue(architecture)
    for shown in (picture, np.float32(picture[::-1, :, 1] / 255)):
        options: dict[str, Any] = {"octaves": 8, "evaluation": evaluation, "max_edges": 5000}
        cpu, _ = pair(model, 131, 140, **options)
        cpu, device = pair(model, 131, 140, **options, depth_threshold=threshold_between(cpu, shown, None))
        expected = cpu.estimate(shown, bin_probabilities=True)
        assert {0, 1} == set(expected.octave)
        assert expected.depth_edges.sum() > (expected.octave == 0).sum() / 10
        got = device.estimate(shown, bin_probabilities=True)
        for name in ("edges", "octave", "pattern_edges", "depth_edges"):
            np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)
        for name in ("depth_probability", "radius_probability", "bin_probabilities"):
            close(got, expected, name, tolerances.PROBABILITY_DEVICE)
        close(got, expected, "radii", 2 * tolerances.RADIUS_DEVICE)
        close(got, expected, "radius_std", 2 * tolerances.DEVIATION_DEVICE)
        close(got, expected, "map", 2 * (tolerances.RADIUS_DEVICE + tolerances.PROPAGATED))
        close(got, expected, "expected_error", 2 * tolerances.ERROR_DEVICE)
        assert device.edge_count() == (len(got.edges), len(got.edges))
        edges = np.random.default_rng(0).random((131, 140)) < 0.05
        check(  # of the first octave only, behind a frame of two
            cpu.estimate(shown, edges=edges, bin_probabilities=True),
            device.estimate(shown, edges=edges, bin_probabilities=True),
        )


@pytest.mark.parametrize("labels", ["posterior", "hard"])
def test_the_whole_networks_on_patches(random_model: str, labels: str) -> None:
    """Patches that lie mostly outside the image, no edge at all, and more edges than one batch of 256."""
    rng = np.random.default_rng(3)
    masks = [((1, 1), np.ones((1, 1), bool)), ((1, 50), None), ((7, 5), np.zeros((7, 5), bool))]
    for size, edges in [*masks, ((33, 40), rng.random((33, 40)) < 0.3)]:
        picture = texture(*size, seed=1)
        options: dict[str, Any] = {"labels": labels, "evaluation": "patch", "max_edges": min(size[0] * size[1], 600)}
        for shown in (picture[::-1, ::-1], picture[..., 1].astype(np.float32) / 255):
            cpu, _ = pair(random_model, *size, **options)
            cpu, device = pair(random_model, *size, **options, depth_threshold=threshold_between(cpu, shown, edges))
            expected = cpu.estimate(shown, edges=edges, bin_probabilities=True)
            assert size != (33, 40) or len(expected.edges) > 256
            check(expected, device.estimate(shown, edges=edges, bin_probabilities=True))


@pytest.mark.parametrize(
    ("evaluation", "graphs"),
    [
        ("shared", {"trunk", "edge_head", "blur_head"}),
        ("patch", {"edge_patch", "blur_patch"}),
    ],
)
def test_each_form_asks_its_own_networks(random_model: str, evaluation: str, graphs: set[str]) -> None:
    options = device_options(random_model, 9, 9, 81, evaluation)
    evaluate, asked = options["networks"], []

    def networks(graph: str, tensors: list[int], stream: int) -> None:
        asked.append(graph)
        evaluate(graph, tensors, stream)

    estimator = defocus_fast.Estimator(9, 9, model=random_model, **options | {"networks": networks})
    result = estimator.estimate(texture(9, 9), edges=np.ones((9, 9), bool))
    assert set(asked) == graphs
    assert set(asked) == set(_core.network_shapes(random_model, 9, 9, 81, evaluation))
    assert list(result.stage_ms) == STAGES


@pytest.fixture
def bytes_asked_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Of device memory for an estimator, without what frames from host memory need."""
    if "emulated" not in defocus_fast.build_config()["cuda"]:
        pytest.skip("the CUDA part is not built with DEFOCUS_FAST_CUDA_EMULATION")

    def of(height: int, width: int, **options: Any) -> int:
        monkeypatch.setenv("EMULATION_DEVICE", "9.0, no memory")
        with pytest.raises(defocus_fast.BackendUnavailable, match="out of memory") as error:
            defocus_fast.Estimator(height, width, device="cuda", networks=lambda *_: None, **options)
        found = re.search(r"cudaMalloc of (\d+) bytes", str(error.value))
        assert found
        return int(found[1])

    return of


def test_patches_take_no_memory_for_features(random_model: str, bytes_asked_for: Callable[..., int]) -> None:
    """U and V of both networks are 4 planes of 8 channels; what else an estimator has is the same in both forms."""
    shared, patch = (
        bytes_asked_for(200, 300, model=random_model, max_edges=500, evaluation=evaluation)
        for evaluation in ("shared", "patch")
    )
    image, features = 3 * 241 * 341, 4 * 8 * 213 * 313  # of a canvas with one pixel more than the image
    inputs = {"shared": 500 * 8 * 25, "patch": 256 * 3 * (41**2 + 27**2 + 15**2)}
    probabilities = {"shared": 500 * 23, "patch": 256 * 23}
    expected = image + features + inputs["shared"] - inputs["patch"] + probabilities["shared"] - probabilities["patch"]
    assert abs(shared - patch - 4 * expected) <= 12 * 256  # of alignment


@pytest.mark.parametrize(
    ("options", "bytes_per_pixel"),
    [
        ({"model": "fast"}, 106),
        ({"model": "fast", "precision": "float16"}, 85),
        ({"model": "tip22"}, 1224),
        ({"model": "tip22", "precision": "float16"}, 655),
        ({"model": "tip22", "evaluation": "patch"}, 90),
    ],
)
def test_memory_is_what_the_readme_says(
    options: dict[str, Any], bytes_per_pixel: int, bytes_asked_for: Callable[..., int]
) -> None:
    """With what frames from host memory need: image, mask of edges, both maps, and 24 bytes for every eighth pixel,
    which is an edge."""
    height, width = 1080, 1920
    found = bytes_asked_for(height, width, **options) / (height * width) + 12 + 1 + 4 + 4 + 24 / 8
    assert abs(found / bytes_per_pixel - 1) < 0.01


@pytest.mark.parametrize("device", ["cuda", "auto", "cpu"])
def test_there_are_no_patch_networks(random_cells: str, device: str) -> None:
    options = device_options(random_cells, 9, 9) | {"device": device, "evaluation": "patch"}
    message = 'evaluation: model "cells" has no patch networks; accepted: shared'
    with pytest.raises(ValueError, match=message):
        defocus_fast.Estimator(9, 9, model=random_cells, **options)
    with pytest.raises(ValueError, match=message):
        _core.network_shapes(random_cells, 9, 9, 81, "patch")


@pytest.mark.parametrize("stride", [2, 3])
def test_edge_stride(random_cells: str, stride: int) -> None:
    picture = texture(31, 40, seed=6)
    cpu, device = pair(random_cells, 31, 40, depth_threshold=1)
    for edges in (None, np.ones((31, 40), bool)):
        expected = cpu.estimate(picture, edges=edges, edge_stride=stride, bin_probabilities=True)
        assert len(expected.edges) > 0
        check(expected, device.estimate(picture, edges=edges, edge_stride=stride, bin_probabilities=True))


def test_more_edges_than_there_is_memory_for(random_model: str) -> None:
    picture = texture(20, 30, seed=1)
    estimator = defocus_fast.Estimator(20, 30, model=random_model, **device_options(random_model, 20, 30, 100))
    with pytest.raises(defocus_fast.Error, match="edges: found 600, but there is memory for 100: set max_edges"):
        estimator.estimate(picture, edges=np.ones((20, 30), bool))
    edges = np.zeros((20, 30), bool)
    edges[3, :] = True
    assert len(estimator.estimate(picture, edges=edges).radii) == 30


def test_cells_have_memory_for_all_edges(random_cells: str) -> None:
    """The bottom of an image full of edges is not lost, whatever max_edges is."""
    picture, edges = texture(20, 30, seed=1), np.ones((20, 30), bool)
    cpu, device = pair(random_cells, 20, 30, max_edges=1, depth_threshold=1)
    expected = cpu.estimate(picture, edges=edges, bin_probabilities=True)
    assert len(expected.edges) == 600
    check(expected, device.estimate(picture, edges=edges, bin_probabilities=True))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("no driver", "device: no NVIDIA driver, or one older than CUDA 13 needs: install driver 580 or newer"),
        ("no device", "device: the NVIDIA driver is there, but it sees no GPU: .* CUDA_VISIBLE_DEVICES"),
        (
            "other driver",
            "device: the NVIDIA driver cannot be used: cudaGetDeviceCount: system has unsupported display",
        ),
        ("9.0, no memory", r"device: the GPU cannot be used: cudaMalloc of \d+ bytes: out of memory"),
        ("7.0", "device: expected a GPU of compute capability 7.5 or newer, got 7.0"),
        ("11.0", "device: a GPU of compute capability 11.0 does not run this build's kernels, .*: no kernel image is"),
    ],
)
def test_what_is_missing_is_named(
    random_cells: str, monkeypatch: pytest.MonkeyPatch, environment: str, message: str
) -> None:
    options = device_options(random_cells, 9, 9)
    monkeypatch.setenv("EMULATION_DEVICE", environment)
    with pytest.raises(defocus_fast.BackendUnavailable, match=message):
        defocus_fast.Estimator(9, 9, model=random_cells, **options)
    options["device"] = "auto"
    assert defocus_fast.Estimator(9, 9, model=random_cells, **options).device == "cpu"


def test_auto_takes_a_device_that_is_complete(random_cells: str) -> None:
    options = device_options(random_cells, 9, 9) | {"device": "auto"}
    assert defocus_fast.Estimator(9, 9, model=random_cells, **options).device == "cuda"
    assert defocus_fast.Estimator(9, 9, model=random_cells, **options, precision="float16").precision == "float16"


def test_auto_takes_a_device_for_patches(random_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = device_options(random_model, 9, 9, evaluation="patch") | {"device": "auto"}
    assert defocus_fast.Estimator(9, 9, model=random_model, **options).device == "cuda"
    monkeypatch.setenv("EMULATION_DEVICE", "no device")
    with pytest.raises(ValueError, match="evaluation: patch needs device cuda; accepted on the CPU: shared"):
        defocus_fast.Estimator(9, 9, model=random_model, **options)


def test_options_that_only_the_other_device_has(random_model: str) -> None:
    with pytest.raises(defocus_fast.BackendUnavailable, match="precision: float16 needs device cuda"):
        defocus_fast.Estimator(9, 9, model=random_model, device="cpu", precision="float16")
    with pytest.raises(defocus_fast.BackendUnavailable, match="precision: bfloat16 needs device cpu"):
        defocus_fast.Estimator(9, 9, model=random_model, device="cuda", precision="bfloat16")


@pytest.mark.parametrize(
    ("entry", "wrong"), [("width: 12", "width: 16"), ("radius_bins: 0.5 0.75", "radius_bins: 0.5")]
)
def test_a_model_whose_weights_are_of_other_sizes(random_cells: str, tmp_path: Path, entry: str, wrong: str) -> None:
    folder = tmp_path / "cells"
    shutil.copytree(random_cells, folder)
    text = (folder / "model.txt").read_text(encoding="utf-8")
    assert entry in text
    (folder / "model.txt").write_text(text.replace(entry, wrong), encoding="utf-8")
    options = device_options(random_cells, 9, 9)
    with pytest.raises(defocus_fast.ModelError, match="expected shape (16|22)"):
        defocus_fast.Estimator(9, 9, model=folder, **options)


def test_networks_that_fail(random_cells: str) -> None:
    """Their exception reaches the caller, and the estimator can be used again."""
    options = device_options(random_cells, 9, 9)
    evaluate, fails = options["networks"], [True]

    def networks(graph: str, tensors: list[int], stream: int) -> None:
        if fails[0]:
            raise KeyError(graph)
        evaluate(graph, tensors, stream)

    estimator = defocus_fast.Estimator(9, 9, model=random_cells, **options | {"networks": networks})
    picture = texture(9, 9, seed=1)
    with pytest.raises(KeyError, match="trunk"):
        estimator.estimate(picture)
    fails[0] = False
    assert np.isfinite(estimator.estimate(picture).map).all()


def test_a_build_without_the_cuda_part(random_cells: str) -> None:
    if defocus_fast.build_config()["cuda"] != "not built":
        pytest.skip("the CUDA part is built")
    library = Path(defocus_fast.__file__).parent / "lib" / "libdefocus_fast_cuda.so"
    with pytest.raises(defocus_fast.BackendUnavailable, match="DEFOCUS_FAST_CUDA=ON") as error:
        defocus_fast.Estimator(9, 9, model=random_cells, device="cuda")
    assert str(library) in str(error.value)
