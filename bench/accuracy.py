# SPDX-License-Identifier: Apache-2.0
"""Write ACCURACY.md and its images: ``python bench/accuracy.py RESULTS.json VALIDATION.json AGREEMENT.json
TEST --published FOLDER [--retrained RETRAINED.json] [--wide WIDE.json LARGE.json] [--photos FOLDER]
[--propagation PROPAGATION.json] [--deblurring DEBLURRING.json]``. training/README.md has the commands that make what it
reads.

RESULTS.json is of the shipped models and the published weights (FOLDER), RETRAINED.json of what else was trained,
both from ``defocus-fast evaluate TEST``; WIDE.json and LARGE.json are of scenes of large radii; VALIDATION.json is of
all of ours, from ``python -m training.validate``; AGREEMENT.json is of the shipped models and the published weights
against the published map.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import plots

import defocus_fast
from defocus_fast import _images

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "training" / "logs"
FIGURES = Path("docs")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def draw_front(results: list[dict[str, Any]], names: dict[str, str], file: Path) -> None:
    """Time against error of every model and variant."""
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for model in dict.fromkeys(row["model"] for row in results):
        means = [row["means"] for row in results if row["model"] == model]
        axes.plot([each["ms"] for each in means], [each["mae"] for each in means], "o", label=names.get(model, model))
    axes.set(xscale="log", xlabel="ms an image of 360x360", ylabel="raw MAE, px")
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="each in all its variants")
    plots.save(figure, file)


def draw_scenes(results: list[dict[str, Any]], names: dict[str, str], scenes: Path, file: Path) -> list[str]:
    """Maps of the scenes at which the first model is best, at the quartiles and worst; return their names."""
    shipped = [row for row in results if row["variant"] == "as shipped"]
    order = sorted(shipped[0]["images"], key=lambda each: float(each["mae"]))
    chosen = [order[round(share * (len(order) - 1))]["name"] for share in (0, 0.25, 0.5, 0.75, 1)]
    truths = [np.load((scenes / name).with_suffix(".npy")) for name in chosen]
    estimators = [defocus_fast.Estimator(*truths[0].shape, model=row["model"]) for row in shipped]
    figure, grid = plt.subplots(
        len(chosen), 2 + len(shipped), figsize=(2 * (2 + len(shipped)), 2 * len(chosen)), layout="constrained"
    )
    for i, (name, truth) in enumerate(zip(chosen, truths, strict=True)):
        answers = [estimator.estimate(_images.read_photo(scenes / name)) for estimator in estimators]
        shown = {"truth": truth}
        for row, answer in zip(shipped, answers, strict=True):
            error = np.abs(answer.map - truth).mean()
            shown[f"{names.get(row['model'], row['model'])}: {error:.2f} px"] = answer.map
        shown[f"expected error of {shipped[0]['model']}"] = answers[0].expected_error
        for axes, (title, values) in zip(grid[i], shown.items(), strict=True):
            axes.imshow(values, vmin=0, vmax=6.5, cmap="viridis")
            axes.set_title(title, fontsize=8)
            axes.axis("off")
    figure.savefig(file, dpi=80, pil_kwargs={"quality": 85})
    return chosen


def scores(results: list[dict[str, Any]], names: dict[str, str]) -> str:
    measures = ["mae", "mae_std", "relative", "edge_mae", "edge_accuracy", "pattern_recall", "depth_recall", "balanced"]
    rows = []
    for row in results:
        means = row["means"]
        rows.append([names.get(row["model"], row["model"]), row["variant"], *(f"{means[key]:.3f}" for key in measures)])
        rows[-1].append(f"{means['ms']:.0f}")
    head = ["model", "variant", "raw MAE px", "std", "relative MAE", "at edges px", "bin accuracy"]
    return table([*head, "pattern recall", "depth recall", "balanced", "ms"], rows)


def agreement(results: list[dict[str, Any]], names: dict[str, str]) -> str:
    variants = ["as shipped", "the paper's form"]
    found = {(row["model"], row["variant"]): f"{row['means']['mae']:.3f}" for row in results}
    models = dict.fromkeys(row["model"] for row in results)
    rows = [[names.get(model, model), *(found[model, variant] for variant in variants)] for model in models]
    return table(["mean difference, px", *variants], rows)


def groups(results: list[dict[str, Any]], names: dict[str, str]) -> str:
    kinds = ["layered", "layered_slanted", "slanted"]

    def mae(images: list[dict[str, Any]], kind: str) -> float:
        return float(np.mean([each["mae"] for each in images if Path(each["name"]).stem.split("_", 1)[1] == kind]))

    shipped = [row for row in results if row["variant"] == "as shipped"]
    rows = [[names.get(r["model"], r["model"]), *(f"{mae(r['images'], kind):.3f}" for kind in kinds)] for r in shipped]
    return table(["model", *(kind.replace("_", ", ") for kind in kinds)], rows)


def calibration(results: list[dict[str, Any]], names: dict[str, str]) -> str:
    rows = []
    for row in results:
        if row["variant"] == "as shipped" and names.get(row["model"], row["model"]) != "published":
            for key in ("expected_error", "actual_error"):
                values = np.mean([each[key] for each in row["images"]], axis=0)
                rows.append([f"{row['model']}, {key.split('_')[0]}", *(f"{value:.2f}" for value in values)])
    return table(["mean error, px", *(f"{10 * i + 10} %" for i in range(10))], rows)


def training(validation: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, found in validation.items():
        with open(LOGS / f"{name}.csv") as file:
            last = list(csv.DictReader(file))[-1]
        keys = ("mae_mean_px", "accuracy", "recall_pattern", "recall_depth", "balanced_accuracy")
        edges = f"{round(float(last['edges_per_step'])):,}"
        rows.append([name, last["step"], edges, last["elapsed_s"], *(f"{found[key]:.4f}" for key in keys)])
    head = ["run", "steps", "edges a step", "seconds", "B-NET MAE px", "bin accuracy"]
    return table([*head, "pattern recall", "depth recall", "balanced"], rows)


def wide(file: Path, names: dict[str, str]) -> str:
    results = json.loads(file.read_text())["results"]
    ranges = [f"from {each['from']} px" for each in results[0]["ranges"]]
    rows = [
        [
            names.get(row["model"], row["model"]),
            row["variant"],
            *(f"{row['means'][key]:.3f}" for key in ("mae", "octave_error")),
            *(f"{each['mae']:.2f}, {each['octave_error']:.2f}" for each in row["ranges"]),
            f"{row['means']['ms']:.0f}",
        ]
        for row in results
    ]
    shares = ", ".join(f"{100 * each['share']:.0f} %" for each in results[0]["ranges"])
    images = results[0]["images"]
    height, width = images[0]["size"]
    return f"""\
{len(images)} scenes of {width}x{height} px; the ranges have {shares} of the pixels:

{table(["model", "variant", "raw MAE px", "octaves", *ranges, "ms"], rows)}
"""


def propagation(file: Path | None) -> str:
    if file is None:
        return ""
    found = json.loads(file.read_text())
    rows = [[row["method"], f"{row['mae']:.3f}", f"{row['mae_std']:.3f}", f"{row['ms']:,.0f}"] for row in found["rows"]]
    return f"""\
## Other ways to spread the radii

The first {found["scenes"]} of the test scenes, edges and radii of `{found["rows"][0]["model"]}` in the paper's
form, spread by other methods (the paper's section IV-D; `bench/propagation.py`, {found["date"]}, beside other work on
{found["cores"]} cores, so the ms are of little precision). All know the radii of the pattern edges only.

- "Laplacian" is the map of least m'Lm + 0.005 * sum of (m - radius)^2 over the pattern edges; L is the closed-form
  matting Laplacian (windows of 3 x 3, epsilon 1e-5; PyMatting), solved by conjugate gradients to 1e-4.
- "CEF" is the connected edge filter of Karaali and Jung (2018): radii x of least sum of 7.5 (x - radius)^2 + 20 * sum
  over 8-connected pairs of edges of the squared difference. There 7.5 is 1 + the number of scales at which the edge was
  found, 5 to 10, which is not known here.
- "PJBF" is the probability-joint bilateral filter of Park et al. (2017): the mean of the radii of the edges in a window
  of 27 x 27, weighted by Gaussians of distance (100 px), of the difference of a rolling guidance filter of the grey
  image (100 of 255 levels) and of 1 - the probability of the radius (1). Its numbers are those of the authors' program,
  with which it is nearly a plain mean.

{table(["method", "raw MAE px", "std", "ms"], rows)}
"""


def deblurring(file: Path | None) -> str:
    if file is None:
        return ""
    found = json.loads(file.read_text())
    before, true, *_ = found["rows"]
    rows = []
    for row in found["rows"]:
        gain = row["psnr"] - before["psnr"]
        share = f"{gain / (true['psnr'] - before['psnr']):.0%}"
        away = row["away"] - before["away"]
        away_share = f"{away / (true['away'] - before['away']):.0%}"
        name = {"blurred": "none, as blurred", found["published"]: "published"}.get(row["map"], row["map"])
        rows.append([name, f"{row['psnr']:.2f}", f"{gain:.2f}", share, f"{away:.2f}", away_share])
        rows[-1] += [f"{row['ssim']:.3f}", f"{row['lost']:.0%}"]
    large = found["large"]
    return f"""\
## Deblurring

`defocus_fast.deblur` with the true map and with estimated ones (the paper's Table II; there the true map gains 3.48 dB
and the paper's own 2.80 dB, 80 %). {found["scenes"]} of the test scenes, blurred without other camera effects and
with noise of standard deviation {found["noise"]} of [0, 1]; the truth is the same scene with every layer sharp. "Lost"
are the scenes whose PSNR fell. "Away" is the gain at least {found["outline"]} px from where the true radius jumps by
1 px or more: around outlines no map of single radii is right, because the blur of the nearer layer lies over the
farther one, and there an estimated map may gain more than the true one. (`bench/deblurring.py`, {found["date"]},
on {found["cores"]} cores.)

{table(["map", "PSNR dB", "gain dB", "of the true map's", "away dB", "of the true map's", "SSIM", "lost"], rows)}
With the map of `fast` the median scene of {found["size"]}x{found["size"]} took {found["seconds"]:.2f} s, and
{found["cpu_seconds"]:.2f} s of all threads together. `defocus-fast deblur` of the example photograph, mirrored out to
{large["width"]}x{large["height"]}, took {large["seconds"]:.0f} s and {large["peak_mb"]:,.0f} MB at its peak.

"""


def again(file: Path | None) -> str:
    if file is None:
        return ""
    results = json.loads(file.read_text())["results"]
    return f"""\
Trained again, by the runs of [training/README.md](training/README.md). `fast-seed2` and `tip22-seed2` saw other crops
and began with other weights than `fast` and `tip22-first`, of which the shipped `tip22` came by going on. Three crops
against one, the paper's Table V: `tip22-three` and `tip22-one` saw the same crops in the same order for the same number
of steps, a short run; the second has no branches for the crops of 27 and 15 px.

{scores(results, {row["model"]: Path(row["model"]).name for row in results})}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("agreement", type=Path)
    parser.add_argument("scenes", type=Path, help="folder of the images that were scored")
    parser.add_argument("--retrained", type=Path, help="the same measures of models trained again, if they are at hand")
    parser.add_argument("--wide", type=Path, nargs="+", default=[], help="the same measures of scenes made with --wide")
    parser.add_argument("--photos", type=Path, help="folder of photographs whose maps are drawn")
    parser.add_argument("--propagation", type=Path, help="written by bench/propagation.py")
    parser.add_argument("--deblurring", type=Path, help="written by bench/deblurring.py")
    parser.add_argument("--published", required=True, help="as --model was called for the published weights")
    args = parser.parse_args()
    results = json.loads(args.results.read_text())["results"]
    if args.published not in {row["model"] for row in results}:
        parser.error(f"--published: expected one of the models in {args.results}, got {args.published}")
    validation = json.loads(args.validation.read_text())
    names = {row["model"]: Path(row["model"]).name for row in results} | {args.published: "published"}
    matplotlib.use("agg")
    photos = ""
    if args.photos:
        variants: dict[str, dict[str, Any]] = {"octaves 1": {"octaves": 1}, "default": {}}
        plots.photos(args.photos, ROOT / FIGURES / "octaves.jpg", variants)
        photos = f"""\
Photographs of shallow focus, their maps with one octave, and by default (budgie-backgrounds CC0-1.0,
enlightenment-data BSD-2-Clause):

![photographs and maps]({FIGURES / "octaves.jpg"})

"""
    front, maps = FIGURES / "accuracy_front.png", FIGURES / "accuracy_maps.jpg"
    (ROOT / FIGURES).mkdir(exist_ok=True)
    chosen = draw_scenes(results, names, args.scenes, ROOT / maps)
    draw_front(results, names, ROOT / front)
    edges = sorted(round(found["edges"]) for found in validation.values())
    text = f"""# Accuracy

Written by `bench/accuracy.py` on {datetime.date.today()}: {os.cpu_count()} cores, {platform.machine()}, defocus_fast
{defocus_fast.__version__}, bfloat16 where the CPU has it. How to repeat it: [training/README.md](training/README.md).

## On {len(results[0]["images"])} synthetic scenes of images never trained on

Half of them layered, a quarter layered over a slanted background, a quarter slanted; half clean, half with random
camera effects. "published" are the authors' weights, run by this library in the same run. "as shipped" spreads
posterior means (`labels="posterior"`), "the paper's form" the most probable bins; "int8" is as shipped in that
precision, "edge_stride" asks about fewer edges. Measures are those of `defocus-fast evaluate --help`.

{scores(results, names)}
Raw MAE by kind of scene, as shipped:

{groups(results, names)}
The authors' own image, from a light-field camera, has no ground truth here. How far the maps are from the authors'
published one says only that all read the same thing in the same unit (`tests/test_published.py` holds ours to it);
"published" differs from it by the edges, the octaves and psi 100 instead of 20:

{agreement(json.loads(args.agreement.read_text())["results"], names)}
{again(args.retrained)}\
Time against error. The times are of this run, the median of one call for each of the images, and of little
precision: [BENCHMARK.md](BENCHMARK.md) has better ones.

![time against error]({front})

Maps of the scenes at which {results[0]["model"]} is best, at its quartiles and worst
({", ".join(Path(name).stem for name in chosen)}). The photographs are not shown: not all of their licences allow it.

![true and estimated maps]({maps})

Two errors cause most of the rest. Outlines of flat things look like depth edges, although they lie in the plane of what
is around them: their smooth insides get what leaks in. And a missed depth edge lets the radii of one side into the
other.

## On scenes with radii of 0.5 to 40 px

Scenes made as those above, but that the logarithm of the radius is uniform, and that a fifth of the layers have no
texture (`python -m training.scenes ... --wide`). "octaves 1" reads the image at its own size only, as the paper does.
The error in octaves is the mean of |log2((map + 0.5) / (truth + 0.5))|; by ranges of the true radius the raw MAE in px
and the error in octaves.

{"".join(wide(file, names) for file in args.wide)}{photos}{propagation(args.propagation)}\
{deblurring(args.deblurring)}## Expected error

Means of `BlurMap.expected_error` and of the error itself in ten equal shares of every image's pixels, the surest
first:

{calibration(results, names)}
## Training

How long every model's last run was (`training/logs`; the runs before are in training/README.md), and what its
networks get right at edges of the validation images: B-NET at pattern edges, E-NET at all, "balanced" being the mean of
its recalls. The edges are
{edges[0]:,} (`tip22`) and {edges[-1]:,} (`fast`, asked about all of a crop), in crops half of which lie around a
depth edge. The columns of the same names in the logs are of smaller images (training/README.md).

{training(validation)}"""
    file = ROOT / "ACCURACY.md"
    # bench/culling.py and bench/frames.py write the parts between these marks.
    kept = re.finditer(r"(?s)<!-- (\w+) -->.*?<!-- /\1 -->\n", file.read_text(encoding="utf-8"))
    file.write_text("\n".join([text, *(part[0] for part in kept)]), encoding="utf-8")


if __name__ == "__main__":
    main()
