# SPDX-License-Identifier: Apache-2.0
"""Measure how large blur is read that is no disk, or that a camera has treated, and write the section of ACCURACY.md
about it: ``python bench/cameras.py IMAGES``, a folder written by training.fetch. Sharp photographs, reduced, are
blurred again by known radii. ``--split validation`` prints the table of other photographs, to choose by, and writes
nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import report
import sections
from numpy.typing import NDArray

import defocus_fast

sys.path.append(str(Path(__file__).parents[1]))
from training.synthesis import (
    MARGIN,
    Aperture,
    Camera,
    Images,
    Layer,
    Scene,
    load_images,
    photo_texture,
    render,
)

SIZE, COUNT = 300, 16  # px, pictures of each radius
RADII = (1.0, 2.0, 3.5, 5.0)  # px
CAMERAS = {
    "disk": Camera(),
    "Gaussian": Camera(aperture=Aperture(softness=4.5)),
    "polygon, 5 sides": Camera(aperture=Aperture(blades=5, angle=0.4)),
    "polygon, 8 sides": Camera(aperture=Aperture(blades=8)),
    "cat's eye": Camera(aperture=Aperture(eclipse=0.7, angle=0.6)),
    "ring, 0.4 of the radius dark": Camera(aperture=Aperture(obstruction=0.4)),
    "bright rim": Camera(aperture=Aperture(aberration=1.5)),
    "bright middle": Camera(aperture=Aperture(aberration=-1.5)),
    "disk in light, gamma 2.2": Camera(gamma=2.2),
    "noise": Camera(shot_noise=0.02, read_noise=0.01),
    "noise, smoothed": Camera(shot_noise=0.02, read_noise=0.01, denoising=0.07),
    "colour mosaic, interpolated": Camera(bayer=True),
    "sharpened": Camera(sharpening=0.5),
    "JPEG of quality 90": Camera(jpeg_quality=90, chroma_subsampling=True),
    "JPEG of quality 75": Camera(jpeg_quality=75, chroma_subsampling=True),
    "JPEG of quality 60": Camera(jpeg_quality=60, chroma_subsampling=True),
}


def scene(images: Images, camera: Camera, radius: float, number: int) -> Scene:
    rng = np.random.default_rng(number)
    full = SIZE + 2 * MARGIN
    ones = np.ones((full, full), np.float32)
    return render([Layer(photo_texture(images, full, rng), ones, radius * ones)], camera, rng)


def read(images: Images, camera: Camera, radius: float, estimator: defocus_fast.Estimator) -> NDArray[np.float32]:
    """Return what is read at the edges of all pictures, px."""
    found = [estimator.estimate(scene(images, camera, radius, number).image) for number in range(COUNT)]
    return np.concatenate([each.radii[each.depth_probability < 0.5] for each in found])


def table(images: Images, models: list[str]) -> str:
    head = ["picture", *(f"{model}: {radius:g} px" for model in models for radius in RADII)]
    rows = []
    estimators = [defocus_fast.Estimator(SIZE, SIZE, model=model, octaves=1) for model in models]
    for name, camera in CAMERAS.items():
        cells = [name]
        for estimator in estimators:
            for radius in RADII:
                radii = read(images, camera, radius, estimator)
                errors = np.abs(radii - radius)
                cells.append(f"{np.median(radii):.2f} ({errors.mean():.2f})" if len(radii) > 100 else "-")
        rows.append(cells)
        print(*cells, sep=" | ", flush=True)
    return report.table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--split", choices=["test", "validation"], default="test")
    parser.add_argument("--model", action="append", help="default: fast and tip22")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    found = table(load_images(args.images, args.split), args.model or ["fast", "tip22"])
    if args.split == "validation":
        return
    text = f"""## Blur that is no disk, and what cameras do

Written by `bench/cameras.py`. {COUNT} sharp photographs never trained on, reduced to be sharp at every pixel, of
{SIZE}x{SIZE} px, each blurred again; what is no disk has the disk's second moment. The median of what is read at edges
that are taken for no depth edges, px, and in brackets the mean error, at the image's own size (`octaves=1`).

{found}"""
    sections.write("cameras", text)


if __name__ == "__main__":
    main()
