# SPDX-License-Identifier: Apache-2.0
"""Measure by how much maps change where the camera turns by whole pixels, and write the section of ACCURACY.md about
it: ``python bench/pans.py SCENES``, a folder written by training.scenes."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import report
import sections
from numpy.typing import NDArray

import defocus_fast
from defocus_fast import _images

PANS = (1, 2, 3, 4, 6, 12)  # px
MARGIN = 16  # px at the border, where the two frames show different things


def changes(image: NDArray[np.uint8], model: str, octaves: int | None) -> list[float]:
    """Return the mean change of the map, px, by pan."""
    height, width = image.shape[0], image.shape[1] - max(PANS)
    estimator = defocus_fast.Estimator(height, width, model=model, octaves=octaves, device="cpu")
    maps = [estimator.estimate(image[:, x : x + width], expected_error=False).map for x in (0, *PANS)]
    inside = (slice(MARGIN, height - MARGIN), slice(MARGIN, width - MARGIN - max(PANS)))
    found = []
    for x, after in zip(PANS, maps[1:], strict=True):
        before = maps[0][:, x:]
        found.append(float(np.abs(before[inside] - after[:, : width - x][inside]).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--model", action="append", help="default: all shipped models")
    args = parser.parse_args()
    images = [_images.read_photo(file) for file in sorted(args.scenes.glob("*.png"))]
    rows = []
    for model in args.model or defocus_fast.shipped_models():
        for octaves in (1, None):
            means = np.mean([changes(image, model, octaves) for image in images], axis=0)
            cells = [Path(model).name, "1" if octaves else "all", *(f"{mean:.3f}" for mean in means)]
            rows.append(cells)
            print(*cells, sep=" | ", flush=True)
    if args.model:
        return
    head = ["model", "octaves", *(f"{pan} px" for pan in PANS)]
    text = f"""## Whole-pixel pans

Written by `bench/pans.py` of {len(images)} scenes of `{args.scenes.name}`. Mean change of the map, px, where the same
is seen some columns further to the left; {MARGIN} px at the border do not count. Models of cells of 3 x 3 px may
answer otherwise where the cells lie elsewhere; and with all octaves so may every model where the pan is no multiple of
a coarse octave's pixel.

{report.table(head, rows)}"""
    sections.write("pans", text)


if __name__ == "__main__":
    main()
