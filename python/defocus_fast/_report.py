# SPDX-License-Identifier: Apache-2.0
"""A page about photographs and their blur maps, which a browser shows without anything else: `_report.html` filled."""

from __future__ import annotations

import base64
import datetime
import io
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from cmap import Colormap
from numpy.typing import NDArray
from PIL import Image

from ._images import as_image, place, resize
from ._units import FACTORS, description

TOP = 64  # px of radius, the end of the colours and of the histograms, which are the same for all photographs
BINS = 48  # of a histogram, of equal width on the scale of the colours
_SIDE = 480  # px, the longer one, of a picture
_MANY = 1000  # photographs; of more, pictures are smaller, so that the page is not larger


@dataclass
class Entry:
    """What the page tells about a photograph.

    Attributes:
        name: as it is shown.
        width, height: px.
        least, median, largest: of the map, px of radius.
        shares: of the pixels, by BINS.
        photo, map: data URIs of the pictures.
        edges: that were read.
        ms: that the map took; None where it is of an earlier run.
    """

    name: str
    width: int
    height: int
    least: float
    median: float
    largest: float
    shares: NDArray[np.float64]
    photo: str
    map: str
    edges: int
    ms: float | None = None

    @property
    def outline(self) -> str:
        """The histogram as a path of SVG, BINS wide and 100 high."""
        return _outline(self.shares)


def picture_side(photos: int) -> int:
    """Return how long the longer side of a picture may be, px, on a page of so many photographs."""
    return max(96, round(_SIDE * math.sqrt(min(1.0, _MANY / max(photos, 1)))))


def make_entry(
    name: str,
    photo: NDArray[Any],
    radii: NDArray[np.float32],
    scores: Mapping[str, int | float],
    side: int,
    ms: float | None = None,
) -> Entry:
    """Return what the page tells about a photograph.

    Args:
        photo: (H, W) or (H, W, 3) as :func:`._images.read_photo` returns it.
        radii: (H, W) float32, px.
        scores: of the map, as :meth:`.BlurMap.scores` names them.
        side: px, of the longer side of the pictures.
        ms: that the map took.
    """
    height, width = radii.shape
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    levels = place(np.asarray(resize(Image.fromarray(radii), size)), TOP)
    coloured = _colours()[np.clip(levels * 255, 0, 255).astype(np.uint8)]
    bins = np.log1p(radii)
    bins *= BINS / np.log1p(TOP)
    np.minimum(bins, BINS - 1, out=bins)
    counts = Image.fromarray(bins.astype(np.uint8)).histogram()[:BINS]
    return Entry(
        name,
        width,
        height,
        least=scores["min_px"],
        median=scores["median_px"],
        largest=scores["max_px"],
        edges=int(scores["edges"]),
        ms=ms,
        shares=np.array(counts) / radii.size,
        photo=_data_uri(resize(as_image(photo), size), 70),
        map=_data_uri(Image.fromarray(coloured), 60),
    )


def write_page(
    file: IO[bytes], entries: list[Entry], failures: list[tuple[str, str]], settings: dict[str, str], unit: str
) -> None:
    """Write the page.

    Args:
        failures: names of photographs without a map, and why.
        settings: names and values, as they are shown.
        unit: in which numbers are shown.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
    """
    import jinja2

    template = Path(__file__).with_name("_report.html").read_text(encoding="utf-8")
    # Names of files are text of strangers: everything is escaped.
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    factor = FACTORS[unit]
    colours = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in _colours()]
    for part in page.generate(
        entries=entries,
        failures=failures,
        settings=settings,
        unit=unit,
        factor=factor,
        description=description(unit),
        made=datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        nonce=secrets.token_urlsafe(),
        bins=BINS,
        outline_of_all=_outline(np.mean([entry.shares for entry in entries], axis=0)) if entries else "",
        gradient=colours[::15],
        ticks=[(float(place(radius, TOP)), radius * factor) for radius in (0, 0.5, 1, 2, 4, 8, 16, 32, 64)],
    ):
        file.write(part.encode())


def _colours() -> NDArray[np.uint8]:
    """Return the (256, 3) colours from 0 px to TOP."""
    colours: NDArray[np.uint8] = np.rint(Colormap("plasma").lut(256)[:, :3] * 255).astype(np.uint8)
    return colours


def _outline(shares: NDArray[np.float64]) -> str:
    tops = 100 - 100 * shares / shares.max()
    return "M0 100" + "".join(f"V{top:.0f}h1" for top in tops) + "V100z"


def _data_uri(picture: Image.Image, quality: int) -> str:
    content = io.BytesIO()
    picture.convert("RGB").save(content, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(content.getbuffer()).decode()
