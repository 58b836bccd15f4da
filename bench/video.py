# SPDX-License-Identifier: Apache-2.0
"""Measure blur maps of videos, frame by frame and averaged along time, and write the section of ACCURACY.md about them:
``python bench/video.py [--frames FOLDER]``. The videos are made here, of the pictures in examples/, with known radii;
`FOLDER` gets each frame beside its maps, to be looked at."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import defocus_fast
from defocus_fast import _images
from defocus_fast._disk import disk_areas

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 360, 480
SETTLED = 10  # frames, after which a static scene is judged
Array = NDArray[np.float32]


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


def framed(image: Array, truth: Array, noise: float, rng: np.random.Generator, x: int = 0) -> tuple[Array, Array]:
    """As the camera sees it that looks at column `x` of twice the size."""
    seen = image[: 2 * HEIGHT, x : x + 2 * WIDTH].reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))
    seen = np.clip(np.rint(seen + rng.normal(0, noise, seen.shape)), 0, 255).astype(np.uint8)
    return seen, truth[: 2 * HEIGHT : 2, x : x + 2 * WIDTH : 2]


Video = Iterator[tuple[Array, Array]]


def static(noise: float, subject: str, background: str, radius: float, behind: float, frames: int = 30) -> Video:
    rng = np.random.default_rng(0)
    scene = rendered(layers(subject, background, (HEIGHT, WIDTH)), radius, behind)
    for _ in range(frames):
        yield framed(*scene, noise, rng)


def pan(speed: float, frames: int = 30) -> Video:
    """The camera turns by `speed` px a frame."""
    rng = np.random.default_rng(0)
    step = round(2 * speed)
    scene = rendered(layers("otters", "osprey", (HEIGHT, WIDTH + step * frames / 2), step * frames), 1, 3)
    for t in range(frames):
        yield framed(*scene, 2, rng, step * t)


def rack(speed: float) -> Video:
    """Focus goes from the subject to the background, by `speed` px a frame."""
    rng = np.random.default_rng(0)
    scene = layers("otters", "osprey", (HEIGHT, WIDTH))
    between = np.arange(1 + speed, 4, speed)
    for near in [1.0] * SETTLED + list(between) + [4.0] * SETTLED:
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
    "pan, 1 px a frame": lambda: pan(1),
    "pan, 1.5 px a frame": lambda: pan(1.5),
    "pan, 2 px a frame": lambda: pan(2),
    "pan, 4 px a frame": lambda: pan(4),
    "rack of focus, 0.1 px a frame": lambda: rack(0.1),
    "rack of focus, 0.3 px a frame": lambda: rack(0.3),
    "rack of focus, 1 px a frame": lambda: rack(1),
    "subject moving by 1 px a frame": lambda: moving(1, "otters", "osprey", 1, 4),
    "subject moving by 3 px a frame": lambda: moving(3, "otters", "osprey", 1, 4),
    "blurred subject moving by 3 px a frame": lambda: moving(3, "periwinkle", "otters", 5, 1),
    "sharp subject before a faint background, 3 px a frame": lambda: moving(3, "osprey", "wren", 1, 4),
    "cut": cut,
}


@dataclass
class Measured:
    """Of one video, by frame: maps of single frames, of the video, and what is true."""

    single: Array
    video: Array
    truth: Array
    cuts: list[bool]
    shifts: list[tuple[int, int]]
    renewed: list[float]


def measure(name: str, folder: Path | None, single: defocus_fast.Estimator, **options: int) -> Measured:
    video = defocus_fast.VideoEstimator(HEIGHT, WIDTH, **options)
    found: list[tuple[Array, Array, Array]] = []
    answers = []
    for t, (frame, truth) in enumerate(VIDEOS[name]()):
        answer = video.estimate(frame)
        found.append((single.estimate(frame).map, answer.map, truth))
        answers.append(answer)
        if folder:
            shown = [cv2.applyColorMap(np.uint8(np.clip(25 * m, 0, 255)), cv2.COLORMAP_VIRIDIS) for m in found[-1]]
            top, bottom = np.hstack([frame[..., ::-1], shown[2]]), np.hstack(shown[:2])
            cv2.imwrite(str(folder / f"{name.replace(' ', '_').replace(',', '')}_{t:02}.png"), np.vstack([top, bottom]))
    maps = [np.stack(each) for each in zip(*found, strict=True)]
    return Measured(*maps, [a.cut for a in answers], [a.shift for a in answers], [a.renewed for a in answers])


def flicker(maps: Array, step: int = 0, apart: int = 1) -> float:
    """Share of pixels that change by more than 0.5 px, from frames that are `apart`, of which the camera moves `step`
    px."""
    width = maps.shape[2] - step
    after, before = maps[SETTLED + apart :, :, :width], maps[SETTLED:-apart, :, step:]
    return float((np.abs(after - before) > 0.5).mean())


def lag(found: Measured) -> tuple[float, bool]:
    """By how many frames the mean radius of the subject comes later than that of single frames, at most; and whether it
    rises all the time."""
    near = found.truth[0] == found.truth[0].min()
    ours, theirs = (maps[:, near].mean(axis=1) for maps in (found.video, found.single))
    best = min(range(8), key=lambda k: float(np.abs(ours[k:] - theirs[: len(theirs) - k]).sum()))
    moving = slice(SETTLED, len(ours) - SETTLED + 1)
    return best, bool(np.all(np.diff(ours[moving]) > -0.02))


def uncovered(found: Measured, last: int = 8) -> Array:
    """By frame: where the subject was within the last frames, and is not now."""
    near = found.truth != found.truth[0, 0, 0]  # the corner is background
    masks = np.zeros_like(near)
    for t in range(1, len(near)):
        masks[t] = near[max(t - last, 0) : t].any(axis=0) & ~near[t]
    return masks


def describe(name: str, found: Measured) -> list[str]:
    errors = [np.abs(maps - found.truth) for maps in (found.single, found.video)]
    speed = re.search(r"pan, ([\d.]+)", name)
    apart = 2 if speed and float(speed[1]) % 1 else 1
    step = round(float(speed[1]) * apart) if speed else 0
    flickers = [f"{100 * flicker(maps, step, apart):.2f}" for maps in (found.single, found.video)]
    if "rack" in name or "cut" in name:
        flickers = ["", ""]
    return [name, *flickers, *(f"{error.mean():.3f}" for error in errors)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--average", type=int, default=10)
    args = parser.parse_args()
    single = defocus_fast.Estimator(HEIGHT, WIDTH)
    for name in VIDEOS:
        if args.only not in name:
            continue
        found = measure(name, args.frames, single, frames=args.average)
        row = describe(name, found)
        errors = [np.abs(maps - found.truth) for maps in (found.single, found.video)]
        extra = ""
        if "rack" in name:
            extra = f"lag {lag(found)}"
        if "moving" in name or "before" in name:
            masks = uncovered(found)
            extra = "trailing " + ", ".join(f"{e[masks].mean():.3f}" for e in errors)
        if name == "cut":
            extra = (
                "after " + ", ".join(f"{e[SETTLED].mean():.3f}" for e in errors) + f" cuts {np.flatnonzero(found.cuts)}"
            )
        print(
            " | ".join(row),
            "|",
            extra,
            f"renewed {np.mean(found.renewed[SETTLED:]):.3f}",
            f"shift {found.shifts[-1]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
