# SPDX-License-Identifier: Apache-2.0
"""What every image and every argument gets: a documented finite answer or an error that says what is accepted."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import reference
from images import SIZES, texture
from PIL import Image
from tolerances import PROPAGATED

import defocus_fast
from defocus_fast import Estimator


def make(random_model: str, height: int, width: int, **options: Any) -> Estimator:
    return Estimator(height, width, **{"model": random_model, "precision": "float32", **options})


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return texture(90, 130)


@pytest.fixture(scope="module")
def estimator(random_model: str) -> Estimator:
    return make(random_model, 90, 130)


def test_result_is_consistent(estimator: Estimator, picture: np.ndarray) -> None:
    result = estimator.estimate(picture, bin_probabilities=True)
    n = len(result.edges)
    assert n > 500
    assert result.map.shape == (90, 130)
    assert result.map.dtype == np.float32
    np.testing.assert_array_equal(np.argwhere(defocus_fast.detect_edges(picture)), result.edges)

    y, x = result.edges.T
    is_depth = result.depth_probability > 0.5
    assert 0 < is_depth.sum() < n  # the fixture's random networks find both
    np.testing.assert_array_equal(result.depth_edges[y, x], is_depth)
    np.testing.assert_array_equal(result.pattern_edges[y, x], ~is_depth)
    assert result.depth_edges.sum() + result.pattern_edges.sum() == n

    assert result.bin_probabilities.shape == (n, 23)
    np.testing.assert_allclose(result.bin_probabilities.sum(axis=1), 1, atol=1e-5)
    bins = np.array(estimator.radius_bins, np.float32)
    np.testing.assert_array_equal(bins, np.arange(0.5, 6.01, 0.25, dtype=np.float32))
    np.testing.assert_array_equal(result.radius_probability, result.bin_probabilities.max(axis=1))
    mean = result.bin_probabilities @ bins.astype(float)
    deviation = np.sqrt(np.maximum(result.bin_probabilities @ bins.astype(float) ** 2 - mean**2, 0))
    np.testing.assert_allclose(result.radii, mean, rtol=1e-6)
    np.testing.assert_allclose(result.radius_std, deviation, rtol=0, atol=1e-5)

    options: dict[str, Any] = {"psi": 100.0, "sigma_r": 0.5, "iterations": 3}  # of posterior labels
    weights, radii = np.zeros((90, 130)), np.zeros((90, 130))
    trust = np.where(is_depth, 0.02, 1 - result.depth_probability)
    weights[y, x] = trust * (0.15 / (0.15 + deviation)) ** 2
    radii[y, x] = mean
    expected = reference.propagate(picture, radii, weights, result.depth_edges, **options)
    reached = np.isfinite(expected)
    np.testing.assert_allclose(result.map[reached], expected[reached], rtol=0, atol=PROPAGATED)

    squares = np.zeros((90, 130))
    squares[y, x] = mean**2 + deviation**2
    second = reference.propagate(picture, squares, weights, result.depth_edges, **options)
    there = reference.spread(picture, weights, result.depth_edges, **options)
    error = reference.expected_error(there, expected, second, 9.2e-5, 0.25, 2)[reached]  # the fixture's a and b
    # The variance is a difference of numbers up to 36, each to PROPAGATED times 6.
    np.testing.assert_allclose(result.expected_error[reached] ** 2, error**2, rtol=0, atol=4 * 12 * PROPAGATED)
    assert list(result.stage_ms) == [
        "detect_edges",
        "extract_features",
        "classify_edges",
        "estimate_radii",
        "propagate",
    ]
    assert all(ms > 0 for ms in result.stage_ms.values())


def test_hard_labels_are_the_most_probable_levels(random_model: str, picture: np.ndarray) -> None:
    estimator = make(random_model, 90, 130, labels="hard")
    result = estimator.estimate(picture, bin_probabilities=True)
    best = np.array(estimator.radius_bins, np.float32)[result.bin_probabilities.argmax(axis=1)]
    np.testing.assert_array_equal(result.radii, best)

    radii = np.zeros((90, 130), np.float32)
    radii[tuple(result.edges.T)] = result.radii
    expected = defocus_fast.propagate(picture, radii, result.pattern_edges, result.depth_edges)  # the paper's sigma_r
    np.testing.assert_array_equal(result.map, expected)


@pytest.mark.parametrize("size", SIZES)
def test_features_that_edges_share_give_what_their_patches_give(random_model: str, size: tuple[int, int]) -> None:
    """Small images are reflected several times over in a 41 px patch; edges at borders and corners too."""
    image = texture(*size, seed=5)
    edges = np.random.default_rng(1).random(size) < min(1.0, 60 / (size[0] * size[1]))
    edges[0, 0] = edges[-1, -1] = edges[0, -1] = edges[-1, 0] = True
    found = make(random_model, *size).estimate(image, edges=edges, bin_probabilities=True)
    assert len(found.edges) == edges.sum()
    assert np.isfinite(found.map).all()

    extended = np.pad(image / np.float32(255), ((20, 20), (20, 20), (0, 0)), "symmetric").transpose(2, 0, 1)
    crops = [np.stack([extended[:, y : y + 41, x : x + 41] for y, x in found.edges])]
    crops += [crops[0][..., margin:-margin, margin:-margin] for margin in (7, 13)]
    for network, answers in (
        ("blur", found.bin_probabilities),
        ("edge", np.stack([1 - found.depth_probability, found.depth_probability], axis=1)),
    ):
        session = onnxruntime.InferenceSession(
            f"{random_model}/{network}_patch.onnx", providers=["CPUExecutionProvider"]
        )
        inputs = {value.name: crop for value, crop in zip(session.get_inputs(), crops, strict=True)}
        (expected,) = session.run(None, inputs)
        np.testing.assert_allclose(answers, expected.reshape(answers.shape), rtol=0, atol=1e-5)


def test_patch_network_sees_the_picture_reflected(random_model: str) -> None:
    """The probabilities at a corner are those of the same pixel inside the image extended by hand."""
    image = texture(50, 60, seed=2)
    extended = np.pad(image, ((64, 64), (64, 64), (0, 0)), "symmetric")
    mask, inside = np.zeros((50, 60), bool), np.zeros(extended.shape[:2], bool)
    mask[[0, 49, 3], [0, 59, 40]] = True
    inside[64:114, 64:124] = mask
    found = make(random_model, 50, 60, depth_threshold=1).estimate(image, edges=mask, bin_probabilities=True)
    expected = make(random_model, *inside.shape, depth_threshold=1).estimate(
        extended, edges=inside, bin_probabilities=True
    )
    np.testing.assert_allclose(found.bin_probabilities, expected.bin_probabilities, rtol=0, atol=1e-5)


def test_signals_arrive_whatever_estimators_came_and_went(random_model: str) -> None:
    """In a process of its own."""
    program = f"""
import os, signal
from defocus_fast import Estimator
first, second = (Estimator(size, size, model={random_model!r}) for size in (40, 50))
del first
del second
signal.signal(signal.SIGINT, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n")


def test_tiles_do_not_show(random_model: str) -> None:
    """An image of several tiles gives at every edge what its surroundings alone give."""
    image = texture(450, 410, seed=4)
    edges = np.random.default_rng(0).random((450, 410)) < 0.01
    edges[[191, 192, 193, 224, 225, 226], [204, 205, 206, 136, 137, 138]] = True
    whole = make(random_model, 450, 410, evaluation="shared", depth_threshold=1).estimate(
        image, edges=edges, bin_probabilities=True
    )
    one = make(random_model, 81, 81, evaluation="shared", depth_threshold=1)
    centre = np.zeros((81, 81), bool)
    centre[40, 40] = True
    extended = np.pad(image, ((40, 40), (40, 40), (0, 0)), "symmetric")
    for i in np.random.default_rng(3).choice(len(whole.edges), 80, replace=False):
        y, x = whole.edges[i]
        alone = one.estimate(extended[y : y + 81, x : x + 81], edges=centre, bin_probabilities=True)
        np.testing.assert_allclose(
            whole.bin_probabilities[i], alone.bin_probabilities[0], rtol=0, atol=1e-5, err_msg=f"{y}, {x}"
        )


# ---- images without edges, flat and hostile ones


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_picture_is_zero(estimator: Estimator, value: int) -> None:
    result = estimator.estimate(np.full((90, 130, 3), value, np.uint8))
    assert result.edges.shape == (0, 2)
    assert result.bin_probabilities.shape == (0, 0)
    np.testing.assert_array_equal(result.map, 0)


def test_only_depth_edges_is_zero_in_the_papers_form(random_model: str, picture: np.ndarray) -> None:
    result = make(random_model, 90, 130, depth_threshold=0, labels="hard").estimate(picture)
    assert result.depth_edges.sum() == len(result.edges) > 0
    assert not result.pattern_edges.any()
    np.testing.assert_array_equal(result.map, 0)


def test_no_depth_edge(random_model: str, picture: np.ndarray) -> None:
    result = make(random_model, 90, 130, depth_threshold=1).estimate(picture)
    assert not result.depth_edges.any()
    assert 0.5 <= result.map.min() <= result.map.max() <= 6


def test_every_pixel_an_edge(estimator: Estimator, picture: np.ndarray) -> None:
    result = estimator.estimate(picture, edges=np.ones((90, 130), bool))
    assert len(result.edges) == 90 * 130
    assert np.isfinite(result.map).all()


@pytest.mark.parametrize("size", SIZES)
def test_small_pictures_have_finite_maps(random_model: str, size: tuple[int, int]) -> None:
    estimator = make(random_model, *size)
    for seed in range(3):
        assert np.isfinite(estimator.estimate(texture(*size, seed)).map).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.01, 1.01, 255.0])
def test_float_values_out_of_range(estimator: Estimator, picture: np.ndarray, bad: float) -> None:
    image = picture.astype(np.float32) / 255
    image[-1, -1, -1] = bad
    with pytest.raises(ValueError, match=r"image: expected float32 values in \[0, 1\]"):
        estimator.estimate(image)


def test_float_range_says_what_was_got(estimator: Estimator) -> None:
    image = np.zeros((90, 130), np.float32)
    image[3, 4] = 255
    with pytest.raises(ValueError, match="got values from 0 to 255"):
        estimator.estimate(image)
    with pytest.raises(ValueError, match="got NaN or infinity"):
        estimator.estimate(np.full((90, 130), np.nan, np.float32))


# ---- arrays of every kind


def test_float_and_uint8_pictures_agree(estimator: Estimator, picture: np.ndarray) -> None:
    edges = defocus_fast.detect_edges(picture)
    as_uint8 = estimator.estimate(picture, edges=edges).map
    as_float = estimator.estimate(picture.astype(np.float32) / np.float32(255), edges=edges).map
    np.testing.assert_array_equal(as_uint8, as_float)


def test_grey_is_three_equal_channels(estimator: Estimator, picture: np.ndarray) -> None:
    grey = picture[..., 1]
    one, three = estimator.estimate(grey), estimator.estimate(np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(one.edges, three.edges)
    np.testing.assert_array_equal(one.radii, three.radii)
    np.testing.assert_allclose(one.map, three.map, rtol=0, atol=PROPAGATED)  # 3 |I'| rounds unlike |I'| + |I'| + |I'|


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_strided_arrays_are_read_in_place(estimator: Estimator, picture: np.ndarray, dtype: Any) -> None:
    picture = picture if dtype == np.uint8 else picture.astype(np.float32) / np.float32(255)
    expected = estimator.estimate(picture).map
    wide = np.zeros((90, 160, 3), dtype)
    wide[:, 7:137] = picture
    every_second = np.zeros((180, 260, 3), dtype)
    every_second[::2, ::2] = picture
    read_only = picture.copy()
    read_only.flags.writeable = False
    variants = {
        "pitch": wide[:, 7:137],
        "rows and columns": every_second[::2, ::2],
        "BGR": np.ascontiguousarray(picture[..., ::-1])[..., ::-1],
        "flipped": np.ascontiguousarray(picture[::-1, ::-1])[::-1, ::-1],
        "planar": np.ascontiguousarray(picture.transpose(2, 0, 1)).transpose(1, 2, 0),
        "Fortran": np.asfortranarray(picture),
        "RGBA": np.dstack([picture, picture[..., 0]])[..., :3],
        "read-only": read_only,
    }
    for name, image in variants.items():
        np.testing.assert_array_equal(estimator.estimate(image).map, expected, err_msg=name)


def test_other_array_protocols(estimator: Estimator, picture: np.ndarray) -> None:
    class Interface:
        __array_interface__ = picture.__array_interface__

    class DLPack:
        def __dlpack__(self, **arguments: Any) -> Any:
            return picture.__dlpack__(**arguments)

        def __dlpack_device__(self) -> Any:
            return picture.__dlpack_device__()

    expected = estimator.estimate(picture).map
    for image in (Interface(), DLPack()):
        np.testing.assert_array_equal(estimator.estimate(image).map, expected)


class OnAnotherDevice:
    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("on a GPU")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((90, 130, 3), np.uint16), TypeError, r"expected uint8 or float32 .*, got uint16 \(90, 130, 3\)"),
        (np.zeros((90, 130, 3), np.float64), TypeError, "got float64"),
        (np.zeros((90, 130, 3), ">f4"), TypeError, "got >f4"),
        (np.zeros((90, 130, 3), bool), TypeError, "got bool"),
        (np.zeros((90, 130, 4), np.uint8), ValueError, r"of shape \(H, W\) or \(H, W, 3\), got uint8 \(90, 130, 4\)"),
        (np.zeros((90, 130, 1), np.uint8), ValueError, r"\(90, 130, 1\)"),
        (np.zeros((1, 90, 130, 3), np.uint8), ValueError, r"\(1, 90, 130, 3\)"),
        (np.zeros((130,), np.uint8), ValueError, r"\(130,\)"),
        (np.zeros((0, 130, 3), np.uint8), ValueError, r"\(0, 130, 3\)"),
        (np.zeros((130, 90, 3), np.uint8), ValueError, "image: expected height x width 90 x 130, got 130 x 90"),
        (np.ma.zeros((90, 130, 3), np.uint8), TypeError, "image: expected an array without a mask"),
        ([[0, 1], [1, 0]], TypeError, "expected a NumPy array or an object with __dlpack__ .*, got list"),
        (None, TypeError, "got NoneType"),
        ("photo.jpg", TypeError, "got str"),
        (OnAnotherDevice(), TypeError, "expected an array in host memory, got OnAnotherDevice"),
    ],
)
def test_unfit_pictures(estimator: Estimator, image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimator.estimate(image)


def test_unaligned_float(estimator: Estimator) -> None:
    memory = np.zeros(90 * 130 * 4 + 1, np.uint8)
    with pytest.raises(ValueError, match="aligned"):
        estimator.estimate(memory[1:].view(np.float32).reshape(90, 130))


def test_edges_argument(estimator: Estimator, picture: np.ndarray) -> None:
    mask = np.zeros((90, 130), np.uint8)
    mask[20:70:10, 30:100:7] = 255
    result = estimator.estimate(picture, edges=mask[:, :])
    np.testing.assert_array_equal(result.edges, np.argwhere(mask))
    np.testing.assert_array_equal(estimator.estimate(picture, edges=np.asfortranarray(mask > 0)).map, result.map)
    with pytest.raises(ValueError, match="edges: expected height x width 90 x 130, got 130 x 90"):
        estimator.estimate(picture, edges=mask.T)
    with pytest.raises(TypeError, match="edges: expected bool or uint8 .*, got float32"):
        estimator.estimate(picture, edges=mask.astype(np.float32))


# ---- estimate_into


def test_estimate_into_writes_the_same_map(estimator: Estimator, picture: np.ndarray) -> None:
    expected = estimator.estimate(picture).map
    for out in (
        np.full((90, 130), np.nan, np.float32),
        np.full((90, 200), np.nan, np.float32)[:, 5:135],
        np.full((130, 90), np.nan, np.float32).T,
        np.full((90, 130), np.nan, np.float32)[::-1],
    ):
        assert estimator.estimate_into(picture, out) is out
        np.testing.assert_array_equal(out, expected)


def test_estimate_into_leaves_the_surroundings_alone(estimator: Estimator, picture: np.ndarray) -> None:
    memory = np.full((94, 150), 7, np.float32)
    estimator.estimate_into(picture, memory[2:92, 10:140])
    memory[2:92, 10:140] = 7
    np.testing.assert_array_equal(memory, 7)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.zeros((90, 130)), TypeError, "out: expected float32 .*, got float64"),
        (np.zeros((130, 90), np.float32), ValueError, "out: expected height x width 90 x 130, got 130 x 90"),
        (np.zeros((90, 130, 1), np.float32), ValueError, r"out: .* got float32 \(90, 130, 1\)"),
        (np.broadcast_to(np.float32(0), (90, 130)), ValueError, "out: expected a writeable array, got a read-only one"),
        (
            np.ma.masked_all((90, 130), np.float32),
            TypeError,
            "out: expected an array without a mask, got a masked one: the pixels behind a mask count",
        ),
        (None, TypeError, "out: expected a NumPy array, as `image` is in host memory, got NoneType"),
        (
            np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (90, 130), (0, 0)),
            ValueError,
            "out: expected pixels that do not overlap in memory, got strides of 0 and 0 bytes",
        ),
        (
            np.lib.stride_tricks.as_strided(np.zeros(300, np.float32), (90, 130), (4, 4)),
            ValueError,
            "out: expected pixels that do not overlap",
        ),
    ],
)
def test_unfit_out(estimator: Estimator, picture: np.ndarray, out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimator.estimate_into(picture, out)


# ---- options


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((10.5, 10), "height"), ((10, "a"), "width"), ((True, 10), "height")],
)
def test_sizes_are_integers(random_model: str, arguments: tuple[Any, Any], name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected an integer, got"):
        make(random_model, *arguments)


def test_an_estimator_that_was_not_initialised() -> None:
    estimator = Estimator.__new__(Estimator)
    for use in (repr, lambda each: each.estimate(np.zeros((5, 5), np.uint8)), lambda each: each.edge_count()):
        with pytest.raises(TypeError, match="expected Estimator.__init__ to be called first"):
            use(estimator)
    with pytest.raises(AttributeError, match="'Estimator' object has no attribute 'nonsense'"):
        estimator.nonsense  # noqa: B018


def test_attributes_that_do_nothing_cannot_be_set(estimator: Estimator) -> None:
    for name in ("psi", "num_threads"):
        with pytest.raises(AttributeError):
            setattr(estimator, name, 3)


def test_result_shows_its_size(estimator: Estimator) -> None:
    assert repr(estimator.estimate(np.zeros((90, 130), np.uint8))) == "BlurMap(90 x 130, 0 edges)"
    assert defocus_fast.ModelError.__module__ == "defocus_fast"


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((0, 5), "height: expected 1 to 1073741824 px, got 0"),
        ((5, -1), "width: expected 1 to 1073741824 px, got -1"),
        ((1, 2**30 + 1), "width: expected 1 to 1073741824 px, got 1073741825"),
        ((2**31, 1), "height: expected 1 to 1073741824 px, got 2147483648"),
        ((-(2**40), 1), "height: expected 1 to 1073741824 px, got -1099511627776"),
        ((50_000, 50_000), "size: expected 1 to 2147483647 pixels and sides of at most 1073741824, got"),
    ],
)
def test_sizes_out_of_range(random_model: str, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(random_model, *size)


def test_cuda_is_not_silently_replaced(random_model: str) -> None:
    """The tests hide TensorRT, so that device "cuda" is incomplete everywhere; tests/test_cuda.py has the reasons."""
    with pytest.raises(defocus_fast.BackendUnavailable, match="device: .* (missing|driver)"):
        make(random_model, 20, 20, device="cuda")
    assert make(random_model, 20, 20, device="auto").device == "cpu"


def test_bfloat16_is_not_silently_replaced(random_model: str) -> None:
    kernels = defocus_fast.available_kernels()[-1]
    found = make(random_model, 20, 20, precision="auto", kernels=kernels).precision
    if kernels == "neon" and found == "bfloat16":
        pytest.skip("this CPU has BF16, and neon kernels are all that there are for it")
    assert found == "float32"
    with pytest.raises(defocus_fast.BackendUnavailable, match="precision: bfloat16 needs a CPU with AVX512-BF16"):
        make(random_model, 20, 20, precision="bfloat16", kernels=kernels)


def test_int8_needs_its_instructions_ranges_and_shared_features(random_model: str) -> None:
    with pytest.raises(defocus_fast.BackendUnavailable, match="precision: int8 needs a CPU with AVX512-VNNI"):
        make("fast", 20, 20, precision="int8", kernels=defocus_fast.available_kernels()[-1])
    with pytest.raises(defocus_fast.ModelError, match='model: "random" has no int8_ranges, which precision int8 needs'):
        make(random_model, 20, 20, precision="int8")
    try:
        make("tip22", 20, 20, precision="int8")
    except defocus_fast.BackendUnavailable as error:
        pytest.skip(str(error))
    with pytest.raises(ValueError, match="evaluation: patch needs device cuda; accepted on the CPU: shared"):
        make("tip22", 20, 20, precision="int8", evaluation="patch")


@pytest.mark.parametrize("model", ["fast", "tip22"])
def test_int8_is_near_float32(model: str) -> None:
    """The shipped models on a photograph: edges change by less than a quarter of the 0.25 px between two bins.

    On average over many of them: faint ones, of which small crops may have no others, change by several times that.
    """
    photo = np.asarray(Image.open(Path(__file__).parents[1] / "examples" / "otters.jpg"))[200:456, 300:620]
    try:
        found = make(model, 256, 320, precision="int8", octaves=1).estimate(photo)
    except defocus_fast.BackendUnavailable as error:
        pytest.skip(str(error))
    expected = make(model, 256, 320, octaves=1).estimate(photo)
    difference = np.abs(found.radii - expected.radii)
    assert len(difference) > 5000
    assert 0 < difference.mean() < 0.0625
    assert np.mean(found.depth_edges != expected.depth_edges) < 0.01
    again = make(model, 256, 320, precision="int8", num_threads=1, octaves=1).estimate(photo)
    np.testing.assert_array_equal(again.map, found.map)


def test_missing_and_broken_models(tmp_path: Any, random_model: str) -> None:
    with pytest.raises(defocus_fast.ModelError, match='"tip23" is no shipped model: .* accepted: .*tip22'):
        Estimator(20, 20, model="tip23")
    for name in ("", ".", ".."):
        with pytest.raises(defocus_fast.ModelError, match=f'^model: "{name}" is no shipped model; accepted: '):
            Estimator(20, 20, model=name)
    (tmp_path / "weights.bin").write_bytes(b"")
    (tmp_path / "model.txt").write_text("format: 99\n")
    with pytest.raises(defocus_fast.ModelError, match=r"model.txt: format: expected .*3.*, got \"99\""):
        Estimator(20, 20, model=str(tmp_path))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(defocus_fast.ModelError, match="weights.bin: expected a file, got No such file"):
        Estimator(20, 20, model=str(tmp_path))


def test_weights_that_are_not_finite(tmp_path: Path, random_model: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(random_model, folder)
    weights = np.fromfile(folder / "weights.bin", np.float32)
    weights[-1] = np.nan
    weights.tofile(folder / "weights.bin")
    with pytest.raises(defocus_fast.ModelError, match="expected finite weights, got others in "):
        Estimator(20, 20, model=folder)


def test_model_folders_by_path_and_by_text(random_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(random_model)
    monkeypatch.chdir(folder.parent)
    odd = Path(os.fsdecode(b"no utf-8 \xff"))
    odd.symlink_to(folder)
    for model in (folder, Path(folder.name), f"./{folder.name}", odd, f"./{odd}"):
        assert Estimator(20, 20, model=model).model == "random"
    with pytest.raises(defocus_fast.ModelError, match="a path with a '/'"):
        Estimator(20, 20, model=folder.name)


def test_for_image_and_estimate_blur(random_model: str, picture: np.ndarray, estimator: Estimator) -> None:
    options = {"model": random_model, "precision": "float32"}
    assert Estimator.for_image(picture, **options).height == 90
    np.testing.assert_array_equal(defocus_fast.estimate_blur(picture, **options), estimator.estimate(picture).map)
    with pytest.raises(ValueError, match="image: expected shape"):
        Estimator.for_image(np.zeros(5, np.uint8))


@pytest.mark.parametrize("kernels", defocus_fast.available_kernels())
def test_every_kernel_set_gives_the_same_answer(
    random_model: str, picture: np.ndarray, estimator: Estimator, kernels: str
) -> None:
    found = make(random_model, 90, 130, kernels=kernels)
    assert found.kernels == kernels
    result, expected = found.estimate(picture), estimator.estimate(picture)
    np.testing.assert_array_equal(result.edges, expected.edges)
    # Multiply-adds are fused where the instruction set has them.
    np.testing.assert_allclose(result.radii, expected.radii, rtol=0, atol=PROPAGATED)
    np.testing.assert_allclose(result.map, expected.map, rtol=0, atol=PROPAGATED)


def test_bfloat16_is_near_float32(random_model: str, picture: np.ndarray, estimator: Estimator) -> None:
    try:
        narrow = make(random_model, 90, 130, precision="bfloat16", depth_threshold=1)
    except defocus_fast.BackendUnavailable as error:
        pytest.skip(str(error))
    assert narrow.precision == "bfloat16"
    wide = make(random_model, 90, 130, depth_threshold=1)
    found, expected = (e.estimate(picture, bin_probabilities=True).bin_probabilities for e in (narrow, wide))
    difference = np.abs(found - expected)
    assert difference.max() > 0  # it did run in another precision
    assert difference.mean() < 0.01 * expected.mean()  # 8 bits of mantissa through 12 layers


@pytest.mark.parametrize("stride", [2, 3, 16])
def test_edge_stride_leaves_out_the_edges_beside_its_grid(
    random_model: str, picture: np.ndarray, estimator: Estimator, stride: int
) -> None:
    edges = defocus_fast.detect_edges(picture)
    on_grid = np.zeros_like(edges)
    on_grid[::stride, ::stride] = edges[::stride, ::stride]
    out = np.empty((90, 130), np.float32)
    for given in ({}, {"edges": edges}):
        found = estimator.estimate(picture, edge_stride=stride, **given)
        expected = estimator.estimate(picture, edges=on_grid)
        assert 0 < len(found.edges) < edges.sum()
        np.testing.assert_array_equal(found.edges, expected.edges)
        np.testing.assert_array_equal(found.map, expected.map)
        np.testing.assert_array_equal(estimator.estimate_into(picture, out, edge_stride=stride, **given), found.map)


# ---- memory, threads, repetition


def test_the_same_bits_every_time(random_model: str, picture: np.ndarray, estimator: Estimator) -> None:
    first = estimator.estimate(picture).map
    estimator.estimate(texture(90, 130, seed=9))
    np.testing.assert_array_equal(estimator.estimate(picture).map, first)
    for num_threads in (1, 3):
        again = make(random_model, 90, 130, num_threads=num_threads).estimate(picture).map
        np.testing.assert_array_equal(again, first)


def test_arrays_outlive_result_and_estimator(random_model: str, picture: np.ndarray) -> None:
    estimator = make(random_model, 90, 130)
    result = estimator.estimate(picture)
    alive = weakref.ref(estimator)
    blur, edges = result.map, result.edges
    assert not blur.flags.owndata
    expected = blur.copy()
    del result, estimator
    gc.collect()
    assert alive() is None
    np.testing.assert_array_equal(blur, expected)
    assert len(edges) > 0


def test_no_reference_is_kept(estimator: Estimator) -> None:
    image, out = texture(90, 130), np.zeros((90, 130), np.float32)
    before = sys.getrefcount(image), sys.getrefcount(out)
    for _ in range(3):
        estimator.estimate(image, edges=np.zeros((90, 130), bool))
        estimator.estimate_into(image, out)
    assert (sys.getrefcount(image), sys.getrefcount(out)) == before


def test_one_estimator_shared_by_ten_threads(estimator: Estimator) -> None:
    pictures = [texture(90, 130, seed) for seed in range(10)]
    expected = [estimator.estimate(image).map.copy() for image in pictures]
    failures: list[int] = []

    def work(i: int) -> None:
        out = np.empty((90, 130), np.float32)
        for _ in range(5):
            estimator.estimate_into(pictures[i], out)
            same = np.array_equal(out, expected[i]) and np.array_equal(estimator.estimate(pictures[i]).map, expected[i])
            if not same:
                failures.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
