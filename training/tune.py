# SPDX-License-Identifier: Apache-2.0
"""Tune how a model's answers are spread, on scenes with known radii that it was not trained on, and write the outcome
into its model.txt: the depth threshold of the smallest mean error in octaves, and the two numbers of the expected
error. Prints the errors for other values of sigma_r, psi and iterations too, which are the library's defaults for all
models. Every folder of scenes counts the same.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from defocus_fast import Estimator, _images, evaluation
from training import existing, fraction, run

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
BINS = 20
NEGLIGIBLE = 0.02  # px, of errors
PIXELS = 2_000_000  # of which the expected error is fitted

Scenes = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def maps(model: Path, scenes: Scenes, **options: float) -> list[Any]:
    """Return the answer for each scene; all have one size."""
    estimator = Estimator(*scenes[0][1].shape, model=model, **options)
    return [estimator.estimate(image) for image, _ in scenes]


def error(model: Path, folders: list[Scenes], **options: float) -> float:
    """Return the mean error, octaves."""
    means = [
        np.mean(
            [evaluation.octave_errors(result.map, truth) for result, (_, truth) in zip(results, scenes, strict=True)]
        )
        for scenes, results in ((scenes, maps(model, scenes, **options)) for scenes in folders)
    ]
    return float(np.mean(means))


def fit_expected_error(spread: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return (a, b) such that the mean of hypot(a, b * spread) is that of `actual` in bins of pixels of like spread,
    relative to it."""
    bins = np.array_split(np.argsort(spread), BINS)
    expected = np.array([actual[each].mean() for each in bins])

    def misfit(ab: np.ndarray[Any, Any]) -> float:
        found = np.array([np.hypot(ab[0], ab[1] * spread[each]).mean() for each in bins])
        return float((np.log((found + NEGLIGIBLE) / (expected + NEGLIGIBLE)) ** 2).sum())

    a, b = minimize(misfit, [0.2, 0.8], method="Nelder-Mead").x
    return abs(float(a)), abs(float(b))


def write(model: Path, **values: float) -> None:
    """Replace values in model.txt."""
    file = model / "model.txt"
    text = file.read_text(encoding="utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key}: .*$", f"{key}: {value:.3g}", text)
        if count != 1:
            raise ValueError(f"{file}: expected one line of {key}, got {count}")
    file.write_text(text, encoding="utf-8")


def read(folder: Path) -> Scenes:
    scenes = [
        (_images.read_photo(image), evaluation.read_truth(truth, 1.0))
        for image, truth in evaluation.pairs(folder, folder)[0]
    ]
    if not scenes:
        raise ValueError(f"{folder}: no scenes; write them with training.scenes")
    if len(sizes := {truth.shape for _, truth in scenes}) > 1:
        raise ValueError(f"{folder}: expected scenes of one size, got {sorted(sizes)}")
    return scenes


def tune(args: argparse.Namespace) -> None:
    """Print the errors, and write the best values into the model folder."""
    folders = [read(folder) for folder in args.scenes]
    errors = {}
    for threshold in THRESHOLDS:
        errors[threshold] = error(args.model, folders, depth_threshold=threshold)
        print(f"depth_threshold {threshold}: {errors[threshold]:.4f} octaves", flush=True)
    best = min(errors, key=errors.__getitem__) if args.depth_threshold is None else args.depth_threshold
    for name, values in {"sigma_r": (0.3, 0.75), "psi": (100.0, 1000.0), "iterations": (2, 5)}.items():
        for value in values:
            tried = error(args.model, folders, depth_threshold=best, **{name: value})
            print(f"{name} {value:g}: {tried:.4f} octaves", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(shutil.copytree(args.model, folder, dirs_exist_ok=True))
        write(plain, error_floor=0, error_slope=1)  # the expected error is the spread itself
        results = [maps(plain, scenes, depth_threshold=best) for scenes in folders]
    every = PIXELS // len(folders)  # of each folder as many
    rng = np.random.default_rng(0)
    spread, actual = [], []
    for answers, scenes in zip(results, folders, strict=True):
        errors_here = [np.abs(r.map - truth).ravel() for r, (_, truth) in zip(answers, scenes, strict=True)]
        some = rng.choice(sum(e.size for e in errors_here), every)
        spread.append(np.concatenate([r.expected_error.ravel() for r in answers])[some])
        actual.append(np.concatenate(errors_here)[some])
    a, b = fit_expected_error(np.concatenate(spread), np.concatenate(actual))
    write(args.model, depth_threshold=best, error_floor=a, error_slope=b)
    print(f"{args.model}: depth_threshold {best}, error_floor {a:.3g}, error_slope {b:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=existing, help="model folder, written by training.export")
    parser.add_argument(
        "scenes", type=existing, nargs="+", help="folders written by training.scenes --split validation"
    )
    parser.add_argument("--depth-threshold", type=fraction, help="by default that of the smallest error")
    run(parser, tune)


if __name__ == "__main__":
    main()
