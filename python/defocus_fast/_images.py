# SPDX-License-Identifier: Apache-2.0
"""Images in files: photographs read as the arrays that the estimator takes, maps written for people and programs."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from cmap import Colormap
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ._colour import to_srgb
from ._files import MARK, RAW_SUFFIXES, check_regular
from ._raw import read_raw
from ._units import description

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
"""What is read. Pillow knows more formats, but some of them start other programs."""

UNITS_PER_PX = 500
"""Scale of the 16-bit PNG: value = radius in px * 500, which holds radii up to 131.07 px."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_photo(file: Path | IO[bytes], name: str = "") -> NDArray[Any]:
    """Return the image in a file as it is meant to be seen: (H, W) or (H, W, 3), uint8, or float32 in [0, 1].

    JPEG, PNG, TIFF and WebP, HEIC where pillow-heif is installed, RAW where rawpy is, which its name tells;
    of several frames the first. The orientation is applied, and colour profiles are, except to greyscale of more than
    8 bits: colours are sRGB. Transparent parts are laid on white. 16-bit greyscale becomes float32; 16-bit colour, HEIC
    of 10 bits and RAW are read with 8 bits.

    Args:
        file: its path, or the file itself, opened at its beginning.
        name: of an opened file.

    Raises:
        ModuleNotFoundError: the package that reads such files is not installed.
        OSError, ValueError: there is no such file, or it is a device or a pipe, or holds none of these images, or one
            that is cut off or has more than 178 million pixels (Pillow's guard against decompression bombs).
        Any other error that Pillow's decoders raise on broken files.
    """
    if isinstance(file, Path):
        check_regular(file)
        with open(file, "rb") as opened:
            return _read(opened, file.name)
    return _read(file, name)


def _read(file: IO[bytes], name: str) -> NDArray[Any]:
    if name.lower().endswith(RAW_SUFFIXES):  # many are TIFF files, too, with a small preview in them
        return read_raw(file)
    formats: tuple[str, ...] = FORMATS
    if _is_heic(file.read(12)):  # telephones and programs also give such files the suffix .jpg
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats = ("HEIF",)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pixel counts up to the error's limit, odd metadata: the pixels are fine
        try:
            with Image.open(file, formats=formats) as image:
                image.load()
                return _as_array(to_srgb(_upright(image)))
        except UnidentifiedImageError:
            if pixels := _tiff_pixels(file):
                accepted = "8 or 16 bits a channel, or of one channel of 1 bit or float32"
                raise ValueError(f"expected a TIFF file of {accepted}, got {pixels}") from None
            raise


def _tiff_pixels(file: IO[bytes]) -> str:
    """Return what the pixels of a TIFF file are, or "" of another file."""
    file.seek(0)
    head = file.read(8)
    if head[:4] in (b"II+\0", b"MM\0+"):  # BigTIFF
        head += file.read(8)
    try:
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        bits, kinds = tags[258], tags.get(339, (1,))
    except Exception:  # as many as there are ways to be broken
        return ""
    kind = {1: "whole numbers", 2: "whole numbers with a sign", 3: "floating point"}.get(kinds[0], "of another kind")
    return f"{len(bits)} of {'/'.join(map(str, dict.fromkeys(bits)))} bits, {kind}"


def _is_heic(head: bytes) -> bool:
    brands = b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"
    return head[4:8] == b"ftyp" and head[8:] in brands


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it also rewrites the metadata and so fails on images with odd tags.
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # unreadable metadata; the pixels are good
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _as_array(image: Image.Image) -> NDArray[Any]:
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        values: NDArray[Any] = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"expected greyscale of 1, 8 or 16 bits, got values in [{values.min()}, {values.max()}]")
        scaled: NDArray[np.float32] = values.astype(np.float32) / np.float32(65535)
        return scaled
    if image.mode == "F":
        return np.asarray(image, np.float32)  # the estimator checks that it is in [0, 1]
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("L" if grey else "RGB"))


def write_npy(file: IO[bytes], radii: NDArray[np.float32]) -> None:
    """Write a blur map, (H, W) float32 in px, as .npy."""
    # Not np.save, which does not say why a file cannot be written.
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(radii))
    file.write(radii.data)


def write_png(file: IO[bytes], blur: NDArray[np.float32], unit: str = "radius") -> None:
    """Write a blur map, (H, W) float32 in px, as 16-bit greyscale PNG; its text chunks tell the unit and the scale."""
    values = np.multiply(blur, UNITS_PER_PX, dtype=np.float32)
    np.rint(values, out=values)
    np.clip(values, 0, 65535, out=values)
    text = PngInfo()
    text.add_text("Description", f"{description(unit)}, in pixels = value / {UNITS_PER_PX}")
    text.add_text("blur_unit", unit)
    text.add_text("blur_units_per_px", str(UNITS_PER_PX))
    # Level 3 is three times as fast as Pillow's default and the files are as small to a few percent.
    Image.fromarray(values.astype(np.uint16)).save(file, "PNG", pnginfo=text, compress_level=3)


def write_deblurred(file: IO[bytes], photo: NDArray[Any]) -> None:
    """Write a deblurred photograph, (H, W) or (H, W, 3) uint8, or (H, W) float32 in [0, 1], as PNG; float32 as 16-bit
    greyscale."""
    pixels = photo if photo.dtype == np.uint8 else np.rint(photo * 65535).astype(np.uint16)
    text = PngInfo()
    text.add_text("Description", f"deblurred, with the {MARK}")
    Image.fromarray(pixels).save(file, "PNG", pnginfo=text, compress_level=3)


def write_tif(file: IO[bytes], blur: NDArray[np.float32], unit: str) -> None:
    """Write a blur map, (H, W) float32 in px, as TIFF of one float32 channel; ImageDescription tells the unit.

    It is not compressed: deflate makes it a sixth smaller, and its predictor for floats, not every program reads.
    """
    tags = {270: f"{description(unit)}, in pixels", 305: "defocus_fast"}
    Image.fromarray(blur).save(file, "TIFF", tiffinfo=tags)


def write_exr(file: IO[bytes], blur: NDArray[np.float32], unit: str) -> None:
    """Write a blur map, (H, W) float32 in px, as OpenEXR of one float32 channel, "Y", which viewers show as grey.

    The attributes "comments" and "blur_unit" tell the unit.

    Raises:
        ModuleNotFoundError: OpenEXR is not installed.
    """
    import OpenEXR  # type: ignore[import-not-found]  # it comes without types

    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "comments": f"{description(unit)}, in pixels",
        "blur_unit": f"{unit}, px",
    }
    OpenEXR.File(header, {"Y": np.ascontiguousarray(blur)}).write(file)


def write_mask(file: IO[bytes], blur: NDArray[np.float32], threshold: float, unit: str) -> None:
    """Write where the blur, (H, W) in px, is `threshold` or more as PNG of one bit: white is out of focus."""
    text = PngInfo()
    text.add_text("Description", f"white where {description(unit)}, in pixels, is at least {threshold:.6g}")
    Image.fromarray(blur >= threshold).save(file, "PNG", pnginfo=text)


def write_overlay(
    file: IO[bytes], photo: NDArray[Any], blur: NDArray[np.float32], top: float, unit: str = "radius"
) -> None:
    """Write the photograph, its blur map in colour over it, and a colour bar from 0 to `top` px, as JPEG.

    Colours follow the logarithm of the value + 1 px: they tell 0.5 from 1 px as they tell 10 from 14.

    Args:
        photo: (H, W) or (H, W, 3) as :func:`read_photo` returns it.
        blur: (H, W) float32, px; what exceeds `top` gets the last colour.
        top: end of the colour bar, px.
        unit: what `blur` is.
    """
    # Pillow writes a JPEG past Python to files, and takes no notice where a full disk cuts off its end.
    content = io.BytesIO()
    draw_overlay(photo, blur, top, unit).save(content, "JPEG", quality=90, subsampling=0, comment=description(unit))
    file.write(content.getbuffer())


_LONG_SIDE = 2048  # px, of the drawing
_LEAST_SIDE = 240  # px, the long side of an image in it: a smaller one is enlarged until there is something to see
_OPACITY = 0.75  # of the colours over the grey photograph


def draw_overlay(photo: NDArray[Any], blur: NDArray[np.float32], top: float, unit: str = "radius") -> Image.Image:
    """Return the drawing of :func:`write_overlay`: at most 2048 px, images side by side, or, wide ones, stacked."""
    height, width = blur.shape
    stacked = width > height
    gap = 16
    room = _LONG_SIDE - 290, _LONG_SIDE - 3 * gap  # without the bar and its text at their largest, and the margins
    down = min(room[0] / (width if stacked else 2 * width), room[1] / (2 * height if stacked else height))
    scale = min(down, max(1.0, _LEAST_SIDE / max(height, width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))

    picture = resize(as_image(photo), size).convert("RGB")
    resized = np.asarray(resize(Image.fromarray(blur), size))
    colours = Colormap("plasma").lut(256)[:, :3]
    levels = np.clip(place(resized, top) * 255, 0, 255).astype(np.uint8)
    grey = np.asarray(ImageOps.autocontrast(picture.convert("L"), cutoff=1), np.float32)[..., None] / 255
    blend = _OPACITY * colours[levels] + (1 - _OPACITY) * grey
    coloured = Image.fromarray(np.rint(blend * 255).astype(np.uint8))

    text_px = min(32, max(14, max(size) // 50))
    font = ImageFont.load_default(text_px)
    bar_width = 2 * text_px
    pictures = (size[0], 2 * size[1] + gap) if stacked else (2 * size[0] + gap, size[1])
    bar_height = max(pictures[1] - 3 * text_px, 160)
    caption = f"blur {unit}, px"
    canvas_size = (
        pictures[0] + max(round(font.getlength(caption)), bar_width + 3 * text_px) + 3 * gap,
        max(pictures[1], bar_height + 3 * text_px) + 2 * gap,
    )
    canvas = Image.new("RGB", canvas_size, "white")
    canvas.paste(picture, (gap, gap))
    canvas.paste(coloured, (gap, 2 * gap + size[1]) if stacked else (2 * gap + size[0], gap))

    # The bar is as blended as the image, over mid grey, so that its colours are the ones to be found there.
    ramp = np.rint((_OPACITY * colours + (1 - _OPACITY) * 0.5) * 255).astype(np.uint8)[::-1, None]
    left, upper = pictures[0] + 2 * gap, gap + 2 * text_px
    canvas.paste(Image.fromarray(ramp).resize((bar_width, bar_height), Image.Resampling.NEAREST), (left, upper))
    draw = ImageDraw.Draw(canvas)
    draw.text((left, gap), caption, "black", font, anchor="lt")
    for value in _ticks(top):
        y = upper + round((1 - float(place(value, top))) * (bar_height - 1))
        draw.line((left + bar_width, y, left + bar_width + text_px // 3, y), "black", max(1, text_px // 12))
        draw.text((left + bar_width + text_px // 2, y), f"{value:g}", "black", font, anchor="lm")
    return canvas


def as_image(photo: NDArray[Any]) -> Image.Image:
    """Return a photograph as :func:`read_photo` returns it with 8 bits."""
    return Image.fromarray(photo if photo.dtype == np.uint8 else np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8))


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    enlarged = size[0] > image.width or size[1] > image.height
    return image.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX)


def place(blur: Any, top: float) -> Any:
    """Return where a value, px, is on the colour bar from 0 to `top`: in [0, 1] unless beyond."""
    return np.log1p(blur) / np.log1p(top)


def _ticks(top: float) -> list[int]:
    """Return 0 and the powers of two up to `top`, px."""
    return [0, *(2**power for power in range(int(np.log2(top)) + 1))]
