# SPDX-License-Identifier: Apache-2.0
"""Frames as cameras give them: the answer is that of the image that they stand for, bit for bit."""

from __future__ import annotations

import functools
import re
from typing import Any

import cv2
import device_arrays
import frames
import numpy as np
import pytest
from emulated import device_options
from images import texture

import defocus_fast
from defocus_fast import Frame

SIZES = [(2, 2), (2, 98), (64, 66), (102, 34), (130, 270)]
COLOURS = [(range_, matrix) for range_ in ("full", "limited") for matrix in ("bt601", "bt709")]


@functools.cache
def estimator(height: int, width: int) -> defocus_fast.Estimator:
    return defocus_fast.Estimator(height, width, device="cpu", num_threads=2)


def assert_equal(got: defocus_fast.BlurMap, expected: defocus_fast.BlurMap) -> None:
    for name in ("map", "expected_error", "pattern_edges", "depth_edges", "edges", "octave", "radii", "radius_std"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)


@pytest.mark.parametrize("layout", ["packed", "gaps", "flipped"])
@pytest.mark.parametrize("format", frames.FORMATS)
def test_the_answer_is_that_of_the_image(format: str, layout: str) -> None:
    edges = 0
    for height, width in SIZES:
        planes, image = frames.make(format, height, width, layout)
        frame, one = Frame(planes, format), estimator(height, width)
        expected = one.estimate(image)
        assert_equal(one.estimate(frame), expected)
        out = np.empty((height, width), np.float32)
        np.testing.assert_array_equal(one.estimate_into(frame, out), expected.map)
        edges += len(expected.edges)
    assert edges > 1000


@pytest.mark.parametrize(("range_", "matrix"), COLOURS)
@pytest.mark.parametrize("format", [*frames.YUV, "gray8", "gray10", "gray16"])
def test_ranges_and_matrices(format: str, range_: Any, matrix: Any) -> None:
    planes, image = frames.make(format, 130, 270, "gaps", range_, matrix)
    frame = Frame(planes, format, range=range_, matrix=matrix)
    one = estimator(130, 270)
    assert_equal(one.estimate(frame), one.estimate(image))


def test_ranges_and_matrices_are_told_apart() -> None:
    planes, _ = frames.make("nv12", 130, 270)
    maps = {
        estimator(130, 270).estimate(Frame(planes, "nv12", range=range_, matrix=matrix)).map.tobytes()
        for range_, matrix in COLOURS
    }
    assert len(maps) == 4


@pytest.mark.parametrize("format", ["nv12", "nv21", "i420", "p010"])
def test_planes_in_one_array(format: str) -> None:
    planes, image = frames.make(format, 66, 130)
    one = estimator(66, 130)
    assert_equal(one.estimate(Frame(frames.in_one(planes), format)), one.estimate(image))


@pytest.mark.parametrize("format", ["nv12", "nv21", "p010"])
def test_planes_in_one_array_with_gaps_between_rows(format: str) -> None:
    planes, image = frames.make(format, 66, 130)
    array = frames.rows_apart(frames.in_one(planes), "gaps")
    one = estimator(66, 130)
    assert_equal(one.estimate(Frame(array, format)), one.estimate(image))


def test_interleaved_colours_as_a_plane_of_two_or_three_dimensions() -> None:
    (luma, uv), image = frames.make("nv12", 66, 130)
    one = estimator(66, 130)
    assert_equal(one.estimate(Frame((luma, uv.reshape(33, 130)), "nv12")), one.estimate(image))


def test_a_frame_is_read_where_it_is() -> None:
    planes, _ = frames.make("nv12", 130, 270)
    frame = Frame(planes, "nv12")
    before = estimator(130, 270).estimate(frame).map
    other, _ = frames.make("nv12", 130, 270, "flipped")
    other[0][:] = other[0][::-1].copy()
    for plane, new in zip(planes, other, strict=True):
        plane[:] = new
    after = estimator(130, 270).estimate(frame).map
    np.testing.assert_array_equal(after, estimator(130, 270).estimate(Frame(other, "nv12")).map)
    assert not np.array_equal(before, after)


def test_the_other_calls_take_frames() -> None:
    planes, image = frames.make("yuyv", 64, 66)
    frame = Frame(planes, "yuyv")
    np.testing.assert_array_equal(defocus_fast.estimate_blur(frame), defocus_fast.estimate_blur(image))
    edges = defocus_fast.detect_edges(image)
    np.testing.assert_array_equal(defocus_fast.detect_edges(frame), edges)
    rest = np.ones(edges.shape, np.float32), edges, np.zeros_like(edges)
    np.testing.assert_array_equal(defocus_fast.propagate(frame, *rest), defocus_fast.propagate(image, *rest))
    made = defocus_fast.Estimator.for_image(Frame(frames.in_one(frames.make("i420", 64, 66)[0]), "i420"))
    assert (made.height, made.width) == (64, 66)


# ---- what the numbers stand for


@pytest.mark.parametrize(("range_", "matrix"), COLOURS)
@pytest.mark.parametrize("bits", [8, 10])
def test_the_definition_is_the_recommendations_formula(bits: int, range_: str, matrix: str) -> None:
    luma, u, v = np.random.default_rng(bits).integers(0, 2**bits, (3, 1_000_000))
    got = frames.defined(luma, u, v, bits, range_, matrix)
    exact = frames.exact(luma, u, v, bits, range_, matrix)
    if bits == 8:
        assert np.abs(got - 255 * exact).max() < 0.53  # 0.5 is rounding to nearest
        assert (got != np.round(255 * exact)).mean() < 0.02
    else:
        assert np.abs(got - exact).max() < 0.15 / 1023


@pytest.mark.parametrize(
    ("format", "code"),
    [
        ("nv12", cv2.COLOR_YUV2RGB_NV12),
        ("nv21", cv2.COLOR_YUV2RGB_NV21),
        ("i420", cv2.COLOR_YUV2RGB_I420),
        ("yuyv", cv2.COLOR_YUV2RGB_YUY2),
    ],
)
def test_opencv_reads_the_same_within_one(format: str, code: int) -> None:
    """Limited BT.601, colours repeated; it rounds its factors otherwise, and takes Y below black for black."""
    planes, image = frames.make(format, 130, 270)
    opencv = cv2.cvtColor(planes if format == "yuyv" else frames.in_one(planes), code)
    luma = planes[..., 0] if format == "yuyv" else planes[0]
    assert np.abs(opencv.astype(int) - image)[luma >= 16].max() <= 1


# ---- what is refused


def _plane(*shape: int, dtype: Any = np.uint8) -> Any:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("planes", "format", "options", "error", "message"),
    [
        (_plane(4, 4), "nv16", {}, ValueError, "format: expected one of gray8, gray10"),
        (_plane(4, 4), None, {}, TypeError, "format: expected a name, got None"),
        (_plane(4, 4), "gray8", {"range": "tv"}, ValueError, "range: expected one of full, limited, got tv"),
        (_plane(4, 4), "gray8", {"matrix": "bt2020"}, ValueError, "matrix: expected one of bt601, bt709, got bt2020"),
        (_plane(4, 4, 3), "rgb", {"range": "limited"}, ValueError, "rgb: expected full range, got limited"),
        (_plane(6, 4, dtype=np.uint16), "nv12", {}, TypeError, r"nv12: expected uint8 .*, got uint16 \(6, 4\)"),
        (_plane(4, 4), "gray16", {}, TypeError, r"gray16: expected uint16 of shape \(H, W\), got uint8 \(4, 4\)"),
        (
            _plane(5, 4),
            "nv12",
            {},
            ValueError,
            r"nv12: expected uint8 of shape \(H \* 3 / 2, W\), .*, got uint8 \(5, 4\)",
        ),
        (_plane(3, 5), "nv12", {}, ValueError, "nv12: expected an even width and height, got 5x2"),
        ((_plane(3, 4), _plane(1, 4)), "nv12", {}, ValueError, "nv12: expected an even width and height, got 4x3"),
        (_plane(4, 5, 2), "yuyv", {}, ValueError, "yuyv: expected an even width, got 5x4"),
        (_plane(4, 8), "yuyv", {}, ValueError, r"yuyv: expected uint8 of shape \(H, W, 2\), got"),
        (_plane(4, 4, 3), "rgba", {}, ValueError, r"rgba: expected uint8 of shape \(H, W, 4\), got"),
        (_plane(4, 4, 3), "gray8", {}, ValueError, r"gray8: expected uint8 of shape \(H, W\), got"),
        (_plane(0, 4), "gray8", {}, ValueError, r"gray8: expected uint8 of shape \(H, W\), got uint8 \(0, 4\)"),
        (_plane(4), "gray8", {}, ValueError, r"gray8: expected uint8 of shape \(H, W\), got uint8 \(4,\)"),
        ((), "gray8", {}, ValueError, "gray8: expected .*, got none"),
        ((_plane(4, 4), _plane(4, 4)), "gray8", {}, ValueError, r"gray8: .*, got uint8 \(4, 4\) and uint8 \(4, 4\)"),
        ((_plane(4, 4), _plane(2, 2)), "nv12", {}, ValueError, r"nv12: .*, got uint8 \(4, 4\) and uint8 \(2, 2\)"),
        ((_plane(4, 4), _plane(2, 2), _plane(2, 3)), "i420", {}, ValueError, "i420: expected uint8"),
        ((_plane(4, 4), _plane(2, 2)), "i420", {}, ValueError, "i420: expected uint8"),
        ((_plane(4, 4), _plane(1, 4)), "nv12", {}, ValueError, "nv12: expected uint8"),
        (_plane(6, 8)[:, ::2], "nv12", {}, ValueError, r"nv12: expected rows without gaps .*, got strides of \(8, 2\)"),
        (_plane(6, 8)[:, :4], "i420", {}, ValueError, "i420: expected uint8 .* without gaps"),
        (np.broadcast_to(_plane(1, 4), (4, 4)), "gray8", {}, ValueError, "gray8: expected a pitch of at least the 4 "),
        ([[1, 2], [3, 4]], "gray8", {}, TypeError, "image: expected a NumPy array"),
        (np.full((4, 4), 1024, np.uint16), "gray10", {}, ValueError, "image: expected words of at most 1023, got 1024"),
        (_plane(6, 6), "nv12", {}, ValueError, "image: expected height x width 4 x 4, got 4 x 6"),
    ],
)
def test_refused(planes: Any, format: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimator(4, 4).estimate(Frame(planes, format, **options))


def test_planes_that_overlap_are_refused() -> None:
    memory = _plane(100)
    with pytest.raises(ValueError, match=re.escape("nv12: expected planes apart from each other, got planes 1 and 2")):
        estimator(4, 4).estimate(Frame((memory[:16].reshape(4, 4), memory[15:23].reshape(2, 4)), "nv12"))


def test_a_filter_and_a_deblurring_take_no_frames() -> None:
    frame = Frame(_plane(4, 4), "gray8")
    with pytest.raises(TypeError, match="image: expected a NumPy array"):
        defocus_fast.domain_transform_filter(frame, frame)
    with pytest.raises(TypeError, match="image: expected a NumPy array"):
        defocus_fast.deblur(frame, _plane(4, 4, dtype=np.float32))


# ---- the emulated device


@pytest.fixture(scope="module")
def device(random_cells: str) -> defocus_fast.Estimator:
    return defocus_fast.Estimator(20, 32, model=random_cells, **device_options(random_cells, 20, 32, 20 * 32))


@pytest.mark.parametrize("layout", ["packed", "gaps", "flipped"])
@pytest.mark.parametrize("format", frames.FORMATS)
def test_the_device_answers_as_for_the_image(device: defocus_fast.Estimator, format: str, layout: str) -> None:
    planes, image = frames.make(format, 20, 32, layout)
    expected = device.estimate(image)
    assert len(expected.edges) > 20
    assert_equal(device.estimate(Frame(planes, format)), expected)
    each = planes if isinstance(planes, tuple) else (planes,)
    on_device = Frame([device_arrays.CudaArray(plane) for plane in each], format)
    out = np.empty((20, 32), np.float32)
    device.estimate_into(on_device, device_arrays.CudaArray(out))
    device.edge_count()
    np.testing.assert_array_equal(out, expected.map)


def test_planes_in_different_memories_are_refused(device: defocus_fast.Estimator) -> None:
    (luma, uv), _ = frames.make("nv12", 20, 32)
    frame = Frame((device_arrays.CudaArray(luma), uv), "nv12")
    with pytest.raises(TypeError, match="image: expected an array in device memory"):
        device.estimate(frame)


def test_a_cpu_says_what_takes_frames_in_device_memory() -> None:
    image = texture(4, 4)[..., 0]
    with pytest.raises(TypeError, match="image: expected an array in host memory, got CudaArray"):
        estimator(4, 4).estimate(Frame(device_arrays.CudaArray(image), "gray8"))
