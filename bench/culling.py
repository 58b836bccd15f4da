# SPDX-License-Identifier: Apache-2.0
"""Measure whether ``defocus-fast cull`` puts bursts in the right order, and write the section of ACCURACY.md about it:
``python bench/culling.py IMAGES``. IMAGES is the folder written by ``python -m training.fetch``.

Bursts are made from sharp photographs of the test split: each shot is blurred by disks of known radii, 0.25 px apart.
Other measures of focus get the same shots. ``--validation`` takes the validation split, prints what other percentiles
and other settings of FFmpeg's blurdetect give, and writes nothing.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import sections
from blurdetect import Blurdetect, frame_of

import defocus_fast
from defocus_fast import culling
from defocus_fast._results import BlurMap

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from training import existing, positive, run  # noqa: E402
from training.synthesis import Camera, Layer, detect_edges, load_images, photograph, random_camera, render  # noqa: E402
from training.synthesis import blur as blurred  # noqa: E402

Array = np.ndarray[Any, Any]
SEED = 24
VALIDATION_ROUNDS = 4  # that split has few photographs
SHOTS, STEP = 8, 0.25  # in a burst; px between the radii of one shot and the next
LEAST, MOST = 0.5, 10.0  # px, of a burst's first radius
PAN = 8  # px, between shots, at most
MARGIN = 24  # px around what is seen: of the largest radius, and the pan
LEAST_TEXTURE = 0.03  # share of a sharp subject's pixels that are edges: in a clear sky nothing can be read
LARGEST = (768, 1152)  # px, height and width of a shot at most
RANGES = (0, 2, 6, 100)  # px, of the smaller radius of a pair
KINDS = {
    "whole": "all of the photograph is blurred alike; the radius of the photograph",
    "whole, camera": "as before, with pans of up to 8 px and a camera's effects",
    "subject": "a subject in an ellipse before a background that is 3 to 8 px more out of focus, with pans and a "
    "camera's effects; the radius of the photograph",
    "subject, focus missed": "as before, but the background is the sharper the less the subject is; the radius around "
    "the subject's centre",
}


@dataclass
class Shot:
    radius: float  # px, true
    result: BlurMap
    point: tuple[float, float] | None  # where it matters, as shares of the sides; None: the whole image
    subject: Array | None  # (H, W) bool: what is in focus, if the rest is less so
    grey: Array  # (H, W) uint8
    focus: float  # px, that estimate_focus tells of the grey image, or of its region with the point


def bursts(kind: str, photos: list[Array], limit: int | None, seed: int = 0) -> Iterator[list[Shot]]:
    """Yield a burst of every photograph."""
    for number, photo in enumerate(photos[:limit]):
        rng = np.random.default_rng([SEED + seed, list(KINDS).index(kind), number])
        first = float(np.exp(rng.uniform(np.log(LEAST), np.log(MOST))))
        camera = random_camera(rng, 0) if kind != "whole" else Camera()
        pan = PAN if kind != "whole" else 0
        least = MARGIN + PAN
        height, width = (min(side, most) for side, most in zip(photo.shape[:2], LARGEST, strict=True))
        seen = height - 2 * least, width - 2 * least
        light = np.float32(photo[:height, :width]) / 255
        subject = None
        if kind.startswith("subject"):
            centre = rng.uniform(0.4, 0.6, 2)
            axes = rng.uniform(0.2, 0.35, 2) * min(height, width)
            y, x = np.mgrid[:height, :width]
            from_centre = np.hypot((y - centre[0] * height) / axes[0], (x - centre[1] * width) / axes[1])
            mask = np.float32(np.clip((1 - from_centre) * axes.min() + 0.5, 0, 1))
            behind = rng.uniform(3, 8)
            others = (photos[(number + step) % len(photos)] for step in range(1, len(photos)))
            resized = (np.float32(cv2.resize(other[:height, :width], (width, height))) / 255 for other in others)
            subject = next(each for each in resized if detect_edges(each)[mask > 0.5].mean() >= LEAST_TEXTURE)
        estimator, video = defocus_fast.Estimator(*seen), defocus_fast.VideoEstimator(*seen)
        burst = []
        for shot in range(SHOTS):
            radius = first + STEP * shot
            down, right = rng.integers(-pan, pan + 1, 2) if pan else (0, 0)
            top, left = least + down, least + right
            point = in_focus = None
            if subject is None:
                taken = blurred(light ** np.float32(camera.gamma), np.full(light.shape[:2], radius), camera.aperture)
                image = photograph(taken[top : top + seen[0], left : left + seen[1]], camera, rng)
            else:
                missed = kind.endswith("missed")
                background = max(LEAST, first + behind - STEP * 2 * shot) if missed else first + SHOTS * STEP + behind
                layers = [
                    Layer(
                        light, np.ones(light.shape[:2], np.float32), np.full(light.shape[:2], background, np.float32)
                    ),
                    Layer(subject, mask, np.full(light.shape[:2], radius, np.float32)),
                ]
                # The same margin on all sides; the pan is of what lies before the camera.
                moved = [_moved(layer, down, right) for layer in layers]
                image = render(moved, camera, rng, least).image
                if missed:
                    point = (
                        (centre[1] * width + right - least) / seen[1],
                        (centre[0] * height + down - least) / seen[0],
                    )
                else:
                    in_focus = moved[1].mask[least:-least, least:-least] > 0.5
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            video.reset()
            told = video.estimate_focus(grey)
            rows, columns = told.region_radius.shape
            focus = told.region_radius[int(point[1] * rows), int(point[0] * columns)] if point else told.radius
            result = estimator.estimate(image, expected_error=True)
            burst.append(Shot(radius, result, point, in_focus, grey, float(focus)))
        yield burst


def _moved(layer: Layer, down: int, right: int) -> Layer:
    return Layer(*(np.roll(array, (down, right), (0, 1)) for array in (layer.texture, layer.mask, layer.radius)))


def region_of(shot: Shot) -> culling.Region | None:
    return None if shot.point is None else culling.region_of((*shot.point, 0, 0), shot.grey.shape)


def measured(shot: Shot, percentile: float) -> tuple[float, float] | None:
    """Return the radius and the error that cull tells, px."""
    found = culling.radius_in(shot.result, region_of(shot), percentile)
    return (found.radius, found.error) if found else None


Measure = Callable[[Shot], float]  # less for what is sharper; NaN: it tells nothing


def of_grey(measure: Callable[[Array], float]) -> Measure:
    """Of the region that cull takes."""

    def of_shot(shot: Shot) -> float:
        at = region_of(shot)
        return measure(shot.grey[at.y : at.y + at.height, at.x : at.x + at.width] if at else shot.grey)

    return of_shot


def blurdetect(**options: float) -> Measure:
    return of_grey(lambda grey: Blurdetect(*grey.shape, **options)(frame_of(grey)))


def gradient_energy(grey: Array) -> float:
    return float(np.mean(cv2.Sobel(grey, cv2.CV_64F, 1, 0) ** 2 + cv2.Sobel(grey, cv2.CV_64F, 0, 1) ** 2))


TRIED = {f"blurdetect, high={high:g}": blurdetect(high=high, low=high / 2) for high in (0.04, 0.08, 0.16)} | {
    f"blurdetect, high={high:g}, blocks of {side}, {percent} %": blurdetect(
        high=high, low=high / 2, block_width=side, block_height=side, block_pct=percent
    )
    for high, side, percent in itertools.product((0.08, 0.12), (16, 32, 64), (15, 50, 80))
}
BEST = (
    "blurdetect, high=0.08",
    "blurdetect, high=0.12, blocks of 16, 50 %",
)  # chosen with --validation, without and with blocks
MEASURES: dict[str, Measure] = {
    "`cull`": lambda shot: (measured(shot, culling.PERCENTILE) or (np.nan,))[0],
    "`estimate_focus`": lambda shot: shot.focus,
    "blurdetect": blurdetect(),
    **{name: TRIED[name] for name in BEST},
    "variance of the Laplacian": of_grey(lambda grey: -cv2.Laplacian(grey, cv2.CV_64F).var()),
    "mean square of the Sobel gradient": of_grey(lambda grey: -gradient_energy(grey)),
}


@dataclass
class Order:
    """What became of one kind of bursts."""

    right: list[int]  # pairs in the right order, by RANGES
    pairs: list[int]  # pairs with two radii, by RANGES
    unknown: int  # pairs of which one has no radius
    actual: list[float]  # |radius - true radius|, px, of every shot
    expected: list[float]  # px
    hits: list[bool]  # whether the centre of the sharpest square lies in the subject, where there is one
    radii: list[list[float]]  # (bursts, SHOTS) px, true
    figures: dict[str, list[list[float]]]  # (bursts, SHOTS) of each measure

    @property
    def share(self) -> float:
        return sum(self.right) / max(sum(self.pairs), 1)

    def shares(self, measure: str) -> tuple[float, float]:
        """Of the pairs of one burst, and of those of two bursts whose radii are STEP apart or more, those that the
        measure puts in the right order. A pair is not where the measure tells nothing of one of both."""
        radii, told = np.ravel(self.radii), np.ravel(self.figures[measure])
        burst = np.repeat(np.arange(len(self.radii)), SHOTS)
        together, apart = burst[:, None] == burst, radii - radii[:, None]
        right = told[:, None] < told
        return right[together & (apart > 0)].mean(), right[~together & (apart >= STEP)].mean()


def order_of(
    found: Iterable[list[Shot]], percentile: float = culling.PERCENTILE, measures: Mapping[str, Measure] = MEASURES
) -> Order:
    order = Order([0] * (len(RANGES) - 1), [0] * (len(RANGES) - 1), 0, [], [], [], [], {name: [] for name in measures})
    for burst in found:
        order.radii.append([shot.radius for shot in burst])
        for name, measure in measures.items():
            order.figures[name].append([measure(shot) for shot in burst])
        told = [measured(shot, percentile) for shot in burst]
        for shot, radius in zip(burst, told, strict=True):
            if radius:
                order.actual.append(abs(radius[0] - shot.radius))
                order.expected.append(radius[1])
            square = culling.sharpest_region(shot.result) if shot.subject is not None else None
            if square:
                at = square.region
                order.hits.append(bool(shot.subject[at.y + at.height // 2, at.x + at.width // 2]))
        for i, j in itertools.combinations(range(len(burst)), 2):  # the radius of j is the larger one
            one, other = told[i], told[j]
            if not one or not other:
                order.unknown += 1
                continue
            place = int(np.digitize(burst[i].radius, RANGES)) - 1
            order.pairs[place] += 1
            order.right[place] += one[0] < other[0]
    return order


def table(orders: dict[str, Order]) -> str:
    ranges = [f"from {low} px" for low in RANGES[:-1]]
    head = ["bursts", "pairs", "in the right order", *ranges, "pairs without a radius", "error px", "expected px"]
    head.append("sharpest square in the subject")
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for kind, order in orders.items():
        by_range = (f"{100 * a / b:.2f} %" if b else "-" for a, b in zip(order.right, order.pairs, strict=True))
        share = f"{100 * order.share:.2f} %"
        errors = f"{np.mean(order.actual):.3f}", f"{np.mean(order.expected):.3f}"
        hits = f"{100 * np.mean(order.hits):.1f} %" if order.hits else "-"
        lines.append([kind, f"{sum(order.pairs):,}", share, *by_range, f"{order.unknown:,}", *errors, hits])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def comparison(orders: dict[str, Order]) -> str:
    """What the measures give of the same shots."""
    names = [f"{kind}, {of}" for kind in orders for of in ("one burst", "two bursts")]
    lines = [["", *names], ["---"] + ["---:"] * len(names)]
    for measure in next(iter(orders.values())).figures:
        shares = (share for order in orders.values() for share in order.shares(measure))
        lines.append([measure, *(f"{100 * share:.2f} %" for share in shares)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def resolutions(photos: list[Array], limit: int | None) -> str:
    """Blurred photographs against their copies of half the size: the ratio of the radii as shares of the width."""
    lines = []
    for radius in (1.0, 2.0, 4.0, 8.0):
        ratios = []
        for photo in photos[:limit]:
            whole = photo[: photo.shape[0] // 4 * 4, : photo.shape[1] // 4 * 4]
            image = blurred(np.float32(whole), np.full(whole.shape[:2], radius))
            shares = []
            for scale in (1, 2, 4):
                size = whole.shape[1] // scale, whole.shape[0] // scale
                copy = np.uint8(np.rint(cv2.resize(image, size, interpolation=cv2.INTER_AREA)))
                found = culling.radius_in(defocus_fast.Estimator.for_image(copy).estimate(copy, expected_error=True))
                shares.append(found.radius / copy.shape[1] if found else np.nan)
            ratios.append([shares[1] / shares[0], shares[2] / shares[0]])
        lines.append([f"{radius:g}", *(f"{value:.2f}" for value in np.nanmedian(ratios, axis=0))])
    head = ["radius px", "reduced by 2", "reduced by 4"]
    lines = [head, ["---:"] * 3, *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def section(args: argparse.Namespace, photos: list[Array]) -> str:
    orders = {kind: order_of(bursts(kind, photos, args.limit)) for kind in KINDS}
    count = len(photos[: args.limit])
    return f"""\
## Order of bursts (`defocus-fast cull`)

Written by `bench/culling.py` on {datetime.date.today()}: {os.cpu_count()} cores, {platform.machine()}, defocus_fast
{defocus_fast.__version__}, model fast, precision {defocus_fast.Estimator(1, 1).precision}; percentile
{culling.PERCENTILE}, chosen on validation images. {count} photographs of the test split, and of each one burst of
{SHOTS} shots for every kind. The radii of a burst are {STEP} px apart, and its first is log-uniform from {LEAST} to
{MOST:g} px. Of two shots of a burst, is the one with the smaller true radius told to be the sharper? By ranges of that
radius, too. "error" is the mean of |told - true radius|, "expected" the mean of what `cull` tells after ±.

{table(orders)}
{"".join(f"- {kind}: {text}.{chr(10)}" for kind, text in KINDS.items())}
Other measures of the same shots: shares of pairs in the right order, as above and, "two bursts", of shots of different
photographs whose radii are {STEP} px apart or more, which is what a threshold for all photographs relies on. A pair is
wrong where a measure tells nothing of one of the two. `cull` reads colours, all others the grey image: `estimate_focus`
the radius that it tells of the frame, by its defaults and without the frames before; blurdetect is FFmpeg's filter, by
its defaults, and by settings chosen on validation images, without blocks and with them (`low` is half of `high`); the
last two are computed with OpenCV. Around the subject's centre they get the region that `cull` takes, and
`estimate_focus` tells of the region with the centre. Ours learnt from pictures that were blurred by the same program,
of other photographs.

{comparison(orders)}
Sharp subjects have edges at {100 * LEAST_TEXTURE:g} % of their pixels or more. A region has no radius where fewer than
{culling.LEAST_EDGES} edges are found: what is strongly blurred has few.

Radii as shares of the width, in copies reduced by 2 and by 4, against the photograph blurred by that radius: medians of
their ratios over the photographs, 1 where shares can be compared. No image is read sharper than about 0.5 px, so a
small copy of a sharp photograph has the larger share.

{resolutions(photos, args.limit)}"""


def write(args: argparse.Namespace) -> None:
    photos = load_images(args.images, "validation" if args.validation else "test").photos
    photos = [photo for photo in photos if min(photo.shape[:2]) >= 360]
    if args.validation:
        rounds = range(VALIDATION_ROUNDS)
        found = {kind: [burst for seed in rounds for burst in bursts(kind, photos, args.limit, seed)] for kind in KINDS}
        for percentile in (5, 10, 15, 20, 35, 50):
            print(f"percentile {percentile}")
            print(table({kind: order_of(each, percentile, {}) for kind, each in found.items()}), flush=True)
        print(comparison({kind: order_of(each, measures=MEASURES | TRIED) for kind, each in found.items()}))
        return
    text = section(args, photos)
    sections.write("culling", text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=existing, help="folder written by training.fetch")
    parser.add_argument("--limit", type=positive, help="take so many photographs only")
    parser.add_argument("--validation", action="store_true", help="compare settings on the validation split")
    run(parser, write)


if __name__ == "__main__":
    main()
