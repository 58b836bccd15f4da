# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast cull``: which of several photographs is sharp where it matters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from .._files import RAW_SUFFIXES, write_whole
from . import _options
from ._jobs import files_of
from ._pipeline import overlapped
from ._shared import (
    Estimators,
    Unusable,
    console,
    cores,
    error_console,
    model_path,
    new_table,
    progress,
    reason,
    require,
    shown,
    write_json,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .. import BlurMap
    from .._metadata import Metadata
    from ..culling import Sharpness, Shot

SIDECARS: dict[str, Callable[[Path], Path]] = {
    "NAME.jpg.xmp": lambda photo: photo.with_name(photo.name + ".xmp"),
    "NAME.xmp": lambda photo: photo.with_suffix(".xmp"),
}
PLACES = ("whole", "sharpest", "region")
COLUMNS = (  # of --csv; the values of the places follow as whole_radius_px and so on
    "photo", "height", "width", "edges", "pattern_edges", "min_px", "median_px", "max_px", "camera", "taken",
    "sensor_width_mm", "share_in_focus", "burst", "best", "error",
)  # fmt: skip
PLACE_COLUMNS = ("radius_px", "error_px", "share_of_width", "radius_um", "edges", "x", "y", "width", "height")
CENTRE = (1 / 3, 1 / 3, 1 / 3, 1 / 3)


def _place(_context: click.Context, _option: click.Parameter, value: str) -> Any:
    """Return "focus", "centre", or four shares of the picture's sides."""
    if value in ("focus", "centre"):
        return value
    try:
        x, y, width, height = (float(share) for share in value.split(","))
    except ValueError:
        x = y = width = height = -1
    end = 1 + 1e-6  # of sums of shares that are not exact
    if not (x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= end and y + height <= end):
        raise click.BadParameter(
            f"expected focus, centre or X,Y,WIDTH,HEIGHT of a rectangle in the picture, of sides 1, got {shown(value)}"
        )
    return x, y, width, height


@click.command(short_help="Tell which photographs are sharp, and the best of each burst.")
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True, type=click.Path(readable=False))
@click.option(
    "--region",
    "place",
    callback=_place,
    default="focus",
    show_default=True,
    metavar="focus|centre|X,Y,WIDTH,HEIGHT",
    help="Where it matters: where the camera focused, the middle third of both sides, or a rectangle by its left upper "
    "corner and its size, all as shares of the picture's sides, such as 0.4,0.3,0.2,0.2.",
)
@click.option(
    "--in-focus",
    type=_options.Number(0, 1000),
    default=1.0,
    show_default=True,
    metavar="PX",
    help="The largest radius that counts as in focus.",
)
@click.option(
    "--gap",
    type=_options.Number(0, 1e6),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="The longest time between two photographs of a burst.",
)
@_options.file(
    "--csv",
    ",".join(COLUMNS[:5]),
    "Write a line for every photograph there. It replaces such a file of an earlier run only.",
)
@_options.json_file
@click.option(
    "--xmp",
    "marks",
    type=click.Choice(["rating", "label"]),
    multiple=True,
    help="Mark the best of each burst in its XMP sidecar: 5 stars, or the label Green; give it twice for both.",
)
@click.option(
    "--sidecar",
    type=click.Choice(list(SIDECARS)),
    show_default="NAME.jpg.xmp",
    help="With --xmp: what sidecars are called, as darktable and digiKam call them, or as Lightroom does.",
)
@_options.of_estimator("model")
@_options.of_estimator("precision")
@_options.threads
@_options.of_estimator("octaves")
@_options.of_estimator("device")
@_options.of_estimator("max_edges")
def cull(
    photos: tuple[str, ...],
    place: Any,
    in_focus: float,
    gap: float,
    csv_file: Path | None,
    json_file: Path | None,
    marks: tuple[str, ...],
    sidecar: str | None,
    model: str,
    precision: str,
    threads: int | None,
    octaves: int | None,
    device: str,
    max_edges: int | None,
) -> None:
    """Tell how sharp photographs are and where, and which is the best of each burst.

    PHOTO is a photograph or a folder, as for estimate. Of every photograph are told

    \b
      radius px    the radius of the sharp parts of the photograph: the 15th percentile
                   over its edges; behind ± stands how far off it is likely to be
      % of width   the same radius in hundredths of the picture's width, which can
                   be compared between resolutions
      µm           the same radius on the sensor, where EXIF tells its size
      sharpest px  the radius where the photograph is sharpest: the median over the
                   edges of that square, with a sixth of its shorter side,
                   whose radius and error together are least
      at %         the centre of the square, in hundredths of the width and of the
                   height, from the left upper corner of the picture as it is seen
      in focus %   the share of the picture whose radius is at most --in-focus
      region px    the radius in --region: the 15th percentile, too

    A radius is known where there are 50 edges or more. Where the camera focused is known
    from EXIF's SubjectArea and SubjectLocation, and, if the program exiftool is installed, from the notes of Canon,
    Fujifilm, Nikon, Olympus, Panasonic and Sony cameras; without it nothing is known of CR3, ORF, RAF and RW2 files,
    not even the time. Around a point the region is a square with a quarter of the shorter side.

    A burst is photographs of one camera that look alike and of which each was taken at most --gap seconds after the
    one before, by EXIF's time; photographs without a time are compared in the order given, those of a folder by their
    names. The best of a burst has the least radius as a share of the width: in --region, if all of the burst have a
    radius there, or else that of the whole photograph. Where the subject is small and much of the rest is sharp, only
    --region tells whether the subject is.

    Files of --csv and --json have the radii of the whole photograph, of the sharpest square and of the region as
    radius_px, error_px, share_of_width and radius_um, with x, y, width and height in px; share_in_focus; taken, camera
    and sensor_width_mm as far as they are known; burst and best; and error, why a photograph has no other values.

    With --xmp the best of each burst of two or more is marked in its XMP sidecar. All else that a sidecar holds stays,
    though its XML is written anew. So does the photographer's own decision, which is then told: a label, or a rating
    other than 0 and 1. Which programs read which sidecars:

    \b
      NAME.jpg.xmp  darktable, digiKam
      NAME.xmp      Lightroom, but only beside raw files; digiKam, if set so

    It needs: pip install "defocus_fast[xmp]".

    Exit status: 0 all done, 1 some photographs failed, 2 wrong usage or model, 130 Ctrl-C, 143 SIGTERM.
    """
    from .._metadata import exiftool_tags_of

    err = error_console()
    not_done: list[dict[str, str]] = []

    def failed(path: Path | str, why: str) -> None:
        not_done.append({"photo": str(path), "error": why})
        err.print(f"{shown(path)}: {why}", style="red", markup=False)

    if marks:
        require("--xmp", "lxml")
    elif sidecar:
        raise click.UsageError("--sidecar is of --xmp, which is not given")
    files = list(files_of(photos, failed))
    options = {"precision": precision, "octaves": octaves, "device": device, "max_edges": max_edges}
    estimators = Estimators(model=model_path(model), num_threads=threads, **options)
    done: dict[Path, _Row] = {}
    if files:
        try:
            estimators.of_size(1, 1)  # options that cannot work for any photograph are known before the first
        except Unusable as error:
            raise click.UsageError(str(error)) from None
    work = _Work(estimators, place, in_focus)
    try:
        with progress(err, len(files)) as bar:
            # EXIF alone is read without ExifTool, but for RAW files that only it knows.
            asked = [path for path in files if place == "focus" or path.name.lower().endswith(RAW_SUFFIXES)]
            for begin in bar.track(range(0, len(asked), 100), description="ExifTool"):
                work.exiftool |= exiftool_tags_of(asked[begin : begin + 100])
            task = bar.add_task("", total=len(files))
            steps = work.read, work.compute, work.write, _Picture.pixels
            for path, result in overlapped(files, *steps, workers=cores()):
                bar.update(task, description=shown(path.name), advance=1)
                if isinstance(result, _Row):
                    done[path] = result
                else:
                    failed(path, reason(result))
    except BaseException:  # a signal, such as Ctrl-C
        err.print(f"{len(done)} of {len(files)} done", style="red", markup=False)
        raise
    rows = _grouped([done[path] for path in files if path in done], gap)
    _print_table(rows)
    if csv_file:
        _write_csv(csv_file, rows, not_done)
    if json_file:
        settings = {"region": place, "in_focus": in_focus, "gap": gap, "model": model, **options}
        write_json(json_file, {"settings": settings, "photos": [row.values for row in rows] + not_done})
    unread = len(not_done)
    if marks:
        for path, problem in _mark(rows, marks, SIDECARS[sidecar or "NAME.jpg.xmp"]):
            failed(path, problem)
    if unread:
        err.print(f"{unread} of {len(done) + unread} failed", style="red", markup=False)
    if not_done:
        raise SystemExit(1)


@dataclass
class _Picture:
    image: NDArray[Any]
    metadata: Metadata

    def pixels(self) -> int:
        return int(self.image.shape[0] * self.image.shape[1])


@dataclass
class _Row:
    photo: Path
    shot: Shot
    values: dict[str, Any]  # as in the JSON file


class _Work:
    """What is done with every photograph, in three steps."""

    def __init__(self, estimators: Estimators, place: Any, in_focus: float) -> None:
        self.estimators = estimators
        self.place = place
        self.in_focus = in_focus
        self.exiftool: dict[Path, Mapping[str, Any]] = {}

    def read(self, photo: Path) -> _Picture:
        from .. import _images
        from .._metadata import read_metadata

        image = _images.read_photo(photo)
        return _Picture(image, read_metadata(photo, image.shape[:2], self.exiftool.get(photo)))

    def compute(self, _photo: Path, picture: _Picture) -> BlurMap:
        estimator = self.estimators.of_size(*picture.image.shape[:2])
        result: BlurMap = estimator.estimate(picture.image, expected_error=True)
        return result

    def write(self, photo: Path, picture: _Picture, result: BlurMap) -> _Row:
        from .. import culling

        metadata = picture.metadata
        box = {"focus": metadata.focus, "centre": CENTRE}.get(self.place, self.place)
        region = culling.region_of(box, picture.image.shape[:2]) if box else None
        taken = metadata.taken
        values = {
            "photo": str(photo),
            **result.scores(),
            "camera": metadata.camera,
            "taken": taken.isoformat(timespec="milliseconds") if taken else None,
            "sensor_width_mm": metadata.sensor_width,
            "share_in_focus": culling.share_in_focus(result, self.in_focus),
            "whole": _values(culling.radius_in(result), result, metadata),
            "sharpest": _values(culling.sharpest_region(result), result, metadata),
            "region": _values(culling.radius_in(result, region), result, metadata) if region else None,
        }
        return _Row(photo, culling.Shot(metadata.camera, taken, culling.look_of(picture.image)), values)


def _values(found: Sharpness | None, result: BlurMap, metadata: Metadata) -> dict[str, Any] | None:
    if found is None:
        return None
    width = result.map.shape[1]
    share = found.radius / width
    return {
        "radius_px": found.radius,
        "error_px": found.error,
        "share_of_width": share,
        "radius_um": share * metadata.sensor_width * 1000 if metadata.sensor_width else None,
        "edges": found.edges,
        "x": found.region.x,
        "y": found.region.y,
        "width": found.region.width,
        "height": found.region.height,
    }


def _grouped(rows: list[_Row], gap: float) -> list[_Row]:
    """Return the rows burst by burst, in each the best first; they get the burst's number, and whether they are its
    best."""
    from ..culling import bursts

    ordered = []
    for number, members in enumerate(bursts([row.shot for row in rows], gap), 1):
        group = [rows[member] for member in members]
        place = "region" if all(row.values["region"] for row in group) else "whole"
        group.sort(key=lambda row, place=place: (row.values[place] or {}).get("share_of_width", float("inf")))  # type: ignore[misc]
        for row in group:
            best = row is group[0] and len(group) > 1 and row.values[place] is not None
            row.values |= {"burst": number, "best": best}
        ordered += group
    return ordered


def _write_csv(file: Path, rows: list[_Row], not_done: list[dict[str, str]]) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *(f"{place}_{part}" for place in PLACES for part in PLACE_COLUMNS)])
    writer.writeheader()
    for row in rows:
        flat = {name: value for name, value in row.values.items() if name not in PLACES}
        for place in PLACES:
            flat |= {f"{place}_{part}": value for part, value in (row.values[place] or {}).items()}
        writer.writerow(flat)
    writer.writerows(not_done)

    def write(target: IO[bytes]) -> None:
        target.write(text.getvalue().encode("utf-8", "surrogateescape"))

    try:
        write_whole(file, write)
    except OSError as error:
        raise click.ClickException(f"{shown(file)}: {reason(error)}") from None


def _mark(rows: list[_Row], marks: tuple[str, ...], sidecar: Callable[[Path], Path]) -> list[tuple[Path, str]]:
    """Mark the best photographs in their sidecars; return what could not be marked, and why."""
    from .. import _xmp

    bursts: dict[str, set[int]] = {}  # that a sidecar is about
    for row in rows:
        bursts.setdefault(os.path.abspath(sidecar(row.photo)), set()).add(row.values["burst"])
    problems = []
    for row in rows:
        path = sidecar(row.photo)
        if not row.values["best"]:
            continue
        if len(bursts[os.path.abspath(path)]) > 1:  # not a camera's RAW and JPEG file of one shot
            problems.append((row.photo, f"a photograph of another burst has the sidecar {shown(path)}, too"))
            continue
        for kind in marks:
            try:
                kept = _xmp.mark(path, kind)
            except Exception as error:
                problems.append((path, reason(error)))
                break
            if kept:
                error_console().print(f"{shown(path)}: keeps its {kind} {shown(kept)}", markup=False)
    return problems


def _print_table(rows: list[_Row]) -> None:
    if not rows:
        return
    from rich.text import Text

    def radius(found: dict[str, Any] | None) -> str:
        return f"{found['radius_px']:.2f} ± {found['error_px']:.2f}" if found else "-"

    table = new_table()
    table.add_column("burst", justify="right", no_wrap=True)
    table.add_column("photo", overflow="fold")
    table.add_column("best", no_wrap=True)
    for title in ("radius px", "% of width", "µm", "sharpest px", "at %", "in focus %", "region px"):
        table.add_column(title, justify="right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        values = row.values
        if before and before.values["burst"] != values["burst"]:
            table.add_section()
        whole, square = values["whole"] or {}, values["sharpest"] or {}
        middle = [
            f"{100 * (square[at] + square[side] / 2) / values[side]:.0f}"
            for at, side in (("x", "width"), ("y", "height"))
            if square
        ]
        table.add_row(
            str(values["burst"]),
            Text(shown(values["photo"])),
            "best" if values["best"] else "",
            radius(whole),
            f"{100 * whole['share_of_width']:.4f}" if whole else "-",
            f"{whole['radius_um']:.1f}" if whole and whole["radius_um"] else "-",
            radius(square),
            " ".join(middle) or "-",
            "-" if values["share_in_focus"] is None else f"{100 * values['share_in_focus']:.0f}",
            radius(values["region"]),
        )
    console(least=130).print(table)
