# SPDX-License-Identifier: Apache-2.0
"""Write the fixed test scenes: images never trained on, with dense exact ground truth; or scenes of the validation
images, on which the spreading of the radii was tuned, or of the training images, on which it was learned.

Per scene OUT/<number>_<form>.png (image) and .npy (float32 radius map, px, of the nearest layer at each pixel).
Half of the scenes are layered, a quarter layered over a slanted background, a quarter slanted only; every other scene
is clean (disk blur only), the rest carry random camera effects. ``--wide`` draws radii log-uniformly from 0.5 to 40 px,
and some of the layers have no texture.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training import existing, positive, run
from training.synthesis import CAMERAS, RECOLOURED_SHARE, Images, Scene, load_images, random_scene, wide_radius

FORMS = ("layered", "layered", "slanted", "layered_slanted")
SEED = {"test": 20_220_000, "validation": 20_220_001, "train": 20_220_002}


WIDE: dict[str, Any] = {"draw_radius": wide_radius, "untextured_share": 0.2, "margin": 44}


def fixed_scenes(images: Images, count: int, size: int, split: str, wide: bool = False) -> Iterator[tuple[str, Scene]]:
    """Yield (name, scene); scene n depends on n and the other arguments only."""
    least_edges = 0.005 if wide else 0.03  # share of the pixels: too few edges say nothing about an estimator
    for number in range(count):
        form = FORMS[number // 2 % len(FORMS)]
        for attempt in range(100):
            scene = random_scene(
                images,
                size,
                np.random.default_rng([SEED[split], number, attempt]),
                layered_share=float(form != "slanted"),
                clean_share=float(number % 2 == 0),
                gradual_share=float("slanted" in form),
                recoloured_share=RECOLOURED_SHARE[split],
                draw_camera=CAMERAS[split],
                **(WIDE if wide else {}),
            )
            # Layers outside the image make no layered scene.
            if (scene.kind > 0).mean() >= least_edges and np.ptp(scene.radius) >= 1:
                break
        yield f"{number:03d}_{form}", scene


def write(args: argparse.Namespace) -> None:
    """Write the scenes."""
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    images = load_images(args.images, args.split, args.extra)
    for name, scene in fixed_scenes(images, args.count, args.size, args.split, args.wide):
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
    parser.add_argument("--extra", type=existing, help="folder with more sharp photographs")
    run(parser, write)


if __name__ == "__main__":
    main()
