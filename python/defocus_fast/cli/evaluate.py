# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast evaluate``."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._files import write_whole
from . import _options
from ._shared import (
    Estimators,
    Unusable,
    console,
    error_console,
    fail,
    model_path,
    new_table,
    progress,
    reason,
    require,
    shown,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Curve = tuple[str, NDArray[np.float64], NDArray[np.float64]]  # label, precision, recall

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # options of the estimator and of its frames
    "as shipped": ({}, {}),
    "octaves 1": ({"octaves": 1}, {}),
    "psi 0": ({"psi": 0.0}, {}),
    "without E-NET": ({"depth_threshold": 1.0}, {}),
    "the paper's form": ({"labels": "hard", "octaves": 1}, {}),
    "edge_stride 2": ({}, {"edge_stride": 2}),
    "edge_stride 3": ({}, {"edge_stride": 3}),
}
RADIUS_COLUMNS = {
    "raw MAE": "mae",
    "std": "mae_std",
    "octaves": "octave_error",
    "relative\nMAE": "relative",
    "at edges": "edge_mae",
    "accuracy": "edge_accuracy",
    "pattern\nrecall": "pattern_recall",
    "depth\nrecall": "depth_recall",
    "balanced": "balanced",
    "expected": "expected_error",
    "ms": "ms",
}
MASK_COLUMNS = {
    "precision": "adaptive_precision",
    "recall": "adaptive_recall",
    "F": "adaptive_f",
    "best F": "best_f",
    "best\naccuracy": "best_accuracy",
    "at\nalpha": "best_alpha",
}
PLOTS = (".png", ".svg", ".pdf")
PLOT_MARK = "precision and recall by defocus_fast"
KEPT_BYTES = 2**29  # of images and ground truth that are read once, not again for every model and variant


@click.command(short_help="Measure accuracy against ground truth.")
@click.argument("folder", metavar="IMAGES", type=_options.FOLDER_WITH_FILES)
@click.option(
    "--truth",
    metavar="DIR",
    type=_options.FOLDER_WITH_FILES,
    help="Folder of the ground truth.  [default: IMAGES]",
)
@_options.models("fast", "fast")
@click.option(
    "--scale",
    type=_options.Number(0, 1e9, min_open=True),
    default=1.0,
    show_default=True,
    metavar="X",
    help="Radius in px of a value 1 of the ground truth.",
)
@click.option(
    "--mask",
    type=click.Choice(["sharp", "blurred"]),
    help="The ground truth is masks, and this is what the values above half of the largest stand for.",
)
@click.option(
    "--ablations",
    is_flag=True,
    help="Also with one octave, with psi 0, without the edge network, in the paper's form, and of fewer edges, in the "
    "first precision.",
)
@_options.of_estimator(
    "octaves",
    multiple=True,
    default=(),
    show_default=False,
    help="Also with so many octaves at most; give it once for every number.",
)
@_options.of_estimator(
    "distances",
    "--distances",
    "kinds",
    multiple=True,
    default=(),
    show_default=False,
    help="Also with distances of this kind; give it once for every one.",
)
@_options.precisions
@_options.file(
    "--plot",
    PLOT_MARK,
    "With --mask: draw precision against recall there, a curve for each row of the table. FILE.png, .svg or .pdf. It "
    "replaces an earlier plot only.",
)
@_options.json_file
def evaluate(
    folder: Path,
    truth: Path | None,
    models: tuple[str, ...],
    scale: float,
    mask: str | None,
    ablations: bool,
    octaves: tuple[int, ...],
    kinds: tuple[str, ...],
    precisions: tuple[str, ...],
    plot_file: Path | None,
    json_file: Path | None,
) -> None:
    """Measure accuracy on images with known blur.

    The ground truth of NAME.jpg (or .png, ...) is NAME.npy, NAME.mat or NAME.png: the radius in px of every pixel, in
    one channel, or, with --mask, what is in or out of focus. Several models are scored on the same images in the same
    run. NAME.mat is of MATLAB's versions 5 to 7, not of 7.3.

    \b
    With radii, means over the images of
      raw MAE       mean |map - truth|, px, and its standard deviation
      octaves       mean |log2((map + 0.5) / (truth + 0.5))|
      relative MAE  mean |map - truth| of radii rescaled to [0, 1] by the model's largest
      at edges      mean |radius - truth| at edges that are true pattern edges, px,
                    and the share of them with the nearest bin
      recall        of true pattern and depth edges of the full-size image:
                    those at which the true
                    radius jumps by at most 0.25, at least 1 px within 2 px
      balanced      the mean of both recalls
      expected      mean of the map's expected error, px
      ms            median time of all stages of an image
    With masks, cutting the map at alpha * maximum + (1 - alpha) * minimum of it
    (the paper's equation 5)
      precision      at alpha 0.3; recall and F-measure (beta^2 = 0.3), too
      best F         of any alpha
      best accuracy  share of the pixels that are told right with the one alpha
                     that is best for all images, and this alpha

    --plot shows mean precision against mean recall at 256 values of alpha (the paper's figure 9), with a mark at alpha
    0.3. It needs pip install "defocus_fast[plot]".

    An image without what a measure is about (edges, anything out of focus) does not count in its mean.
    """
    from .. import _images, evaluation

    if plot_file:
        if not mask:
            raise click.UsageError("--plot draws how well masks are found, and needs --mask")
        if plot_file.suffix.lower() not in PLOTS:
            raise click.UsageError(f"--plot: expected a name that ends in {', '.join(PLOTS)}, got {shown(plot_file)}")
        require("--plot", "matplotlib")
    try:
        found, without = evaluation.pairs(folder, truth or folder)
    except OSError as error:
        fail(f"{shown(error.filename)}: {reason(error)}")
    if not found:
        where = shown(truth or folder)
        fail(f"no image in {shown(folder)} has ground truth (NAME.npy, NAME.mat or NAME.png) in {where}")
    variants = {
        name: ({"precision": precisions[0], **options}, frame)
        for name, (options, frame) in VARIANTS.items()
        if ablations or name == "as shipped"
    }
    variants |= {f"octaves {most}": ({"precision": precisions[0], "octaves": most}, {}) for most in octaves}
    variants |= {f"distances {kind}": ({"precision": precisions[0], "distances": kind}, {}) for kind in kinds}
    variants |= {precision: ({"precision": precision}, {}) for precision in precisions if precision != precisions[0]}

    def read(photo: Path, known: Path) -> tuple[Any, Any]:
        """Return an image and its ground truth; a ValueError tells what of it is not fit."""
        file = photo
        try:
            image = _images.read_photo(photo)
            file = known
            values = evaluation.read_truth(known, scale, mask=mask is not None)
            if values.shape != image.shape[:2]:
                raise ValueError(f"expected shape {image.shape[:2]} as of the image, got {values.shape}")
        except Exception as error:
            raise ValueError(f"{shown(file)}: {reason(error)}") from None
        return image, values

    unfit = []  # told before measurements that take minutes
    kept = {}
    room = KEPT_BYTES
    with progress(error_console(), len(found)) as bar:
        for pair in bar.track(found, description="reading"):
            try:
                arrays = read(*pair)
            except ValueError as error:
                unfit.append(str(error))
                continue
            room -= sum(array.nbytes for array in arrays)
            if room >= 0:
                kept[pair] = arrays
        if unfit:
            fail("\n".join(unfit))
        rows: list[dict[str, Any]] = []
        curves: list[_Curve] = []
        for model in dict.fromkeys(models):
            for variant, (options, frame) in variants.items():
                estimators = Estimators(model=model_path(model), **options)
                scores: list[Any] = []
                for pair in bar.track(found, description=f"{shown(model)}, {variant}"):
                    image, values = kept.get(pair) or read(*pair)
                    name = pair[0].name
                    try:
                        estimator = estimators.of_size(*values.shape)
                        result = estimator.estimate(image, bin_probabilities=True, **frame)
                        if mask:
                            blurred = (values > values.max() / 2) == (mask == "blurred")
                            scores.append(evaluation.mask_scores(name, result.map, blurred))
                        else:
                            scores.append(evaluation.radius_scores(name, result, values, estimator.radius_bins))
                    except Unusable as error:
                        raise click.UsageError(str(error)) from None
                    except Exception as error:
                        fail(f"{shown(pair[0])}: {reason(error)}")
                means = evaluation.mask_means(scores) if mask else evaluation.radius_means(scores)
                images = [dataclasses.asdict(each) for each in scores]
                row = {"model": model, "variant": variant, "means": means, "images": images}
                if plot_file:
                    label = model if variant == "as shipped" else f"{model}, {variant}"
                    curves.append((shown(label), *evaluation.mask_curve(scores)))
                rows.append(row if mask else row | {"ranges": evaluation.range_means(scores)})
    title = f"{len(found)} image{'s' if len(found) != 1 else ''}"
    title += f", {len(without)} more without ground truth" if without else ""
    _print_table(title, MASK_COLUMNS if mask else RADIUS_COLUMNS, rows)
    if not mask:
        _print_ranges(rows)
    if plot_file:
        _plot(plot_file, curves)
    if json_file:
        write_json(json_file, {"folder": str(folder), "results": rows})


def _plot(path: Path, curves: list[_Curve]) -> None:
    from matplotlib.figure import Figure

    from ..evaluation import ADAPTIVE_ALPHA, ALPHAS

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    adaptive = int(abs(ALPHAS - ADAPTIVE_ALPHA).argmin())
    for (label, precision, recall), style in zip(
        curves, itertools.cycle(("-", "--", "-.", ":"))
    ):  # equal ones are seen
        axes.plot(recall, precision, style, marker="o", markevery=[adaptive], label=label.replace("$", r"\$"))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(None, 1.01))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", title=f"mark: alpha = {ADAPTIVE_ALPHA}")
    kind, metadata = path.suffix[1:].lower(), {"Title": PLOT_MARK}
    try:
        write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=150, metadata=metadata))
    except OSError as error:
        fail(f"{shown(path)}: {reason(error)}")


def _print_ranges(rows: list[dict[str, Any]]) -> None:
    table = new_table(title="raw MAE and error in octaves, by the true radius in px")
    table.add_column("model", overflow="fold")
    ranges = [f"from {each['from']}" for each in rows[0]["ranges"]]
    for column in ("variant", *ranges):
        table.add_column(column, justify="left" if column == "variant" else "right", no_wrap=True)
    for row in rows:
        errors = (f"{each['mae']:.3f} {each['octave_error']:.3f}" for each in row["ranges"])
        table.add_row(shown(row["model"]), row["variant"], *errors)
    console(least=130).print(table, markup=False)


def _print_table(title: str, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    table = new_table(title=title)
    table.add_column("model", overflow="fold")
    for column in ("variant", *columns):
        table.add_column(column, justify="left" if column == "variant" else "right", no_wrap=True, vertical="bottom")
    for row in rows:
        numbers = (f"{row['means'][measure]:.{0 if measure == 'ms' else 3}f}" for measure in columns.values())
        table.add_row(shown(row["model"]), row["variant"], *numbers)
    console(least=130).print(table, markup=False)
