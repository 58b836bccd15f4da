# SPDX-License-Identifier: Apache-2.0
"""Colours of photographs as sRGB, whatever colour space their files are in."""

from __future__ import annotations

import functools
import io
import struct

import numpy as np
from PIL import Image, ImageCms

_EXIF, _INTEROPERABILITY, _INDEX = 0x8769, 0xA005, 1
_LEVELS = np.arange(256, dtype=np.uint8)
_ADOBE_RGB = "R03"  # the interoperability index of Exif's "option file set" (DCF 2.0), which names Adobe RGB


def to_srgb(image: Image.Image) -> Image.Image:
    """Return the image with its colours in sRGB; the same one if they are.

    The colour space is that of the ICC profile, or Adobe RGB where Exif says so, as of cameras that embed no profile.
    It is sRGB where neither tells, and where the profile is damaged or of another kind of image. Colours that sRGB
    does not have become the nearest that it has. A profile that changes no colour by more than one level of 255 is
    not applied. Greyscale with more than 8 bits is returned as it is.
    """
    profile = image.info.get("icc_profile") or (_adobe_rgb() if _says_adobe_rgb(image) else None)
    if not profile:
        return image
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    bands = {"L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB", "CMYK": "CMYK"}.get(image.mode)
    if bands is None:
        return image
    samples = _LEVELS[None] if bands == "L" else np.stack(np.meshgrid(*3 * [_LEVELS[::15]]), -1).reshape(1, -1, 3)
    try:
        transform = ImageCms.buildTransform(
            io.BytesIO(profile),
            ImageCms.createProfile("sRGB"),
            bands,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            # LittleCMS's optimization loses the dark end of greyscale's tone curves.
            ImageCms.Flags.NOOPTIMIZE if bands == "L" else ImageCms.Flags.NONE,
        )
    except (ImageCms.PyCMSError, OSError):
        return image
    if bands != "CMYK":
        changed = np.asarray(transform.apply(Image.fromarray(samples)))
        if np.abs(changed - np.atleast_3d(samples).astype(np.int16)).max() <= 1:
            return image
    if bands == "L":
        colours = image.getchannel(0).point(changed[0, :, 0].tolist())
    else:
        colours = transform.apply(image.convert(bands))
    if image.mode in ("LA", "RGBA"):
        colours.putalpha(image.getchannel("A"))
    return colours


def _says_adobe_rgb(image: Image.Image) -> bool:
    try:
        return bool(image.getexif().get_ifd(_INTEROPERABILITY).get(_INDEX) == _ADOBE_RGB)
    except Exception:  # unreadable metadata; the pixels are good
        return False


@functools.cache
def _adobe_rgb() -> bytes:
    """Return Adobe RGB (1998) as an ICC profile of version 2 (ICC.1:2001-04)."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    d50 = 0.9642, 1.0, 0.8249
    # Adobe RGB (1998) Color Image Encoding, version 2005-05: the primaries' XYZ, adapted to D50; gamma is 2 + 51 / 256.
    points = {
        b"wtpt": d50,
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }
    curve = b"curv" + struct.pack(">IIBBH", 0, 1, 2, 51, 0)
    name = b"RGB\0"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(name)) + name + bytes(78),
        b"cprt": b"text" + bytes(4) + name,
        **{key: b"XYZ " + bytes(4) + fixed(*xyz) for key, xyz in points.items()},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for key, content in tags.items():
        table += key + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = struct.pack(">I", start + len(data))
    header = (
        size + bytes(4) + b"\2\x10\0\0" + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + fixed(*d50) + bytes(48)
    )
    return header + table + data
