# SPDX-License-Identifier: Apache-2.0
"""How plots are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import defocus_fast
from defocus_fast import _images


def save(figure: Any, file: Path) -> None:
    """Write a Matplotlib figure as a PNG of 32 colours, which takes a few kB."""
    figure.set_dpi(120)
    figure.canvas.draw()
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB").quantize(32).save(file, optimize=True)


def photos(folder: Path, file: Path, variants: dict[str, dict[str, Any]]) -> None:
    """Draw photographs and their maps by options of the estimator."""
    files = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
    columns = 1 + len(variants)
    figure, grid = plt.subplots(
        len(files), columns, figsize=(4.5 * columns, 3.1 * len(files)), layout="constrained", squeeze=False
    )
    for axes, path in zip(grid, files, strict=True):
        photo = _images.read_photo(path)
        axes[0].imshow(photo)
        axes[0].set_title(path.stem, fontsize=8)
        for place, (title, options) in zip(axes[1:], variants.items(), strict=True):
            radii = defocus_fast.Estimator.for_image(photo, **options).estimate(photo).map
            drawn = place.imshow(np.log2(radii + 0.5), vmin=0, vmax=6, cmap="viridis")
            place.set_title(title, fontsize=8)
        bar = figure.colorbar(drawn, ax=place, label="px", ticks=[np.log2(r + 0.5) for r in (0.5, 2, 6, 12, 24, 48)])
        bar.ax.set_yticklabels(["0.5", "2", "6", "12", "24", "48"])
        for place in axes:
            place.axis("off")
    figure.savefig(file, dpi=100, pil_kwargs={"quality": 80})
    plt.close(figure)
