# SPDX-License-Identifier: Apache-2.0
"""What cameras note beside the image: when it was taken, where they focused, how large the sensor is."""

from __future__ import annotations

import datetime
import json
import math
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from ._files import RAW_SUFFIXES
from ._images import FORMATS

Box = tuple[float, float, float, float]
"""x, y, width, height, as shares of the image's sides; x and y are the left upper corner. A point has no size."""

_FULL_FRAME_DIAGONAL = 43.27  # mm, of 36 mm x 24 mm
_SENSOR_WIDTHS = 1.5, 120.0  # mm; what is beyond is no sensor's
_UNITS = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # mm, of FocalPlaneResolutionUnit
_SUBJECT_AREA, _SUBJECT_LOCATION = 0x9214, 0xA214
_EXIFTOOL_NAMES = {
    ExifTags.Base.Model: "Model",
    ExifTags.Base.BodySerialNumber: "SerialNumber",
    ExifTags.Base.Orientation: "Orientation",
    ExifTags.Base.DateTimeOriginal: "DateTimeOriginal",
    ExifTags.Base.SubsecTimeOriginal: "SubSecTimeOriginal",
    ExifTags.Base.ExifImageWidth: "ExifImageWidth",
    ExifTags.Base.ExifImageHeight: "ExifImageHeight",
    ExifTags.Base.FocalPlaneXResolution: "FocalPlaneXResolution",
    ExifTags.Base.FocalPlaneResolutionUnit: "FocalPlaneResolutionUnit",
    ExifTags.Base.FocalLength: "FocalLength",
    ExifTags.Base.FocalLengthIn35mmFilm: "FocalLengthIn35mmFormat",
    _SUBJECT_AREA: "SubjectArea",
    _SUBJECT_LOCATION: "SubjectLocation",
}
_MAKER_TAGS = (
    "FocusLocation", "FocusPixel", "AFPointPosition", "AFPointSelected", "AFImageWidth", "AFImageHeight",
    "AFAreaXPosition", "AFAreaYPosition", "AFAreaWidth", "AFAreaHeight", "AFAreaXPositions", "AFAreaYPositions",
    "AFAreaWidths", "AFAreaHeights", "AFPointsInFocus",
)  # fmt: skip


@dataclass(frozen=True)
class Metadata:
    """What is known of a photograph.

    Attributes:
        camera: model and serial number, as far as they are stored.
        taken: by the camera's clock, to fractions of a second where they are stored.
        focus: where the camera focused, of the image as it is seen.
        sensor_width: of the part of the sensor that the image shows, along the image's width as it is seen, mm.
    """

    camera: str = ""
    taken: datetime.datetime | None = None
    focus: Box | None = None
    sensor_width: float | None = None


def read_metadata(path: Path, size: tuple[int, int], exiftool: Mapping[str, Any] | None = None) -> Metadata:
    """Return what is stored in a photograph's EXIF and its maker's notes.

    What is not there, or makes no sense, is not known. Makers' notes go before EXIF's own tags about the focus.

    Args:
        path: of the photograph.
        size: its height and width in px as it is seen.
        exiftool: what :func:`exiftool_tags_of` has for it. Without it makers' notes are not known, and nothing is
            known of RAW files that are no TIFF files, such as CR3, ORF, RAF and RW2.
    """
    try:
        tags, orientation = _exif_of(path)
    except Exception:  # the image may be good, but nothing is known about it
        tags, orientation = {}, 1
    if exiftool and not tags:
        tags = {tag: exiftool[name] for tag, name in _EXIFTOOL_NAMES.items() if name in exiftool}
        orientation = tags.get(ExifTags.Base.Orientation, 1)
    turned = orientation in (5, 6, 7, 8)
    stored = size[::-1] if turned else size
    whole = _number(tags.get(ExifTags.Base.ExifImageHeight)), _number(tags.get(ExifTags.Base.ExifImageWidth))
    noted: tuple[float, float] = (whole[0], whole[1]) if whole[0] and whole[1] else stored
    # Tags about pixels are about the camera's image. A smaller copy has its proportions; another part of it has not.
    same_view = abs(noted[1] / noted[0] / (stored[1] / stored[0]) - 1) < 0.02
    focus = (_maker_focus(exiftool or {}) or _subject(tags, noted)) if same_view else None
    sensor = _sensor_width(tags, noted, stored) if same_view else None
    names = (ExifTags.Base.Model, ExifTags.Base.BodySerialNumber)
    return Metadata(
        camera=" ".join(text for name in names if (text := str(tags.get(name, "")).strip("\0 "))),
        taken=_taken(tags),
        focus=_as_seen(focus, orientation) if focus else None,
        sensor_width=sensor * stored[0] / stored[1] if sensor and turned else sensor,
    )


def _exif_of(path: Path) -> tuple[dict[int, Any], Any]:
    """Return EXIF's tags, and the orientation that turns the stored image into the one that is seen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.name.lower().endswith(RAW_SUFFIXES):  # Pillow knows such files' tags, but not the image
            with open(path, "rb") as raw:
                first = Image.Exif()
                first.load_from_fp(raw)
                tags: dict[int, Any] = {**first, **first.get_ifd(ExifTags.IFD.Exif)}
            return tags, tags.get(ExifTags.Base.Orientation, 1)
        with Image.open(path, formats=(*FORMATS, "HEIF")) as file:  # as which read_photo() has made HEIC files known
            first = file.getexif()
            tags = {**first, **first.get_ifd(ExifTags.IFD.Exif)}
            # pillow-heif turns the image itself, and says so.
            return tags, file.info.get("original_orientation") or tags.get(ExifTags.Base.Orientation, 1)


def _number(value: Any) -> float:
    """Return a tag's value as a finite number > 0, or 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return 0.0
    return number if 0 < number < float("inf") else 0.0


def _taken(tags: Mapping[int, Any]) -> datetime.datetime | None:
    text = str(tags.get(ExifTags.Base.DateTimeOriginal, "")).strip("\0 ")
    try:
        taken = datetime.datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    digits = str(tags.get(ExifTags.Base.SubsecTimeOriginal, "")).strip("\0 ")
    return taken + datetime.timedelta(seconds=float(f"0.{digits}")) if digits.isdecimal() else taken


def _subject(tags: Mapping[int, Any], whole: tuple[float, float]) -> Box | None:
    """Return EXIF's SubjectArea (a point, a circle or a rectangle around its centre) or SubjectLocation (a point)."""
    for tag in (_SUBJECT_AREA, _SUBJECT_LOCATION):
        try:
            found = tags.get(tag, ())
            values = [float(value) for value in (found.split() if isinstance(found, str) else found)]
        except (TypeError, ValueError, ArithmeticError):
            continue
        if 2 <= len(values) <= 4:
            width, height = (values[2], values[-1]) if len(values) > 2 else (0.0, 0.0)
            return _around(values[0], values[1], width, height, whole)
    return None


def _around(x: float, y: float, width: float, height: float, whole: tuple[float, float]) -> Box | None:
    """Return a rectangle of this centre and size, in units of which the image's height and width are `whole`."""
    if not (0 < x < whole[1] and 0 < y < whole[0] and 0 <= width <= whole[1] and 0 <= height <= whole[0]):
        return None
    return (x - width / 2) / whole[1], (y - height / 2) / whole[0], width / whole[1], height / whole[0]


def _as_seen(box: Box, orientation: Any) -> Box:
    """Return a rectangle of the stored image as one of the image that EXIF's orientation makes of it."""
    x, y, width, height = box
    if orientation in (5, 6, 7, 8):
        x, y, width, height = y, x, height, width
    if orientation in (2, 3, 6, 7):
        x = 1 - x - width
    if orientation in (3, 4, 7, 8):
        y = 1 - y - height
    return x, y, width, height


def _sensor_width(tags: Mapping[int, Any], whole: tuple[float, float], stored: tuple[float, float]) -> float | None:
    """Return how wide the sensor is that made the stored image, in mm.

    By the focal plane's resolution, unless that is off by a tenth from what the focal length's equivalent of 35 mm film
    says; some programs change one of the image's size and this resolution but not the other. The equivalent, which is
    by the diagonal, is stored as a whole number, so it is the less exact one.
    """
    unit = _UNITS.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))), 0.0)
    resolution = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
    by_resolution = whole[1] / resolution * unit if resolution else 0.0
    length, equivalent = (
        _number(tags.get(tag)) for tag in (ExifTags.Base.FocalLength, ExifTags.Base.FocalLengthIn35mmFilm)
    )
    diagonal: float = _FULL_FRAME_DIAGONAL * length / equivalent if equivalent else 0.0
    by_equivalent = diagonal * stored[1] / math.hypot(*stored)
    if by_resolution and by_equivalent and abs(by_resolution / by_equivalent - 1) > 0.1:
        by_resolution = 0.0
    width = by_resolution or by_equivalent
    return width if _SENSOR_WIDTHS[0] <= width <= _SENSOR_WIDTHS[1] else None


def exiftool_tags_of(paths: Iterable[Path]) -> dict[Path, Mapping[str, Any]]:
    """Return what ExifTool reads in photographs, under its names; nothing where it is not installed.

    It is the one program that knows the notes of all makers.
    """
    program = shutil.which("exiftool")
    # ExifTool reads the names from lines.
    files = {os.path.abspath(path): path for path in paths if "\n" not in str(path) and "\r" not in str(path)}
    if not program or not files:
        return {}
    wanted = dict.fromkeys((*_EXIFTOOL_NAMES.values(), *_MAKER_TAGS))
    command = [program, "-config", "", "-fast", "-json", "-n", *(f"-{tag}" for tag in wanted), "-@", "-"]
    answer = subprocess.run(command, input=os.fsencode("\n".join(files)), capture_output=True, check=False)
    try:
        return {files[tags["SourceFile"]]: tags for tags in json.loads(answer.stdout or b"[]")}
    except (ValueError, KeyError, TypeError):
        return {}


def _maker_focus(tags: Mapping[str, Any]) -> Box | None:
    """Return where the camera focused, of the image as it is stored, by the notes of Canon, Fujifilm, Nikon, Olympus,
    Panasonic and Sony."""
    try:
        return _maker_box(tags)
    except (KeyError, TypeError, ValueError):
        return None


def _maker_box(tags: Mapping[str, Any]) -> Box | None:
    # The tags' names are enough to know the maker.
    def numbers(name: str) -> list[float]:
        return [float(value) for value in str(tags[name]).split()]

    if "FocusLocation" in tags:  # Sony
        width, height, x, y = numbers("FocusLocation")
        return _around(x, y, 0, 0, (height, width))
    if "FocusPixel" in tags:  # Fujifilm
        x, y = numbers("FocusPixel")
        return _around(x, y, 0, 0, (float(tags["ExifImageHeight"]), float(tags["ExifImageWidth"])))
    if "AFPointPosition" in tags:  # Panasonic
        x, y = numbers("AFPointPosition")
        return _around(x, y, 0, 0, (1, 1))
    if "AFAreaXPosition" in tags:  # Nikon
        x, y, width, height = (
            float(tags.get(name, 0)) for name in ("AFAreaXPosition", "AFAreaYPosition", "AFAreaWidth", "AFAreaHeight")
        )
        return _around(x, y, width, height, (float(tags["AFImageHeight"]), float(tags["AFImageWidth"])))
    if "AFAreaXPositions" in tags:  # Canon: from the centre, on EOS cameras upwards
        whole = float(tags["AFImageHeight"]), float(tags["AFImageWidth"])
        bits = [int(word) >> bit & 1 for word in numbers("AFPointsInFocus") for bit in range(16)]
        xs, ys = numbers("AFAreaXPositions"), numbers("AFAreaYPositions")
        widths, heights = (
            numbers(several) if several in tags else [float(tags[one])] * len(xs)
            for one, several in (("AFAreaWidth", "AFAreaWidths"), ("AFAreaHeight", "AFAreaHeights"))
        )
        up = -1 if "EOS" in str(tags.get("Model")) else 1
        boxes = [
            box
            for lit, x, y, width, height in zip(bits, xs, ys, widths, heights, strict=False)
            if lit and (box := _around(whole[1] / 2 + x, whole[0] / 2 + up * y, width, height, whole))
        ]
        return _hull(boxes)
    if "AFPointSelected" in tags:  # Olympus; others have a single number here
        left, top, right, bottom = numbers("AFPointSelected")
        return _around((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, (1, 1))
    return None


def _hull(boxes: list[Box]) -> Box | None:
    if not boxes:
        return None
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return left, top, right - left, bottom - top
