# SPDX-License-Identifier: Apache-2.0
"""Write the fixed test scenes: images never trained on, with dense exact ground truth; or scenes of the validation
images, on which the spreading of the radii was tuned, or of the training images, on which it was learned.

Per scene OUT/<number>_<form>.png (image) and .npy (float32 radius map, px, of the nearest layer at each pixel).
Half of the scenes are layered, a quarter layered over a slanted background, a quarter slanted only; every other scene
is clean (disk blur only), the rest carry random camera effects. ``--wide`` draws radii log-uniformly from 0.5 to 40 px,
and some of the layers have no texture. ``--largest`` is for the training of distances: what they learn should hold for
many kinds of pictures, so every scene has a largest radius of its own, and the radii below are uniform or their
logarithms are.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training import existing, positive, run
from training.synthesis import (
    CAMERAS,
    LEAST_RADIUS,
    RECOLOURED_SHARE,
    Images,
    Scene,
    detect_edges,
    load_images,
    random_scene,
    wide_radius,
)

FORMS = ("layered", "layered", "slanted", "layered_slanted")
SEED = {"test": 20_220_000, "validation": 20_220_001, "train": 20_220_002}


WIDE: dict[str, Any] = {"draw_radius": wide_radius, "untextured_share": 0.2, "margin": 44}


def varied(rng: np.random.Generator, low: float, high: float) -> dict[str, Any]:
    """Return the arguments of a scene whose largest radius, whose logarithm is uniform, lies between two, px."""
    most = float(np.exp(rng.uniform(math.log(low), math.log(high))))
    draws: tuple[Callable[[np.random.Generator], float], ...] = (
        lambda rng: float(np.exp(rng.uniform(math.log(0.4), math.log(most)))),
        lambda rng: float(rng.uniform(LEAST_RADIUS, most)),
    )
    return {
        "draw_radius": draws[rng.integers(2)],
        "untextured_share": 0.2 if rng.random() < 0.6 else 0.0,
        "margin": math.ceil(most) + 4,
    }


def fixed_scenes(
    images: Images,
    count: int,
    size: int,
    split: str,
    wide: bool = False,
    largest: tuple[float, float] | None = None,
) -> Iterator[tuple[str, Scene]]:
    """Yield (name, scene); scene n depends on n and the other arguments only."""
    least_edges = 0.005 if wide or largest else 0.03  # share of pixels: too few say nothing about an estimator
    for number in range(count):
        form = FORMS[number // 2 % len(FORMS)]
        for attempt in range(100):
            # The fixed scenes stay as they were; those to learn from are to differ between sizes.
            rng = np.random.default_rng([SEED[split], number, attempt, *([size] if largest else [])])
            kind = varied(rng, *largest) if largest else WIDE if wide else {}
            scene = random_scene(
                images,
                size,
                rng,
                layered_share=float(form != "slanted"),
                clean_share=float(number % 2 == 0),
                gradual_share=float("slanted" in form),
                recoloured_share=RECOLOURED_SHARE[split],
                draw_camera=CAMERAS[split],
                **kind,
            )
            # Layers outside the image make no layered scene.
            edges = detect_edges(np.float32(scene.image) / 255)
            if edges.mean() >= least_edges and np.ptp(scene.radius) >= 1:
                break
        yield f"{number:03d}_{form}", scene


def largest_radius(text: str) -> float:
    """Return the px that an argument gives; below 2 px layers could hardly differ, above 100 px kernels take long."""
    if not 2 <= (value := float(text)) <= 100:
        raise argparse.ArgumentTypeError(f"expected px from 2 to 100, got {text}")
    return value


def write(args: argparse.Namespace) -> None:
    """Write the scenes.

    Raises:
        ValueError: ``args.largest`` does not grow, or stands beside ``args.wide``.
    """
    if args.largest and (args.wide or args.largest[0] > args.largest[1]):
        raise ValueError("--largest: expected LOW <= HIGH, without --wide, got " + " ".join(map(str, args.largest)))
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    images = load_images(args.images, args.split, args.extra)
    for name, scene in fixed_scenes(images, args.count, args.size, args.split, args.wide, args.largest):
        cv2.imwrite(str(args.out / f"{name}.png"), scene.image[..., ::-1])
        np.save(args.out / f"{name}.npy", scene.radius)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=existing, help="folder written by training.fetch")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=SEED, default="test")
    parser.add_argument("--count", type=positive, default=64)
    parser.add_argument("--size", type=positive, default=360, help="side of a scene, px")
    parser.add_argument("--wide", action="store_true", help="radii up to 40 px; meant for sides of 1200 px and more")
    parser.add_argument(
        "--largest",
        type=largest_radius,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="px, between which the largest radius lies",
    )
    parser.add_argument("--extra", type=existing, help="folder with more sharp photographs")
    run(parser, write)


if __name__ == "__main__":
    main()
