# SPDX-License-Identifier: Apache-2.0
"""Measure by how much maps change where the camera turns by whole pixels, and write the section of ACCURACY.md about
it: ``python bench/pans.py SCENES``, a folder written by training.scenes."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import report
import sections
from numpy.typing import NDArray

import defocus_fast
from defocus_fast import _images

PANS = (1, 2, 3, 4)  # px
MARGIN = 16  # px at the border, where the two frames show different things
VARIANTS: dict[str, dict[str, Any]] = {
    "all octaves": {},
    'all, `grid="corner"`': {"grid": "corner"},
    "one octave": {"octaves": 1},
}


def changes(image: NDArray[np.uint8], model: str, options: dict[str, Any]) -> list[float]:
    """Return the mean change of the map, px, by pan."""
    height, width = image.shape[0], image.shape[1] - max(PANS)
    estimator = defocus_fast.Estimator(height, width, model=model, device="cpu", **options)
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
    parser.add_argument("--model", action="append", default=[], help="of others than fast nothing is written")
    args = parser.parse_args()
    images = [_images.read_photo(file) for file in sorted(args.scenes.glob("*.png"))]
    rows = []
    for model in args.model or ["fast"]:
        for variant, options in VARIANTS.items():
            means = np.mean([changes(image, model, options) for image in images], axis=0)
            cells = [Path(model).name, variant, *(f"{mean:.3f}" for mean in means)]
            rows.append(cells)
            print(*cells, sep=" | ", flush=True)
    if args.model:
        return
    head = ["model", "options", *(f"{pan} px" for pan in PANS)]
    text = f"""## Whole-pixel pans

Written by `bench/pans.py` of {len(images)} scenes of `{args.scenes.name}` on {datetime.date.today()}, defocus_fast
{defocus_fast.__version__}. Mean change of the map, px, where the same is seen some columns further to the left;
{MARGIN} px at the border do not count. Where the grid is at the corner, models of cells of 3 x 3 px may answer
otherwise because the cells lie elsewhere, and every model because the pixels of coarse octaves do. What is left
otherwise comes from the borders, at which a view that has moved has other edges.

{report.table(head, rows)}"""
    sections.write("pans", text)


if __name__ == "__main__":
    main()
