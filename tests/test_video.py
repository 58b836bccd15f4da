# SPDX-License-Identifier: Apache-2.0
"""Videos: a first frame is a single frame, what is the same is averaged, what changes starts afresh."""

from __future__ import annotations

import itertools
import pickle
import threading

import cv2
import numpy as np
import pytest
from images import texture
from numpy.typing import NDArray

from defocus_fast import BackendUnavailable, Estimator, Frame, VideoEstimator

HEIGHT, WIDTH = 202, 278
PLAIN = {"distances": "domain_transform", "grid": "corner"}  # as of videos
Picture = NDArray[np.uint8]


def noisy(image: Picture, sigma: float, seed: int) -> Picture:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def blurred(image: Picture, radius: float) -> Picture:
    size = 2 * int(radius + 1) + 1
    y, x = np.mgrid[:size, :size] - size // 2
    disk = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1)
    return cv2.filter2D(image, -1, disk / disk.sum())


def changing(maps: list[NDArray[np.float32]]) -> float:
    return float(np.mean([(np.abs(after - before) > 0.5).mean() for before, after in itertools.pairwise(maps)]))


def test_learned_distances_are_for_single_frames() -> None:
    """A video's edges are those of many frames; the network would see those that were read last."""
    with pytest.raises(
        ValueError, match="distances: learned needs images that are no frames of a video; accepted: dom"
    ):
        VideoEstimator(HEIGHT, WIDTH, distances="learned")


@pytest.mark.parametrize(
    ("height", "width", "options"),
    [
        (HEIGHT, WIDTH, {}),
        (131, 517, {"num_threads": 3}),
        (HEIGHT, WIDTH, {"octaves": 1}),
        (HEIGHT, WIDTH, {"labels": "hard"}),
        (1, 1, {}),
        (1, 97, {}),
        (3, 200, {}),
    ],
)
def test_a_first_frame_is_a_single_frame(height: int, width: int, options: dict[str, object]) -> None:
    image = noisy(blurred(texture(height, width), 1.5), 3, 0)
    video = VideoEstimator(height, width, **options)
    single = Estimator(height, width, device="cpu", **PLAIN, **options)
    for frame in (image, image[..., 0], image.astype(np.float32) / 255, image[::-1]):
        video.reset()
        got, expected = video.estimate(frame), single.estimate(frame)
        for name in ("map", "expected_error", "pattern_edges", "depth_edges", "edges", "radii"):
            np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
        assert (got.cut, got.renewed, got.shift) == (True, 1, (0, 0))


def test_a_cut_leaves_nothing() -> None:
    first, second = (noisy(blurred(texture(HEIGHT, WIDTH, seed), 1 + 3 * seed), 3, seed) for seed in (0, 1))
    video, single = VideoEstimator(HEIGHT, WIDTH), Estimator(HEIGHT, WIDTH, device="cpu", **PLAIN)
    for _ in range(4):
        assert not np.array_equal(video.estimate(first).map, single.estimate(second).map)
    after = video.estimate(second)
    assert after.cut
    np.testing.assert_array_equal(after.map, single.estimate(second).map)


def test_the_same_frame_again_gives_the_same_map() -> None:
    image = blurred(texture(HEIGHT, WIDTH), 2)
    video = VideoEstimator(HEIGHT, WIDTH)
    first = video.estimate(image).map
    for _ in range(30):
        answer = video.estimate(image)
        assert (answer.cut, answer.renewed, answer.shift) == (False, 0, (0, 0))
    np.testing.assert_allclose(answer.map, first, rtol=1e-4, atol=1e-4)  # means of equal numbers, rounded


def test_noise_is_averaged() -> None:
    image = blurred(texture(HEIGHT, WIDTH), 1.5)
    video, single = VideoEstimator(HEIGHT, WIDTH), Estimator(HEIGHT, WIDTH, device="cpu", **PLAIN)
    frames = [noisy(image, 4, seed) for seed in range(20)]
    ours = [video.estimate(frame).map for frame in frames]
    theirs = [single.estimate(frame).map for frame in frames]
    assert changing(ours[8:]) < 0.01 < changing(theirs[8:])
    clean = single.estimate(image).map
    assert np.abs(ours[-1] - clean).mean() < np.abs(theirs[-1] - clean).mean()


@pytest.mark.parametrize(("down", "right"), [(0, 2), (4, -6), (-2, 8)])
def test_the_camera_is_followed(down: int, right: int) -> None:
    image = blurred(texture(HEIGHT + 200, WIDTH + 200), 1.5)
    video = VideoEstimator(HEIGHT, WIDTH)
    for t in range(8):
        y, x = 100 - down * t, 100 - right * t
        answer = video.estimate(noisy(image[y : y + HEIGHT, x : x + WIDTH], 3, t))
        if t > 0:
            assert answer.shift == (down, right)
            assert not answer.cut
            assert answer.renewed < 0.2


def test_what_moves_starts_afresh() -> None:
    """A sharp square before a blurred background that stays: where it was, the map is soon as if it had never been."""
    background, square = blurred(texture(HEIGHT, WIDTH), 4), texture(60, 60, 1)
    video, single = VideoEstimator(HEIGHT, WIDTH), Estimator(HEIGHT, WIDTH, device="cpu", **PLAIN)
    errors = []
    for t in range(12):
        frame = background.copy()
        frame[70:130, 20 + 10 * t : 80 + 10 * t] = square
        frame = noisy(frame, 2, t)
        got, expected = video.estimate(frame), single.estimate(frame)
        assert not (got.cut and t > 0)
        left = max(20 + 10 * t - 40, 0)
        errors.append(float((got.map - expected.map)[70:130, left : 20 + 10 * t].mean()))
    assert np.abs(errors[4:]).max() < 0.3


def test_a_budget_that_is_enough_changes_nothing() -> None:
    image = blurred(texture(HEIGHT + 40, WIDTH + 40), 2)
    ours, plain = VideoEstimator(HEIGHT, WIDTH, budget_ms=1e6), VideoEstimator(HEIGHT, WIDTH)
    ours.warm_up()
    for t in range(5):
        frame = noisy(image[3 * t :][:HEIGHT, t:][:, :WIDTH], 3, t)
        got, expected = ours.estimate(frame), plain.estimate(frame)
        assert got.read == 1
        np.testing.assert_array_equal(got.map, expected.map)
        np.testing.assert_array_equal(got.edges, expected.edges)


def test_without_time_for_all_regions_are_read_in_turn() -> None:
    """There are 4 x 5 regions, of which there is time for one a frame. Then the map is what it would be anyway, but for
    edges at the regions' borders that no neighbour drops. After a cut nothing is left of what was before."""
    image, other = blurred(texture(HEIGHT, WIDTH), 1.2), blurred(texture(HEIGHT, WIDTH, 5), 5)
    video = VideoEstimator(HEIGHT, WIDTH, budget_ms=0.1)
    single = Estimator(HEIGHT, WIDTH, device="cpu", **PLAIN)
    video.warm_up()
    first = single.estimate(image)
    errors = []
    for t in range(25):
        answer = video.estimate(image)
        assert answer.read == pytest.approx(1 / 20)
        assert answer.cut == (t == 0)
        assert len(np.unique(answer.edges // 64, axis=0)) == 1
        errors.append(np.abs(answer.map - first.map).mean())
    assert max(errors[19:]) < 0.03 < 1 < errors[0]
    after, clean = video.estimate(other), single.estimate(other)
    assert after.cut
    assert np.abs(after.map - clean.map).mean() < 0.2 * np.abs(first.map - clean.map).mean()


def test_warming_up_leaves_nothing() -> None:
    image = noisy(blurred(texture(HEIGHT, WIDTH), 2), 3, 0)
    video = VideoEstimator(HEIGHT, WIDTH)
    video.estimate(image)
    video.warm_up()
    answer = video.estimate(image)
    assert answer.cut
    single = Estimator(HEIGHT, WIDTH, device="cpu", **PLAIN)
    np.testing.assert_array_equal(answer.map, single.estimate(image).map)


def test_any_number_of_threads_gives_the_same() -> None:
    image = blurred(texture(HEIGHT + 40, WIDTH + 40), 2)
    videos = [VideoEstimator(HEIGHT, WIDTH, num_threads=threads) for threads in (1, 2, 5)]
    for t in range(6):
        frame = noisy(image[3 * t :][:HEIGHT, t:][:, :WIDTH], 3, t)
        one, *others = [video.estimate(frame) for video in videos]
        for other in others:
            np.testing.assert_array_equal(other.map, one.map)
            np.testing.assert_array_equal(other.expected_error, one.expected_error)
            assert (other.shift, other.cut, other.renewed) == (one.shift, one.cut, one.renewed)


def test_estimate_into_and_frames_of_cameras() -> None:
    image = blurred(texture(HEIGHT, WIDTH), 2)
    first, second = VideoEstimator(HEIGHT, WIDTH), VideoEstimator(HEIGHT, WIDTH)
    out = np.zeros((HEIGHT, 2 * WIDTH), np.float32)[:, ::2]
    for t in range(3):
        frame = noisy(image, 3, t)
        change = first.estimate_into(Frame(np.ascontiguousarray(frame[..., ::-1]), "bgr"), out)
        answer = second.estimate(frame, expected_error=False)
        assert (change.cut, change.renewed, change.read) == (answer.cut, answer.renewed, 1)
        np.testing.assert_array_equal(out, answer.map)


def test_more_frames_are_steadier() -> None:
    image = blurred(texture(HEIGHT, WIDTH), 1.5)
    frames = [noisy(image, 6, seed) for seed in range(40)]
    steps = []
    for most in (1, 4, 30):
        video = VideoEstimator(HEIGHT, WIDTH, frames=most)
        maps = [video.estimate(frame).map for frame in frames]
        steps.append(np.mean([np.abs(b - a).mean() for a, b in itertools.pairwise(maps[30:])]))
    assert steps[0] > 2 * steps[1] > 4 * steps[2]
    np.testing.assert_array_equal(
        VideoEstimator(HEIGHT, WIDTH, frames=1).estimate(frames[0]).map,
        Estimator(HEIGHT, WIDTH, device="cpu", **PLAIN).estimate(frames[0]).map,
    )


@pytest.mark.parametrize(("height", "width", "scale"), [(HEIGHT, WIDTH, 2), (63, 120, 1), (2001, 2110, 4)])
def test_focus_is_that_of_the_map(height: int, width: int, scale: int) -> None:
    image = np.ascontiguousarray(texture(2 * height, 2 * width)[::2, ::2])  # the texture itself is a little soft
    image[:, width // 2 :] = blurred(image, 4)[:, width // 2 :]
    first, second = VideoEstimator(height, width), VideoEstimator(height, width)
    out = np.empty((height, width), np.float32)
    for t in range(2):
        frame = noisy(image, 2, t)
        found = first.estimate_focus(frame, rows=3, columns=7, in_focus=1.25, percentile=30)
        answer = second.estimate(frame)
        assert (found.scale, found.map.shape) == (scale, (height // scale, width // scale))
        for reduced, full in ((found.map, answer.map), (found.map_error, answer.expected_error)):
            # The full map is linear between the centres of the reduced one's pixels.
            y, x = ((np.arange(n) + 0.5) / scale - 0.5 for n in (height, width))
            grid = [np.clip(np.broadcast_to(v, (height, width)), 0, None).astype(np.float32) for v in (x, y[:, None])]
            expected = cv2.remap(reduced, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            # OpenCV interpolates in steps of 1 / 32 px; all of ours are on 1 / 8.
            np.testing.assert_allclose(full, expected, rtol=0, atol=1e-4)
        rows, columns = (np.arange(n + 1) * length // n for n, length in ((3, height // scale), (7, width // scale)))
        for r, c in itertools.product(range(3), range(7)):
            part = np.s_[rows[r] : rows[r + 1], columns[c] : columns[c + 1]]
            assert found.region_in_focus[r, c] == np.float32((found.map[part] <= 1.25).mean())
            assert found.region_radius[r, c] == np.percentile(found.map[part], 30, method="lower")
            np.testing.assert_allclose(found.region_expected_error[r, c], found.map_error[part].mean(), rtol=1e-5)
        assert found.in_focus == np.float32((found.map <= 1.25).mean())
        assert found.radius == np.percentile(found.map, 30, method="lower")
        np.testing.assert_allclose(found.expected_error, found.map_error.mean(dtype=float), rtol=1e-5)
    # The map of full size may be asked for in between.
    first.estimate_into(frame, out)
    np.testing.assert_array_equal(out, second.estimate(frame).map)
    assert found.region_radius[:, :3].max() < found.region_radius[:, 4:].min()


def test_what_is_refused() -> None:
    with pytest.raises(BackendUnavailable, match="device: cuda has no estimator of videos"):
        VideoEstimator(HEIGHT, WIDTH, device="cuda")
    with pytest.raises(ValueError, match=r"frames: expected an integer in \[1, 1000\], got 0"):
        VideoEstimator(HEIGHT, WIDTH, frames=0)
    video = VideoEstimator(HEIGHT, WIDTH)
    with pytest.raises(TypeError, match="edges"):
        video.estimate(texture(HEIGHT, WIDTH), edges=None)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="expected height x width"):
        video.estimate(texture(HEIGHT, WIDTH + 1))
    with pytest.raises(ValueError, match="rows and columns: expected at most 101 x 139, the reduced map's .* 102 x 8"):
        video.estimate_focus(texture(HEIGHT, WIDTH), rows=102)
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(video)
    assert repr(video).startswith(f"VideoEstimator({HEIGHT}, {WIDTH}, model='fast', device='cpu'")


def test_threads_may_share_it() -> None:
    image = texture(HEIGHT, WIDTH)
    video, expected = VideoEstimator(HEIGHT, WIDTH), VideoEstimator(HEIGHT, WIDTH).estimate(image).map
    maps: list[NDArray[np.float32]] = []
    threads = [threading.Thread(target=lambda: maps.append(video.estimate(image).map)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in maps:
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-4)
