# SPDX-License-Identifier: Apache-2.0
"""RAW files of cameras, developed by LibRaw."""

from __future__ import annotations

from typing import IO, Any, BinaryIO, cast

from numpy.typing import NDArray
from PIL import Image


def read_raw(file: IO[bytes]) -> NDArray[Any]:
    """Return a RAW file as a photograph, (H, W, 3) uint8 in sRGB, or (H, W) of a camera without colours.

    White balance as the camera stored it; turned as it says; brightness such that one pixel of a hundred is white, as
    LibRaw's defaults have it.

    Raises:
        ModuleNotFoundError: rawpy is not installed.
        ValueError: LibRaw cannot read the file, or it has more than 178 million pixels.
        OSError: the file cannot be read.
    """
    import rawpy

    try:
        with rawpy.imread(cast("BinaryIO", file)) as raw:
            pixels = raw.sizes.height * raw.sizes.width
            if Image.MAX_IMAGE_PIXELS and pixels > (most := 2 * Image.MAX_IMAGE_PIXELS):
                raise ValueError(f"expected at most {most} pixels, got {pixels}")
            photo: NDArray[Any] = raw.postprocess(use_camera_wb=True, gamma=(2.4, 12.92))
    except rawpy.LibRawError as error:
        why = error.args[0] if error.args else ""
        why = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise ValueError(f"LibRaw cannot read it: {why}") from None
    return photo[..., 0] if photo.shape[2] == 1 else photo
