# SPDX-License-Identifier: Apache-2.0
"""Measure what learned distances and weak edges change, and write the section of ACCURACY.md about it:
``python bench/distances.py TEST WIDE LARGE [--photos FOLDER]``, folders written by training.scenes, and photographs of
shallow focus. Times are for a machine that does nothing else."""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import plots
import report
import sections
from scipy import ndimage

import defocus_fast
from defocus_fast import _images, evaluation

sys.path.append(str(Path(__file__).parents[1]))

from training.propagation import INPUTS_OF, Propagation, Sample
from training.train_propagation import samples, validate

VARIANTS: dict[str, dict[str, Any]] = {
    "learned": {"distances": "learned"},
    "domain_transform": {"distances": "domain_transform"},
    "learned, fine_thresholds 1": {"distances": "learned", "fine_thresholds": 1.0},
    "learned, fine_thresholds 0.4": {"distances": "learned", "fine_thresholds": 0.4},
    "octaves 1": {"octaves": 1},
}
TIMED = tuple(VARIANTS)[:-1]  # the ratios are those of the first to the others
SIZES = ((480, 640), (1080, 1920))
CALLS = 60  # of each variant, in turn
NETWORK = Path(__file__).parents[1] / "training" / "candidates" / "distances.npz"  # that of fast
LOGS = Path(__file__).parents[1] / "training" / "logs"
ABLATIONS = ("nothing", *INPUTS_OF, "context")  # of train_propagation --without; the logs are distances-without-<name>
WORST = 5  # scenes shown
STEADY = 0.5  # px of the spreading octave, by which the true radius differs within 5 x 5 px at most


def errors(
    folder: Path, model: str
) -> tuple[list[list[str]], list[list[str]], dict[str, list[evaluation.RadiusScores]]]:
    """Return a row per variant, rows of the first one's expected error by ten shares of the pixels, and all scores."""
    rows, of_all = [], {}
    pairs = evaluation.pairs(folder, folder)[0]
    for variant, options in VARIANTS.items():
        scores, expected = [], []
        for file, known in pairs:
            image, truth = _images.read_photo(file), evaluation.read_truth(known)
            estimator = defocus_fast.Estimator(*truth.shape, model=model, device="cpu", precision="float32", **options)
            result = estimator.estimate(image, bin_probabilities=True)
            scores.append(evaluation.radius_scores(file.name, result, truth, list(estimator.radius_bins)))
            expected.append(float(result.expected_error.mean()))
        means, ranges = evaluation.radius_means(scores), evaluation.range_means(scores)
        cells = [f"{len(pairs)} of {truth.shape[1]}x{truth.shape[0]}", variant]
        of_all[variant] = scores
        cells += [f"{means['mae']:.3f}", f"{means['octave_error']:.3f}", f"{np.mean(expected):.3f}"]
        cells += [f"{each['mae']:.2f}, {each['octave_error']:.2f}" for each in ranges]
        rows.append(cells + ["-"] * (5 + len(evaluation.RADIUS_RANGES) - 1 - len(cells)))
        print(*rows[-1], sep=" | ", flush=True)
    shares = []
    for key in ("expected", "actual"):
        tenths = np.mean([getattr(each, f"{key}_error") for each in of_all[next(iter(VARIANTS))]], axis=0)
        shares.append([rows[0][0], key, *(f"{tenth:.2f}" for tenth in tenths)])
        print(*shares[-1], sep=" | ", flush=True)
    return rows, shares, of_all


def draw_worst(folder: Path, of_all: dict[str, list[evaluation.RadiusScores]], file: Path) -> list[str]:
    """Draw the maps of the scenes that are worst by the paper's filter, before and after; return their names."""
    before, after = "domain_transform", "learned"
    worst = sorted(of_all[before], key=lambda scores: -scores.mae)[:WORST]
    figure, grid = plt.subplots(WORST, 4, figsize=(8, 2 * WORST), layout="constrained")
    for axes, scores in zip(grid, worst, strict=True):
        image = _images.read_photo(folder / scores.name)
        truth = np.load((folder / scores.name).with_suffix(".npy"))
        found = {
            name: defocus_fast.Estimator.for_image(image, **VARIANTS[name]).estimate(image) for name in (before, after)
        }
        shown = {"true radius": truth}
        for name, answer in found.items():
            shown[f"{name}: {np.abs(answer.map - truth).mean():.2f} px"] = answer.map
        shown["its expected error"] = found[after].expected_error
        for place, (title, values) in zip(axes, shown.items(), strict=True):
            place.imshow(values, vmin=0, vmax=6.5, cmap="viridis")
            place.set_title(title, fontsize=8)
            place.axis("off")
    figure.savefig(file, dpi=80, pil_kwargs={"quality": 85})
    plt.close(figure)
    return [Path(scores.name).stem for scores in worst]


def ablations() -> str:
    """Return what the logs say of networks that were trained on for a while without one of the inputs."""
    rows = []
    for name in ABLATIONS:
        with open(LOGS / f"distances-without-{name}.csv") as file:
            last = list(csv.DictReader(file))[-1]
        rows.append(
            [name, last["step"], *(value for key, value in last.items() if key.split(" ")[-1] in ("px", "octaves"))]
        )
    head = [f"{folder}: {unit}" for folder in ("TUNE", "MORE-TUNE", "WIDE-TUNE") for unit in ("px", "octaves")]
    return report.table(["without", "steps", *head], rows)


def perfect(sample: Sample) -> Sample:
    """Give every pattern edge the true radius, where that is about the same all around it."""
    steady = (
        ndimage.maximum_filter(sample.truth, 5) - ndimage.minimum_filter(sample.truth, 5) <= STEADY * 2**sample.octave
    )
    at = tuple(sample.at)
    known = (sample.kinds < 3) & steady[at]
    sample.seeds[1] = np.where(known, sample.seeds[0] * sample.truth[at], sample.seeds[1])
    return sample


def with_true_radii(folder: Path) -> list[str]:
    """Return the row of what is left if B-NET were right at every pattern edge, by the filter of the training."""
    network = Propagation()
    network.load(NETWORK)
    found = samples(defocus_fast.model_io.shipped_folder() / "fast", folder)
    height, width = (side << found[0].octave for side in found[0].truth.shape)
    px, octaves = validate(network.eval(), [perfect(sample) for sample in found])
    cells = [f"{len(found)} of {width}x{height}", "learned, true radii at pattern edges", f"{px:.3f}", f"{octaves:.3f}"]
    print(*cells, sep=" | ", flush=True)
    return cells + ["-"] * len(evaluation.RADIUS_RANGES)


def times(photo: np.ndarray[Any, Any], model: str) -> list[list[str]]:
    """Return a row per size: medians and 99th percentiles of each, called in turn, and medians of the ratios."""
    rows = []
    for height, width in SIZES:
        image = np.pad(
            photo, [(0, max(0, height - photo.shape[0])), (0, max(0, width - photo.shape[1])), (0, 0)], "symmetric"
        )
        image = np.ascontiguousarray(image[:height, :width])
        estimators = [
            defocus_fast.Estimator(height, width, model=model, device="cpu", **VARIANTS[name]) for name in TIMED
        ]
        ms = np.empty((CALLS, len(TIMED)))
        for call in range(-3, CALLS):
            for n, estimator in enumerate(estimators):
                start = time.perf_counter()
                estimator.estimate(image)
                if call >= 0:
                    ms[call, n] = 1e3 * (time.perf_counter() - start)
        cells = [f"{np.median(each):.1f}, {np.percentile(each, 99):.1f}" for each in ms.T]
        ratios = [f"{np.median(ms[:, 0] / other):.2f}x" for other in ms.T[1:]]
        rows.append([f"{width}x{height}", *cells, *ratios])
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path, nargs="+", help="narrow ones first")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--model", default="fast", help="of another one nothing is written")
    args = parser.parse_args()
    photo = _images.read_photo(sorted(args.scenes[-1].glob("*.png"))[0])
    of_times = times(photo, args.model)
    rows, of_errors, worst = [], [], []
    for folder in args.scenes:
        of_folder, shares, scores = errors(folder, args.model)
        rows += of_folder
        of_errors += shares
        if args.model == "fast":
            rows.append(with_true_radii(folder))
            worst = worst or draw_worst(folder, scores, report.ROOT / report.PLOTS / "distances_worst.jpg")
    if args.model != "fast":
        return
    ranges = [f"from {low} px" for low in evaluation.RADIUS_RANGES[:-1]]
    shown = ""
    if args.photos:
        variants = {name: VARIANTS[name] for name in ("domain_transform", "learned")}
        plots.photos(args.photos, report.ROOT / report.PLOTS / "distances.jpg", variants)
        shown = "\n![photographs, their maps by both kinds of distances](docs/distances.jpg)\n"
    text = f"""## Learned distances

Written by `bench/distances.py` on {datetime.date.today()}: {os.cpu_count()} cores, {platform.machine()}, defocus_fast
{defocus_fast.__version__}, model fast, errors in float32, times in bfloat16 where the CPU has it. The scenes are those
of the sections above. "expected" is the mean of the
expected error; by ranges of the true radius the raw MAE in px and the error in octaves. "fine_thresholds 1" has
the edges that the paper's thresholds find, in the first two octaves too, which is the default from 1080 px on, and 0.4
weak ones, which is the default up to 432 px (shorter side). "true radii" is what the same network
and filter make of these edges, computed as in training, if the radius at every pattern edge is the true one.

{report.table(["scenes", "distances", "raw MAE px", "octaves", "expected px", *ranges], rows, left=2)}
Expected and actual error, px, of "learned" in ten equal shares of every image's pixels, the surest first:

{report.table(["scenes", "mean error", *(f"{10 * i + 10} %" for i in range(10))], of_errors, left=2)}
What each input of the network is good for: the fifth network of [training/README.md](training/README.md) trained on
without it (`train_propagation --without`), and "nothing" with all of them, as long. Three trainings of one kind differ
by 1 % on TUNE, 2 % on MORE-TUNE and 5 % on WIDE-TUNE (the same place), so only what is beyond that tells something.
Validation scenes, errors in px and in octaves:

{ablations()}
The {WORST} of the {rows[0][0]} scenes that are worst by the paper's filter ({", ".join(worst)}):

![the worst scenes' maps by both kinds of distances](docs/distances_worst.jpg)

Times of a frame in ms, median and 99th percentile, one call of each in turn, {CALLS} times:

{report.table(["size", *TIMED, *(f"to {name}" for name in TIMED[1:])], of_times)}{shown}
The network has learnt what synthetic scenes are like. There a region without edges beside a sharp outline is mostly
the strongly blurred background, seldom the smooth inside of a sharp thing: so the inside of a white petal takes the
radius of the leaves behind it. Where it is so unsure the expected error is large.
"""
    sections.write("distances", text)


if __name__ == "__main__":
    main()
