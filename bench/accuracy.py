# SPDX-License-Identifier: Apache-2.0
"""Accuracy on pictures with known blur: ``python bench/accuracy.py FOLDER [--model MODEL ...]``.

FOLDER holds NAME.png beside NAME.npy, the (H, W) float32 radius in px of every pixel, e.g. the test scenes that
``python -m training.scenes`` writes. Prints, per model and group of pictures (the NAME after its first "_"), the
paper's raw MAE: the mean over pictures of the mean absolute difference in px, and its standard deviation over pictures;
beside it the mean absolute difference of the radii read at pattern edges.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import defocus_fast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=["tip22"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--psi", type=float, default=100.0)
    parser.add_argument("--labels", default="posterior")
    arguments = parser.parse_args()
    pictures = sorted(path for path in arguments.folder.glob("*.png") if path.with_suffix(".npy").is_file())
    if not pictures:
        parser.error(f"no NAME.png beside NAME.npy in {arguments.folder}")

    table = Table(
        title=f"{len(pictures)} pictures, psi {arguments.psi:g}, {arguments.labels} labels, {datetime.date.today()}"
    )
    for column in ("model", "group", "pictures", "raw MAE px", "std", "MAE at edges px"):
        table.add_column(column, justify="left" if column in ("model", "group") else "right")
    for model in arguments.model:
        estimator = None
        groups: dict[str, list[tuple[float, float]]] = {}
        for path in pictures:
            image, truth = np.asarray(Image.open(path).convert("RGB")), np.load(path.with_suffix(".npy"))
            if estimator is None or image.shape[:2] != (estimator.height, estimator.width):
                estimator = defocus_fast.Estimator.for_image(
                    image, model=model, precision=arguments.precision, psi=arguments.psi, labels=arguments.labels
                )
            result = estimator.estimate(image)
            pattern = result.edges[result.radii > 0]
            at_edges = np.abs(result.radii[result.radii > 0] - truth[pattern[:, 0], pattern[:, 1]])
            errors = float(np.abs(result.map - truth).mean()), float(at_edges.mean())
            for group in (path.stem.partition("_")[2] or "pictures", "all"):
                groups.setdefault(group, []).append(errors)
        for group, pairs in sorted(groups.items(), key=lambda item: item[0] == "all"):
            raw, edge = np.array(pairs).T
            numbers = [f"{len(raw)}", f"{raw.mean():.3f}", f"{raw.std():.3f}", f"{edge.mean():.3f}"]
            table.add_row(f"{model} ({estimator.precision})" if estimator else model, group, *numbers)
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
