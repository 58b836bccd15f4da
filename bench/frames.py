# SPDX-License-Identifier: Apache-2.0
"""Measure what the formats of cameras' frames cost in accuracy, and write the section of ACCURACY.md about it:
``python bench/frames.py SCENES``, a folder written by training.scenes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import sections
from numpy.typing import NDArray

import defocus_fast
from defocus_fast import Frame, _images

Picture = NDArray[np.uint8]


def to_yuv(image: Picture) -> NDArray[np.float64]:
    """BT.601, limited range, not rounded."""
    red, green, blue = np.moveaxis(image / 255.0, 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([16 + 219 * luma, 128 + 224 * (blue - luma) / 1.772, 128 + 224 * (red - luma) / 1.402], axis=-1)


def stored(values: NDArray[np.float64]) -> Picture:
    return np.round(values).astype(np.uint8)


def mean_colours(yuv: NDArray[np.float64], down: int) -> NDArray[np.float64]:
    """The U and V that `down` x 2 pixels share."""
    height, width = yuv.shape[:2]
    return yuv[..., 1:].reshape(height // down, down, width // 2, 2, 2).mean(axis=(1, 3))


def interpolated(yuv: NDArray[np.float64]) -> Picture:
    """The image that NV12 stands for where U and V are interpolated linearly between the centres of their pixels."""
    height, width = yuv.shape[:2]
    luma = stored(yuv[..., 0]).astype(float) - 16
    colours = cv2.resize(stored(mean_colours(yuv, 2)).astype(np.float32), (width, height)).astype(float) - 128
    u, v = colours[..., 0], colours[..., 1]
    red, blue = luma / 219 + 1.402 * v / 224, luma / 219 + 1.772 * u / 224
    green = (luma / 219 - 0.299 * red - 0.114 * blue) / 0.587
    return stored(np.clip(255 * np.stack([red, green, blue], axis=-1), 0, 255))


def variants(image: Picture) -> dict[str, Any]:
    yuv = to_yuv(image)
    luma = stored(yuv[..., 0])
    yuyv = np.stack([luma, stored(mean_colours(yuv, 1)).reshape(luma.shape)], axis=-1)
    return {
        "red, green and blue": image,
        '"yuyv"': Frame(yuyv, "yuyv"),
        '"nv12"': Frame((luma, stored(mean_colours(yuv, 2))), "nv12"),
        "NV12, converted with interpolated colours": interpolated(yuv),
        'Y alone, "gray8" of limited range': Frame(luma, "gray8", range="limited"),
        "Y alone, taken for full range": luma,
    }


def section(scenes: list[Path], models: list[str]) -> str:
    rows = []
    for model in models:
        errors: dict[str, list[float]] = {}
        edges: dict[str, list[int]] = {}
        for file in scenes:
            image, truth = _images.read_photo(file), np.load(file.with_suffix(".npy"))
            estimator = defocus_fast.Estimator.for_image(image, model=model)
            for name, frame in variants(image).items():
                result = estimator.estimate(frame)
                errors.setdefault(name, []).append(float(np.abs(result.map - truth).mean()))
                edges.setdefault(name, []).append(len(result.edges))
        base = float(np.mean(errors["red, green and blue"]))
        for name, found in errors.items():
            mean = float(np.mean(found))
            rows.append(
                f"| {model} | {name} | {mean:.3f} | {100 * (mean / base - 1):+.1f} % | {np.mean(edges[name]):,.0f} |"
            )
    table = "\n".join(
        ["| model | the frame | raw MAE px | change | edges |", "| --- | --- | ---: | ---: | ---: |", *rows]
    )
    return f"""## Frames as cameras give them, and grey pictures

Written by `bench/frames.py`. {len(scenes)} test scenes, 8 bits, as a camera would give them: BT.601
of limited range, U and V means of the pixels that share them. [What the formats stand for](docs/frames.md) has the
formulas.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--models", nargs="+", default=defocus_fast.shipped_models())
    args = parser.parse_args()
    scenes = sorted(args.scenes.glob("*.png"))
    text = section(scenes, args.models)
    sections.write("frames", text)
    print(text)


if __name__ == "__main__":
    main()
