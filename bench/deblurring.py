# SPDX-License-Identifier: Apache-2.0
"""Measure what deblurring gains with the true map and with estimated ones (the paper's Table II), how long it takes and
how much memory: ``python bench/deblurring.py IMAGES --published PUBLISHED --json DEBLURRING.json``, which
bench/accuracy.py reads.

The scenes have the layers of ``training.scenes``, each twice: all of it sharp, which is the truth; and blurred by its
radii, with noise. ``--split validation --tune`` prints what the weights of ``defocus_fast.deblur`` gain there.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import defocus_fast
from defocus_fast import _deblur, _images, benchmark

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from training import existing, positive, run  # noqa: E402
from training.scenes import SEED, fixed_scenes  # noqa: E402
from training.synthesis import DEPTH_STEP, LEAST_RADIUS, MARGIN, Camera, load_images, render  # noqa: E402

Array = np.ndarray[Any, Any]
NOISE = 0.005  # standard deviation, of values in [0, 1]
SIZE = 360  # px
OUTLINE = 12  # px: twice the largest radii
LARGE = (3000, 4000)  # px, height and width


@dataclass
class Scene:
    sharp: Array  # (H, W, 3) uint8
    blurred: Array  # (H, W, 3) uint8
    radius: Array  # (H, W) float32, px


def scenes(folder: Path, split: str, count: int) -> Iterator[Scene]:
    fixed = fixed_scenes(load_images(folder, split), count, SIZE, split)
    for number, (_, scene) in enumerate(fixed):
        rng = np.random.default_rng([SEED[split], number])
        in_focus = [replace(layer, radius=np.full_like(layer.radius, LEAST_RADIUS)) for layer in scene.layers]
        sharp = render(in_focus, Camera(), rng, MARGIN).image
        yield Scene(sharp, render(scene.layers, Camera(read_noise=NOISE), rng, MARGIN).image, scene.radius)


def scores(scene: Scene, image: Array) -> tuple[float, float, float]:
    """Return PSNR in dB, SSIM, and PSNR away from outlines: at least OUTLINE px from where the radius jumps by 1 px."""
    box = np.ones((3, 3), np.uint8)
    jump = cv2.dilate(scene.radius, box) - cv2.erode(scene.radius, box) >= DEPTH_STEP
    away = cv2.dilate(jump.astype(np.uint8), np.ones((2 * OUTLINE + 1, 2 * OUTLINE + 1), np.uint8)) == 0
    return (
        float(peak_signal_noise_ratio(scene.sharp, image, data_range=255)),
        float(structural_similarity(scene.sharp, image, channel_axis=2, data_range=255)),
        float(peak_signal_noise_ratio(scene.sharp[away], image[away], data_range=255)),
    )


def table(args: argparse.Namespace, models: list[str]) -> tuple[list[dict[str, Any]], list[tuple[float, float]]]:
    """Return mean scores of the blurred scenes and of the deblurred ones by every map; and how long it took with that
    of `fast`."""
    estimators = {model: defocus_fast.Estimator(SIZE, SIZE, model=model) for model in models}
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ("blurred", "true", *models)}
    seconds: list[tuple[float, float]] = []  # by the clock, and of all threads together
    for scene in scenes(args.images, args.split, args.scenes):
        maps = {"true": scene.radius} | {name: each.estimate(scene.blurred).map for name, each in estimators.items()}
        measured["blurred"].append(scores(scene, scene.blurred))
        for name, radii in maps.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            image = defocus_fast.deblur(scene.blurred, radii, noise=NOISE)
            if name == "fast":
                seconds.append((time.perf_counter() - start, time.process_time() - cpu_start))
            measured[name].append(scores(scene, image))
    rows = []
    for name, values in measured.items():
        psnr, ssim, away = np.nanmean(values, axis=0).tolist()  # of some scenes nothing is away
        lost = float(np.mean([after[0] < before[0] for after, before in zip(values, measured["blurred"], strict=True)]))
        rows.append({"map": name, "psnr": psnr, "ssim": ssim, "away": away, "lost": lost})
    return rows, seconds


def large() -> dict[str, Any]:
    """Return seconds and peak memory of the command for the example photograph, mirrored out."""
    photo = benchmark.of_size(_images.read_photo(ROOT / "examples" / "otters.jpg"), *LARGE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.png"
        Image.fromarray(photo).save(file, compress_level=1)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "defocus_fast", "deblur", file, "-o", folder], check=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if peak == before:
        raise ValueError("another child process took more memory")
    return {"height": LARGE[0], "width": LARGE[1], "seconds": seconds, "peak_mb": peak * 1024 / 1e6}


def tune(args: argparse.Namespace) -> None:
    """Print the mean gains in dB with the true map and with that of `fast`."""
    settings = {"WEIGHT": (0.15, 0.3), "MISFIT": (0.0033, 0.005)}
    estimator = defocus_fast.Estimator(SIZE, SIZE)
    found = list(scenes(args.images, args.split, args.scenes))
    maps = [(scene.radius, estimator.estimate(scene.blurred).map) for scene in found]
    for values in itertools.product(*settings.values()):
        for name, value in zip(settings, values, strict=True):
            setattr(_deblur, name, value)
        gains = [
            [
                scores(scene, defocus_fast.deblur(scene.blurred, radii, noise=NOISE))[0]
                - scores(scene, scene.blurred)[0]
                for radii in both
            ]
            for scene, both in zip(found, maps, strict=True)
        ]
        true, fast = np.mean(gains, axis=0)
        told = ", ".join(f"{name} {value}" for name, value in zip(settings, values, strict=True))
        print(f"{told}: {true:.3f} dB, fast {fast:.3f} dB", flush=True)


def measure(args: argparse.Namespace) -> None:
    if args.tune:
        tune(args)
        return
    models = ["fast", "tip22", *([str(args.published)] if args.published else [])]
    rows, seconds = table(args, models)
    print(*rows, sep="\n", flush=True)
    wall, cpu = np.median(seconds, axis=0)
    facts = {
        "date": str(datetime.date.today()),
        "noise": NOISE,
        "outline": OUTLINE,
        "cores": os.cpu_count(),
        "split": args.split,
        "scenes": args.scenes,
    }
    published = str(args.published) if args.published else None
    result = facts | {"size": SIZE, "published": published, "rows": rows, "seconds": wall, "cpu_seconds": cpu}
    result["large"] = large()
    print(wall, cpu, result["large"])
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=existing, help="folder written by training.fetch")
    parser.add_argument("--published", type=existing, help="folder written by defocus-fast import-weights")
    parser.add_argument("--split", choices=SEED, default="test")
    parser.add_argument("--scenes", type=positive, default=64)
    parser.add_argument("--tune", action="store_true", help="try the weights instead")
    parser.add_argument("--json", type=Path, help="write all figures there")
    run(parser, measure)


if __name__ == "__main__":
    main()
