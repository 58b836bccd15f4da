# SPDX-License-Identifier: Apache-2.0
"""How plots are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def save(figure: Any, file: Path) -> None:
    """Write a Matplotlib figure as a PNG of 32 colours, which takes a few kB."""
    figure.set_dpi(120)
    figure.canvas.draw()
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB").quantize(32).save(file, optimize=True)
