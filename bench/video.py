# SPDX-License-Identifier: Apache-2.0
"""Measure blur maps of videos, frame by frame and averaged along time, and write the section of ACCURACY.md about it:
``python bench/video.py [--frames FOLDER]``. The videos are made here, of the pictures in examples/, by known radii."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import sections
from numpy.typing import NDArray

import defocus_fast
from defocus_fast import _images
from defocus_fast._disk import disk_areas

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 360, 480
SETTLED = 10  # frames, after which a static scene is judged
Array = NDArray[np.float32]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Layers:
    """A subject before a background, at twice the size, so that half pixels are whole ones."""

    subject: Array  # (H, W, 3) in [0, 255]
    mask: Array  # (H, W) in [0, 1]
    background: Array


def picture(name: str, height: int, width: int) -> Array:
    """One of the examples, mirrored beyond its border."""
    image = _images.read_photo(ROOT / "examples" / f"{name}.jpg")
    pad = [(0, max(height - image.shape[0], 0)), (0, max(width - image.shape[1], 0)), (0, 0)]
    return np.pad(image, pad, mode="symmetric")[:height, :width].astype(np.float32)


def layers(subject: str, background: str, centre: tuple[float, float], margin: int = 0) -> Layers:
    height, width = 2 * HEIGHT + margin, 2 * WIDTH + margin
    angles = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = 210 * (1 + 0.25 * np.cos(2 * angles + 1) + 0.12 * np.cos(5 * angles))
    points = np.stack([centre[1] + radius * np.cos(angles), centre[0] + radius * np.sin(angles)], axis=1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.int32(points)], 255)
    return Layers(picture(subject, height, width), mask.astype(np.float32) / 255, picture(background, height, width))


def blurred(image: Array, radius: float) -> Array:
    """By the disk of `radius` px of the video."""
    kernel = disk_areas(2 * radius)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def rendered(scene: Layers, radius: float, behind: float, moved: int = 0) -> tuple[Array, Array]:
    """The scene, and the true radii; the subject `moved` to the right by so many px of twice the size."""
    mask, subject = np.roll(scene.mask, moved, axis=1), np.roll(scene.subject, moved, axis=1)
    alpha = blurred(mask, radius)[..., None]
    image = blurred(subject * mask[..., None], radius) + (1 - alpha) * blurred(scene.background, behind)
    return image, np.where(alpha[..., 0] > 0.5, radius, behind).astype(np.float32)


def framed(
    image: Array, truth: Array, noise: float, rng: np.random.Generator, y: int = 0, x: int = 0
) -> tuple[Picture, Array]:
    """As the camera sees it that looks at (y, x) of twice the size."""
    rows, columns = slice(y, y + 2 * HEIGHT), slice(x, x + 2 * WIDTH)
    seen = image[rows, columns].reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))
    seen = np.clip(np.rint(seen + rng.normal(0, noise, seen.shape)), 0, 255).astype(np.uint8)
    return seen, truth[rows, columns][::2, ::2]


Video = Iterator[tuple[Picture, Array]]


def static(noise: float, subject: str, background: str, radius: float, behind: float, frames: int = 30) -> Video:
    rng = np.random.default_rng(0)
    scene = rendered(layers(subject, background, (HEIGHT, WIDTH)), radius, behind)
    for _ in range(frames):
        yield framed(*scene, noise, rng)


def photograph(name: str, frames: int = 30) -> Video:
    """A part of a picture as it is, whose radii nobody knows, with noise of 4."""
    rng = np.random.default_rng(0)
    image = picture(name, HEIGHT, WIDTH)
    for _ in range(frames):
        seen = np.clip(np.rint(image + rng.normal(0, 4, image.shape)), 0, 255).astype(np.uint8)
        yield seen, np.full((HEIGHT, WIDTH), np.nan, np.float32)


def compressed(quality: int) -> Video:
    """Each frame a JPEG file."""
    for frame, truth in static(2, "otters", "osprey", 1, 4):
        yield cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR), truth


def in_light(noise: float) -> Video:
    """Noise as of light: its variance grows with brightness."""
    rng = np.random.default_rng(0)
    for frame, truth in static(0, "otters", "wren", 1, 4):
        deviation = noise * np.sqrt(frame / 255 + 0.05)
        yield np.clip(np.rint(frame + rng.normal(0, 1, frame.shape) * deviation), 0, 255).astype(np.uint8), truth


def pan(speed: float, frames: int = 30) -> Video:
    """The camera turns by `speed` px a frame."""
    rng = np.random.default_rng(0)
    step = round(2 * speed)
    scene = rendered(layers("otters", "osprey", (HEIGHT, WIDTH + step * frames / 2), step * frames), 1, 3)
    for t in range(frames):
        yield framed(*scene, 2, rng, x=step * t)


def hand_held(frames: int = 30) -> Video:
    """The camera shakes by up to 2 px."""
    rng = np.random.default_rng(0)
    scene = rendered(layers("otters", "osprey", (HEIGHT, WIDTH), 8), 1, 3)
    for _ in range(frames):
        y, x = rng.integers(0, 9, 2)
        yield framed(*scene, 2, rng, y, x)


def zoom(share: float, frames: int = 30) -> Video:
    """Everything grows by `share` a frame."""
    rng = np.random.default_rng(0)
    scene = rendered(layers("otters", "osprey", (HEIGHT, WIDTH)), 1, 3)
    for t in range(frames):
        matrix = cv2.getRotationMatrix2D((WIDTH, HEIGHT), 0, (1 + share) ** t)
        image, truth = (cv2.warpAffine(each, matrix, (2 * WIDTH, 2 * HEIGHT), flags=cv2.INTER_CUBIC) for each in scene)
        yield framed(image, truth * (1 + share) ** t, 2, rng)


def rack(speed: float) -> Video:
    """Focus goes from the subject to the background, by `speed` px a frame."""
    rng = np.random.default_rng(0)
    scene = layers("otters", "osprey", (HEIGHT, WIDTH))
    for near in [1.0] * SETTLED + list(np.arange(1 + speed, 4, speed)) + [4.0] * SETTLED:
        yield framed(*rendered(scene, float(near), 5 - float(near)), 2, rng)


def moving(speed: float, subject: str, background: str, radius: float, behind: float, frames: int = 30) -> Video:
    """The subject moves by `speed` px a frame before a background that does not."""
    rng = np.random.default_rng(0)
    scene = layers(subject, background, (HEIGHT, WIDTH - speed * frames))
    for t in range(frames):
        yield framed(*rendered(scene, radius, behind, round(2 * speed * t)), 2, rng)


def cut() -> Video:
    yield from static(2, "otters", "osprey", 1, 4, SETTLED)
    yield from static(2, "periwinkle", "wren", 4, 1, SETTLED)


VIDEOS: dict[str, Callable[[], Video]] = {
    "static, noise of 2": lambda: static(2, "otters", "osprey", 1, 4),
    "static, noise of 4": lambda: static(4, "otters", "osprey", 1, 4),
    "static, sharp background, noise of 4": lambda: static(4, "periwinkle", "otters", 5, 0.5),
    "static, faint background, noise of 4": lambda: static(4, "osprey", "wren", 2, 5),
    "static, noise of 1 in the dark and 5 in the light": lambda: in_light(5),
    **{f"static, {name}.jpg, noise of 4": partial(photograph, name) for name in ("osprey", "otters", "periwinkle")},
    "static, JPEG of quality 80": lambda: compressed(80),
    "pan, 1 px a frame": lambda: pan(1),
    "pan, 1.5 px a frame": lambda: pan(1.5),
    "pan, 2 px a frame": lambda: pan(2),
    "pan, 4 px a frame": lambda: pan(4),
    "hand-held, up to 2 px": hand_held,
    "zoom, 0.5 % a frame": lambda: zoom(0.005),
    "rack of focus, 0.1 px a frame": lambda: rack(0.1),
    "rack of focus, 0.3 px a frame": lambda: rack(0.3),
    "rack of focus, 1 px a frame": lambda: rack(1),
    "subject moves 1 px a frame": lambda: moving(1, "otters", "osprey", 1, 4),
    "subject moves 3 px a frame": lambda: moving(3, "otters", "osprey", 1, 4),
    "blurred subject moves 3 px a frame": lambda: moving(3, "periwinkle", "otters", 5, 1),
    "subject moves 3 px a frame before a faint background": lambda: moving(3, "osprey", "wren", 1, 4),
    "cut": cut,
}


@dataclass
class Measured:
    """Of one video: what is true, and both maps, (frames, H, W)."""

    truth: Array
    maps: tuple[Array, Array]  # of single frames, and of the video
    cuts: list[int]

    def flicker(self, speed: float) -> list[float]:
        """Shares of pixels that change by more than 0.5 px from frame to frame, of which the camera moves `speed` px;
        where that is no whole number, from a frame to the next but one."""
        apart = 1 if speed % 1 == 0 else 2
        step = round(speed * apart)
        shares = []
        for maps in self.maps:
            after, before = maps[SETTLED + apart :, :, : WIDTH - step], maps[SETTLED:-apart, :, step:]
            shares.append(float((np.abs(after - before) > 0.5).mean()))
        return shares

    def errors(self, where: NDArray[np.bool_] | None = None) -> list[float]:
        chosen = slice(None) if where is None else where
        return [float(np.abs(maps - self.truth)[chosen].mean()) for maps in self.maps]

    def changed(self, name: str) -> NDArray[np.bool_] | None:
        """Where the video has just changed: pixels that the subject has left within 8 frames, frames of another focus
        than the one before, the first frame after a cut."""
        near = self.truth != self.truth[:, :1, :1]  # the corner is background
        found = np.zeros_like(near)
        if "subject" in name:
            for t in range(1, len(near)):
                found[t] = near[max(t - 8, 0) : t].any(axis=0) & ~near[t]
        elif "rack" in name:
            found[SETTLED : 1 - SETTLED] = True
        elif name == "cut":
            found[SETTLED] = True
        return found if found.any() else None

    def follows(self) -> tuple[int, float]:
        """Of a rack of focus: by how many frames the subject's mean radius comes later than that of single frames, and
        by how many px it falls at most from frame to frame, while it should rise."""
        near = self.truth[0] != self.truth[0, 0, 0]
        theirs, ours = (maps[:, near].mean(axis=1) for maps in self.maps)
        lag = min(range(8), key=lambda k: float(np.abs(ours[k:] - theirs[: len(theirs) - k]).mean()))
        return lag, max(0.0, -float(np.diff(ours[SETTLED - 1 : 1 - SETTLED]).min()))


def measure(video: Iterable[tuple[Picture, Array]], name: str, folder: Path | None) -> Measured:
    estimators = defocus_fast.Estimator(HEIGHT, WIDTH), defocus_fast.VideoEstimator(HEIGHT, WIDTH)
    truths, maps, cuts = [], [], []
    for t, (frame, truth) in enumerate(video):
        single, answer = (estimator.estimate(frame) for estimator in estimators)
        truths.append(truth)
        maps.append((single.map, answer.map))
        if answer.cut:
            cuts.append(t)
        if folder:
            drawn = [np.uint8(np.clip(25 * each, 0, 255)) for each in (truth, single.map, answer.map)]
            views = [frame[..., ::-1], *(cv2.applyColorMap(each, cv2.COLORMAP_VIRIDIS) for each in drawn)]
            file = folder / f"{re.sub('[^a-z0-9.]+', '_', name)}_{t:02}.png"
            cv2.imwrite(str(file), np.vstack([np.hstack(views[:2]), np.hstack(views[2:])]))
    of_single, of_video = zip(*maps, strict=True)
    return Measured(np.stack(truths), (np.stack(of_single), np.stack(of_video)), cuts)


def section(folder: Path | None) -> str:
    rows, racks = [], []
    for name, video in VIDEOS.items():
        found = measure(video(), name, folder)
        speed = re.search(r"pan, ([0-9.]+)", name)
        steady = name.startswith(("static", "pan"))
        flicker = [f"{100 * share:.2f}" for share in found.flicker(float(speed[1]) if speed else 0)]
        where = found.changed(name)
        changed = ["", ""] if where is None else [f"{error:.3f}" for error in found.errors(where)]
        cells = [
            name,
            *(flicker if steady else ["", ""]),
            *("" if np.isnan(error) else f"{error:.3f}" for error in found.errors()),
            *changed,
        ]
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1], "cuts:", found.cuts, flush=True)
        if "rack" in name:
            lag, fall = found.follows()
            racks.append(f"{lag} frames and falls by at most {fall:.3f} px at {name.split(', ')[1]}")
    head = "| video | changing %: single | video | MAE px: single | video | where it changes: single | video |"
    table = "\n".join([head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *rows])
    return f"""## Videos

Written by `bench/video.py`. Videos of {WIDTH}x{HEIGHT} px made of the pictures in `examples/`: a subject before a
background, both blurred by known radii, with noise of 2 of 255 unless it is said otherwise; or parts of these pictures
as they are, whose radii nobody knows. "single" is `Estimator`,
frame by frame; "video" is `VideoEstimator`. "changing" is the share of pixels whose radius changes by more than 0.5 px
from frame to frame, from frame {SETTLED} on, along the camera's movement. "Where it changes" is the mean error of the
frames of a rack of focus, of pixels that the subject has left within 8 frames, and of the first frame after a cut.

{table}

In racks of focus the subject's mean radius comes later than that of single frames by {"; ".join(racks)}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--frames", type=Path, help="folder for each frame beside the truth, single maps and the video's"
    )
    args = parser.parse_args()
    sections.write("video", section(args.frames))


if __name__ == "__main__":
    main()
