# SPDX-License-Identifier: Apache-2.0
"""Culling: radii in regions, bursts and their order, what cameras note, sidecars."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from images import texture
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

import defocus_fast
from defocus_fast import _metadata, _xmp, cli, culling
from defocus_fast.culling import Region
from training.synthesis import kernel_of

Cull = Callable[..., Result]
Exif = dict[int, Any]
TAKEN, SUBSEC, AREA, LOCATION, WIDTH, HEIGHT = 0x9003, 0x9291, 0x9214, 0xA214, 0xA002, 0xA003
FOCAL_X, FOCAL_UNIT, FOCAL, FOCAL_35 = 0xA20E, 0xA210, 0x920A, 0xA405
ORIENTATION, MODEL = 0x0112, 0x0110


def blurred(picture: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    result = cv2.filter2D(picture.astype(np.float32), -1, kernel_of(radius), borderType=cv2.BORDER_REFLECT)
    return np.rint(result).astype(np.uint8)


def sharp(height: int = 256, width: int = 320, seed: int = 0) -> NDArray[np.uint8]:
    """Coloured rectangles: edges everywhere, as sharp as pixels can be."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.uint8)
    for _ in range(height * width // 300):
        y, x, h, w = rng.integers(0, (height, width, 60, 60))
        picture[y : y + h + 8, x : x + w + 8] = rng.integers(0, 256, 3)
    return picture


def exif_of(first: Exif, more: Exif) -> Image.Exif:
    exif = Image.Exif()
    exif.update(first)
    exif.get_ifd(0x8769).update(more)
    return exif


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no exiftool."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_metadata.shutil, "which", lambda _: None)
    return tmp_path


@pytest.fixture
def cull(folder: Path) -> Cull:
    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli.main, ["cull", "--threads", "2", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


# ---------------------------------------------------------------- radii


@pytest.mark.parametrize("first", [0.5, 2.0, 5.0])
def test_bursts_are_in_the_right_order(first: float) -> None:
    """bench/culling.py does the same with photographs, cameras and subjects, and says how often."""
    estimator = defocus_fast.Estimator(384, 512)
    right = total = 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        told = []
        for radius in first + 0.25 * np.arange(5):
            shot = blurred(sharp(384, 512, seed), float(radius)) + rng.normal(0, 2, (384, 512, 3))
            result = estimator.estimate(np.uint8(np.clip(np.rint(shot), 0, 255)), expected_error=True)
            found = culling.radius_in(result)
            assert found is not None
            assert abs(found.radius - radius) < 0.5  # perfect steps, which no lens makes, are read as sharper
            told.append(found.radius)
        pairs = list(itertools.combinations(told, 2))
        right += sum(one < other for one, other in pairs)
        total += len(pairs)
    assert right / total >= 0.99


def test_the_sharpest_region_is_where_the_image_is_sharp() -> None:
    picture = blurred(sharp(256, 384), 4)
    picture[96:192, 224:352] = sharp(256, 384)[96:192, 224:352]
    result = defocus_fast.Estimator(256, 384).estimate(picture, expected_error=True)
    found = culling.sharpest_region(result)
    assert found is not None
    region = found.region
    assert (region.width, region.height) == (42, 42)
    assert 96 <= region.y + 21 <= 192
    assert 224 <= region.x + 21 <= 352
    assert found.radius < 0.8
    inside = culling.radius_in(result, Region(240, 112, 96, 64))
    outside = culling.radius_in(result, Region(0, 0, 160, 256))
    assert inside is not None
    assert outside is not None
    assert inside.radius < 0.8
    assert outside.radius > 3
    assert 0 < inside.error < 0.5


def test_a_region_is_told_by_its_edges_only() -> None:
    """Against the definition, edge by edge, and the search against every window that it may take."""
    result = defocus_fast.Estimator(150, 203).estimate(blurred(texture(150, 203), 1.5), expected_error=True)

    def expected(region: Region, percentile: float) -> tuple[float, float, int] | None:
        inside = [
            (y, x)
            for y, x in result.edges
            if region.y <= y < region.y + region.height and region.x <= x < region.x + region.width
        ]
        if len(inside) < 50:
            return None
        radius = np.percentile([result.map[y, x] for y, x in inside], percentile)
        error = 0.6 * np.mean([result.expected_error[y, x] for y, x in inside if result.map[y, x] <= radius])
        return float(radius), float(error), len(inside)

    least: tuple[float, Region] | None = None
    for y, x in itertools.product(range(0, 150, 16), range(0, 203, 16)):
        region = Region(x, y, min(32, 203 - x), min(32, 150 - y))
        told, known = culling.radius_in(result, region), expected(region, 15)
        assert (told is None) == (known is None)
        if told:
            assert (told.radius, told.error, told.edges) == pytest.approx(known, rel=1e-5)
        # Squares at the far borders lie in the ones before them.
        if (square := expected(region, 50)) and y + 16 < 150 and x + 16 < 203:
            least = min(least or (np.inf, region), (square[0] + square[1], region), key=lambda each: each[0])
    found = culling.sharpest_region(result)
    assert found is not None
    assert least is not None
    assert (pytest.approx(found.radius + found.error), found.region) == least


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (40, 33), (300, 31)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    result = defocus_fast.Estimator(*size).estimate(texture(*size), expected_error=True)
    found = culling.sharpest_region(result)
    if found is None:
        assert len(result.edges) < 50 * max(size) / 16
    else:
        assert found.region.x + found.region.width <= size[1]
        assert found.region.y + found.region.height <= size[0]


def test_without_edges_nothing_is_known() -> None:
    result = defocus_fast.Estimator(64, 64).estimate(np.full((64, 64), 99, np.uint8), expected_error=True)
    assert culling.sharpest_region(result) is None
    assert culling.radius_in(result, Region(0, 0, 64, 64)) is None
    assert culling.share_in_focus(result, 1) is None


def test_shares_become_pixels() -> None:
    assert culling.region_of((0.25, 0.5, 0.5, 0.25), (100, 200)) == Region(50, 50, 100, 25)
    assert culling.region_of((0.9, 0.9, 0.5, 0.5), (100, 200)) == Region(180, 90, 20, 10)
    assert culling.region_of((0.99, 0.99, 0.001, 0.001), (5, 5)) == Region(4, 4, 1, 1)
    # A point: the square of a quarter of the shorter side around it.
    assert culling.region_of((0.5, 0.5, 0, 0), (400, 900)) == Region(400, 150, 100, 100)
    assert culling.region_of((0.0, 1.0, 0, 0), (400, 900)) == Region(0, 350, 50, 50)


# ---------------------------------------------------------------- bursts


def shot(seed: int, seconds: float | None, camera: str = "", **changes: Any) -> culling.Shot:
    picture = cv2.GaussianBlur(texture(240, 360, seed), (0, 0), 6)  # like photographs: large things, too
    if "pan" in changes:
        picture = np.roll(picture, changes["pan"], (0, 1))
    if "exposure" in changes:
        picture = np.uint8(picture * changes["exposure"])
    when = None if seconds is None else datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=seconds)
    return culling.Shot(camera, when, culling.look_of(picture))


def test_bursts_are_close_in_time_and_alike() -> None:
    shots = [
        shot(1, 10.0),
        shot(2, 10.5),  # another thing
        shot(1, 0.0),
        shot(1, 0.4, pan=(9, 20)),
        shot(1, 2.3, exposure=0.6),
        shot(1, 4.4),  # too late
        shot(1, 0.2, camera="B"),
        shot(1, None),
        shot(1, None),
    ]
    assert culling.bursts(shots, 2) == [[7, 8], [2, 3, 4], [5], [0], [1], [6]]
    assert culling.bursts(shots, 2.2)[1] == [2, 3, 4, 5]
    assert culling.bursts([], 2) == []


def test_likeness_survives_blur_and_grey() -> None:
    picture = sharp()
    look = culling.look_of(picture)
    assert culling.likeness(look, culling.look_of(blurred(picture, 8))) > 0.95
    grey = np.float32(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) / 255
    assert culling.likeness(look, culling.look_of(grey)) > 0.99
    assert culling.likeness(look, culling.look_of(sharp(seed=1))) < culling.LIKENESS
    flat = culling.look_of(np.zeros((9, 9), np.uint8))
    assert culling.likeness(flat, flat) == -1


# ---------------------------------------------------------------- what cameras note


def note(path: str, size: tuple[int, int], first: Exif, more: Exif) -> _metadata.Metadata:
    Image.new("RGB", size[::-1]).save(path, exif=exif_of(first, more))
    upright = size[::-1] if first.get(ORIENTATION, 1) > 4 else size
    return _metadata.read_metadata(Path(path), upright)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_time_and_camera(folder: Path, name: str) -> None:
    found = note(name, (60, 90), {MODEL: "X 1"}, {TAKEN: "2026:03:04 05:06:07", SUBSEC: "25"})
    assert found.taken == datetime.datetime(2026, 3, 4, 5, 6, 7, 250_000)
    assert found.camera == "X 1"
    for odd in ("0000:00:00 00:00:00", "    :  :     :  :  ", "2026"):
        assert note(name, (60, 90), {}, {TAKEN: odd, SUBSEC: "x"}).taken is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_focus_point_turns_with_the_image(folder: Path, orientation: int) -> None:
    """A white spot is where the camera focused; it must be in the region of the image as it is seen."""
    from defocus_fast._images import read_photo

    stored = np.zeros((200, 300, 3), np.uint8)
    stored[30:50, 60:90] = 255
    exif = exif_of({ORIENTATION: orientation}, {AREA: (75, 40, 30, 20)})
    Image.fromarray(stored).save("a.png", exif=exif)
    seen = read_photo(folder / "a.png")
    box = _metadata.read_metadata(folder / "a.png", seen.shape[:2]).focus
    assert box is not None
    region = culling.region_of(box, seen.shape[:2])
    assert region.width * region.height == 600
    assert seen[region.y : region.y + region.height, region.x : region.x + region.width].min() == 255


def test_kinds_of_subject_areas(folder: Path) -> None:
    for more, box in (
        ({AREA: (75, 50)}, (0.25, 0.25, 0, 0)),
        ({AREA: (75, 50, 30)}, (0.2, 0.175, 0.1, 0.15)),
        ({LOCATION: (75, 50)}, (0.25, 0.25, 0, 0)),
        ({AREA: (750, 500), WIDTH: 3000, HEIGHT: 2000}, (0.25, 0.25, 0, 0)),  # a copy of a tenth of the size
    ):
        assert note("a.jpg", (200, 300), {}, more).focus == pytest.approx(box)
    for more in (
        {},
        {AREA: (0, 0)},
        {AREA: (400, 50)},
        {AREA: (75, 50, 9999, 1)},
        {AREA: (75, 50), WIDTH: 2000, HEIGHT: 2000},  # a part of the camera's image, and nobody knows which
        {AREA: (75, 50), WIDTH: 200, HEIGHT: 300},  # turned by a program
    ):
        assert note("a.jpg", (200, 300), {}, more).focus is None


def test_sensor_width(folder: Path) -> None:
    full = {WIDTH: 6000, HEIGHT: 4000, FOCAL_X: TiffImagePlugin.IFDRational(6000 * 10, 36), FOCAL_UNIT: 3}
    assert note("a.jpg", (200, 300), {}, full).sensor_width == pytest.approx(36)
    assert note("a.jpg", (200, 300), {ORIENTATION: 6}, full).sensor_width == pytest.approx(24)
    inches = full | {FOCAL_X: 6000 * 25.4 / 36, FOCAL_UNIT: 2}
    assert note("a.jpg", (200, 300), {}, inches).sensor_width == pytest.approx(36, rel=1e-4)
    film = {FOCAL: 50.0, FOCAL_35: 75}
    assert note("a.jpg", (200, 300), {}, film).sensor_width == pytest.approx(24, rel=1e-3)
    # The size was changed, but not the resolution: 50 mm that look like 50 mm are on a full frame.
    wrong = full | {WIDTH: 300, HEIGHT: 200, FOCAL: 50.0, FOCAL_35: 50}
    assert note("a.jpg", (200, 300), {}, wrong).sensor_width == pytest.approx(36, rel=1e-3)
    for more in ({}, {FOCAL_X: TiffImagePlugin.IFDRational(1, 0)}, {FOCAL: 50.0}, full | {WIDTH: 4000}):
        assert note("a.jpg", (200, 300), {}, more).sensor_width is None


def test_broken_metadata_is_none(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"no image")
    assert _metadata.read_metadata(folder / "a.jpg", (1, 1)) == _metadata.Metadata()
    Image.new("RGB", (9, 9)).save("b.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(256)))
    assert _metadata.read_metadata(folder / "b.jpg", (9, 9)).focus is None


@pytest.mark.parametrize(
    ("tags", "box"),
    [
        ({"FocusLocation": "6000 4000 1500 1000"}, (0.25, 0.25, 0, 0)),  # Sony
        ({"FocusPixel": "1500 1000", "ExifImageWidth": 6000, "ExifImageHeight": 4000}, (0.25, 0.25, 0, 0)),  # Fujifilm
        ({"AFPointPosition": "0.25 0.75"}, (0.25, 0.75, 0, 0)),  # Panasonic
        ({"AFPointPosition": "16777216 16777216"}, None),
        ({"AFPointSelected": "0.4 0.5 0.5 0.75"}, (0.4, 0.5, 0.1, 0.25)),  # Olympus
        ({"AFPointSelected": 3}, None),  # Pentax
        (  # Nikon
            {
                "AFImageWidth": 6000, "AFImageHeight": 4000, "AFAreaXPosition": 1500, "AFAreaYPosition": 1000,
                "AFAreaWidth": 600, "AFAreaHeight": 400,
            },
            (0.2, 0.2, 0.1, 0.1),
        ),
        (  # Canon: points 1 and 17 of 18
            {
                "Model": "Canon EOS R", "AFImageWidth": 1000, "AFImageHeight": 500, "AFPointsInFocus": "2 2",
                "AFAreaXPositions": "0 100" + " 0" * 15 + " 200", "AFAreaYPositions": "0 100" + " 0" * 15 + " 150",
                "AFAreaWidth": 100, "AFAreaHeight": 50,
            },
            (0.55, 0.15, 0.2, 0.2),
        ),
        ({"AFAreaXPositions": "0", "AFAreaYPositions": "0", "AFPointsInFocus": 0, "AFAreaWidth": 1, "AFAreaHeight": 1,
          "AFImageWidth": 9, "AFImageHeight": 9}, None),
        ({"Model": "X"}, None),
    ],
)  # fmt: skip
def test_makers_notes(folder: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, Any], box: Any) -> None:
    """What ExifTool prints, by a program in its place; names with spaces and dashes reach it whole."""
    photo = folder / "-a b#.jpg"
    program = folder / "exiftool"
    program.write_text(
        "#!/usr/bin/env python3\nimport json, sys\n"
        f"print(json.dumps([{{'SourceFile': sys.stdin.read(), **json.loads({json.dumps(tags)!r})}}]))\n"
        "sys.exit(1)\n"  # as where one of several files cannot be read
    )
    program.chmod(0o755)
    monkeypatch.setattr(_metadata.shutil, "which", lambda _: str(program))
    found = _metadata.exiftool_tags_of([photo, folder / "two\nlines.jpg"])
    assert set(found) == {photo}
    Image.new("RGB", (300, 200)).save(photo, exif=exif_of({ORIENTATION: 3}, {AREA: (9, 9)}))
    focus = _metadata.read_metadata(photo, (200, 300), found[photo]).focus
    known = box or (9 / 300, 9 / 200, 0, 0)
    assert focus == pytest.approx((1 - known[0] - known[2], 1 - known[1] - known[3], known[2], known[3]))


def test_raw_files_are_known_by_their_tags(folder: Path) -> None:
    """TIFF files of no image that Pillow knows; others are known by ExifTool."""
    colour_filter, cfa = 262, 32803
    exif = exif_of({MODEL: "X", ORIENTATION: 6, colour_filter: cfa}, {TAKEN: "2026:03:04 05:06:07", AREA: (75, 50)})
    (folder / "a.NEF").write_bytes(exif.tobytes().removeprefix(b"Exif\0\0"))
    taken = datetime.datetime(2026, 3, 4, 5, 6, 7)
    expected = _metadata.Metadata("X", taken, (0.75, 0.25, 0, 0))
    assert _metadata.read_metadata(folder / "a.NEF", (300, 200)) == expected
    (folder / "a.raf").write_bytes(b"FUJIFILMCCD-RAW ")
    assert _metadata.read_metadata(folder / "a.raf", (300, 200)) == _metadata.Metadata()
    told = {"Model": "X", "Orientation": 6, "DateTimeOriginal": "2026:03:04 05:06:07", "SubjectArea": "75 50"}
    assert _metadata.read_metadata(folder / "a.raf", (300, 200), told) == expected


# ---------------------------------------------------------------- sidecars

# As darktable 4.2.1 wrote it for a photograph with a tag; the history is of another of its files.
DARKTABLE = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:exif="http://ns.adobe.com/exif/1.0/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"
    xmlns:darktable="http://darktable.sf.net/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
   exif:DateTimeOriginal="2026:11:29 16:01:55.000"
   xmp:Rating="1"
   xmpMM:DerivedFrom="p1.jpg"
   darktable:import_timestamp="63931564993356690"
   darktable:change_timestamp="-1"
   darktable:export_timestamp="-1"
   darktable:print_timestamp="-1"
   darktable:xmp_version="5"
   darktable:raw_params="0"
   darktable:auto_presets_applied="1"
   darktable:history_end="2"
   darktable:iop_order_version="2">
   <darktable:masks_history>
    <rdf:Seq/>
   </darktable:masks_history>
   <darktable:history>
    <rdf:Seq>
     <rdf:li darktable:num="0" darktable:operation="colorout" darktable:enabled="1" darktable:modversion="5"
      darktable:params="gz35eJxjZBgFo4CBAQAEEAAC" darktable:multi_name="" darktable:multi_priority="0"
      darktable:blendop_version="11" darktable:blendop_params="gz14eJxjYIAACQYYOOHEgAZY0QVwggZ7CB6pfNoAAE8gGQg="/>
     <rdf:li darktable:num="1" darktable:operation="flip" darktable:enabled="1" darktable:modversion="2"
      darktable:params="ffffffff" darktable:multi_name="" darktable:multi_priority="0"
      darktable:blendop_version="11" darktable:blendop_params="gz14eJxjYIAACQYYOOHEgAZY0QVwggZ7CB6pfNoAAE8gGQg="/>
    </rdf:Seq>
   </darktable:history>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Käfer</rdf:li>
     <rdf:li>birds</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>birds|Käfer</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
LIGHTROOM = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="uuid:1" xmlns:q="http://ns.adobe.com/xap/1.0/"><q:Rating>0</q:Rating>
<crs:Exposure2012 xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/">+0.50</crs:Exposure2012></rdf:Description>
</rdf:RDF></x:xmpmeta>"""


def properties(text: str | bytes) -> set[tuple[str, ...]]:
    """Return all that an XMP file says, by another parser: every attribute and text with its place."""
    from xml.etree import ElementTree

    found = set()

    def walk(element: ElementTree.Element, place: str) -> None:
        for name, value in element.attrib.items():
            if not name.endswith("}about"):
                found.add((f"{place}/{name}", value))
        if (element.text or "").strip():
            found.add((place, (element.text or "").strip()))
        for number, child in enumerate(element):
            many = child.tag.endswith("}li")
            walk(child, f"{place}/{child.tag}" + (f"[{number}]" if many else ""))

    walk(ElementTree.fromstring(text), "")
    return found


DESCRIPTION = (
    "/{http://www.w3.org/1999/02/22-rdf-syntax-ns#}RDF/{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
)


def said(kind: str) -> set[tuple[str, ...]]:
    xmp, digikam = "{http://ns.adobe.com/xap/1.0/}", "{http://www.digikam.org/ns/1.0/}"
    if kind == "rating":
        return {(f"{DESCRIPTION}/{xmp}Rating", "5")}
    return {(f"{DESCRIPTION}/{xmp}Label", "Green"), (f"{DESCRIPTION}/{digikam}ColorLabel", "4")}


@pytest.mark.parametrize("kind", ["rating", "label"])
@pytest.mark.parametrize("before", [DARKTABLE, LIGHTROOM, None], ids=["darktable", "Lightroom", "none"])
def test_a_mark_is_all_that_changes(folder: Path, kind: str, before: str | None) -> None:
    path = folder / "a.jpg.xmp"
    old: set[tuple[str, ...]] = set()
    if before:
        path.write_text(before, encoding="utf-8")
        path.chmod(0o640)
        old = {each for each in properties(before.encode()) if kind == "label" or not each[0].endswith("Rating")}
    assert _xmp.mark(path, kind) == ""
    new = properties(path.read_bytes())
    assert {each for each in new if not each[0].endswith("xmptk")} == {
        each for each in old if not each[0].endswith("xmptk")
    } | said(kind)
    if before:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    written = path.stat()
    assert _xmp.mark(path, kind) == ""
    assert path.stat().st_ino == written.st_ino  # not written again
    assert set(os.listdir(folder)) == {"a.jpg.xmp"}


def test_comments_packets_and_prefixes_stay(folder: Path) -> None:
    path = folder / "a.xmp"
    packet = '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><!-- mine -->'
    path.write_text(packet + LIGHTROOM + '<?xpacket end="w"?>', encoding="utf-8")
    assert _xmp.mark(path, "rating") == ""
    text = path.read_text(encoding="utf-8")
    for kept in (
        "<?xpacket begin",
        "<!-- mine -->",
        '<?xpacket end="w"?>',
        "<q:Rating>5</q:Rating>",
        "crs:Exposure2012",
    ):
        assert kept in text


@pytest.mark.parametrize(
    ("kind", "there", "kept"),
    [
        ("rating", 'xmp:Rating="3"', "3"),
        ("rating", 'xmp:Rating="-1"', "-1"),
        ("rating", 'xmp:Rating="0.0"', ""),
        ("rating", 'xmp:Rating="5"', ""),
        ("label", 'xmp:Label="Red"', "Red"),
        ("label", 'digiKam:ColorLabel="1"', "1"),
        ("label", 'digiKam:ColorLabel="0"', ""),
        ("label", 'darktable:xmp_version="5"', ""),
    ],
)
def test_a_photographers_own_decision_stays(folder: Path, kind: str, there: str, kept: str) -> None:
    path = folder / "a.xmp"
    names = 'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:digiKam="http://www.digikam.org/ns/1.0/" '
    names += 'xmlns:darktable="http://darktable.sf.net/"'
    text = LIGHTROOM.replace("<q:Rating>0</q:Rating>", "").replace(
        "<rdf:Description", f"<rdf:Description {names} {there}"
    )
    path.write_text(text)
    assert _xmp.mark(path, kind) == kept
    if kept:
        assert path.read_text() == text
    else:
        assert said(kind) <= properties(path.read_bytes())


def test_darktables_own_labels_stay(folder: Path) -> None:
    path = folder / "a.xmp"
    labels = "<darktable:colorlabels><rdf:Seq><rdf:li>0</rdf:li><rdf:li>3</rdf:li></rdf:Seq></darktable:colorlabels>"
    text = DARKTABLE.replace("<dc:subject>", labels + "<dc:subject>")
    path.write_text(text, encoding="utf-8")
    assert _xmp.mark(path, "label") == "0 3"
    assert path.read_text(encoding="utf-8") == text


BOMB = '<!DOCTYPE x [<!ENTITY a "{}">{}]>'.format(
    "ha" * 100, "".join(f'<!ENTITY {b} "{f"&{a};" * 100}">' for a, b in itertools.pairwise("abcdefgh"))
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no XML"),
        (b"\x00\xff", "no XML"),
        (b"<a>", "no XML"),
        (b"<a/>", "without rdf:RDF"),
        (BOMB.encode() + LIGHTROOM.replace("+0.50", "&h;").encode(), "document type|Maximum entity amplification"),
        (
            b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + LIGHTROOM.replace("+0.50", "&e;").encode(),
            "document type",
        ),
    ],
    ids=["empty", "binary", "cut", "other", "bomb", "foreign"],
)
def test_what_is_no_sidecar_is_left_alone(folder: Path, content: bytes, message: str) -> None:
    path = folder / "a.xmp"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        _xmp.mark(path, "rating")
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match="sidecar"):
        _xmp.mark(folder, "rating")


def test_links_stay_links(folder: Path) -> None:
    (folder / "real.xmp").write_text(DARKTABLE, encoding="utf-8")
    (folder / "a.xmp").symlink_to("real.xmp")
    assert _xmp.mark(folder / "a.xmp", "rating") == ""
    assert (folder / "a.xmp").is_symlink()
    assert said("rating") <= properties((folder / "real.xmp").read_bytes())


# ---------------------------------------------------------------- the command


def save_burst(radii: tuple[float, ...], more: Exif | None = None) -> None:
    """Write one burst, 0.0.jpg and so on by its radii, of shots 0.1 s apart."""
    for number, radius in enumerate(radii):
        exif = exif_of({}, {TAKEN: "2026:03:04 05:06:07", SUBSEC: str(number), **(more or {})})
        Image.fromarray(blurred(sharp(), radius)).save(f"{radius}.jpg", exif=exif, quality=95)


def test_the_best_of_a_burst_is_named(cull: Cull, folder: Path) -> None:
    save_burst((2.0, 0.5, 1.25), {FOCAL: 50.0, FOCAL_35: 50})
    Image.fromarray(sharp(seed=5)).save("other.png")
    result = cull(".", "--csv", "o.csv", "--json", "o.json", "--xmp", "rating", "--xmp", "label")
    assert result.exit_code == 0, result.output
    assert next(line.split()[2] for line in result.stdout.splitlines() if ".jpg" in line) == "best"
    photos = json.loads((folder / "o.json").read_text())["photos"]
    assert [(each["photo"], each["burst"], each["best"]) for each in photos] == [
        ("other.png", 1, False),
        ("0.5.jpg", 2, True),
        ("1.25.jpg", 2, False),
        ("2.0.jpg", 2, False),
    ]
    last = photos[3]
    assert last["taken"] == "2026-03-04T05:06:07.000"
    assert last["whole"]["radius_px"] == pytest.approx(2, abs=0.3)
    assert last["whole"]["share_of_width"] == pytest.approx(last["whole"]["radius_px"] / 320)
    width_mm = 43.27 * 320 / np.hypot(256, 320)
    assert last["whole"]["radius_um"] == pytest.approx(last["whole"]["radius_px"] / 320 * width_mm * 1000)
    assert last["region"] is None
    assert photos[1]["share_in_focus"] > 0.9
    assert last["share_in_focus"] < 0.1
    with open("o.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["photo"] for line in lines] == [each["photo"] for each in photos]
    assert float(lines[3]["whole_radius_px"]) == last["whole"]["radius_px"]
    assert lines[3]["region_radius_px"] == ""
    assert {name for name in os.listdir() if name.endswith(".xmp")} == {"0.5.jpg.xmp"}
    assert said("rating") | said("label") <= properties((folder / "0.5.jpg.xmp").read_bytes())


def test_what_matters_is_where_the_camera_focused(cull: Cull, folder: Path) -> None:
    """One shot is sharp at the left, the other at the right."""
    halves = blurred(sharp(), 3)
    for name, columns in (("left", slice(0, 160)), ("right", slice(160, 320))):
        picture = halves.copy()
        picture[:, columns] = blurred(sharp(), 0.5 if name == "left" else 1.0)[:, columns]
        exif = exif_of({MODEL: "X"}, {TAKEN: "2026:03:04 05:06:07", AREA: (240, 128, 100, 160)})
        Image.fromarray(picture).save(f"{name}.png", exif=exif)

    def best(*arguments: str) -> list[str]:
        result = cull("left.png", "right.png", "--json", "o.json", *arguments)
        assert result.exit_code == 0, result.output
        return [each["photo"] for each in json.loads((folder / "o.json").read_text())["photos"] if each["best"]]

    assert best() == ["right.png"]
    assert best("--region", "0,0,0.4,1") == ["left.png"]
    assert best("--gap", "0", "--region", "0.6,0,0.4,1") == ["right.png"]


def test_bad_photographs_do_not_stop_the_others(cull: Cull, folder: Path) -> None:
    save_burst((1.0, 2.0))
    (folder / "broken.jpg").write_bytes(b"no")
    Image.new("L", (1, 1)).save("one.png")
    Image.new("L", (400, 300), 77).save("flat.png")
    result = cull(".", "absent.jpg", "--json", "o.json", "--csv", "o.csv")
    assert result.exit_code == 1
    assert "broken.jpg: not a JPEG" in result.stderr
    assert "absent.jpg: no such file" in result.stderr
    assert "2 of 6 failed" in result.stderr
    rows = {each["photo"]: each for each in json.loads((folder / "o.json").read_text())["photos"]}
    assert set(rows) == {"1.0.jpg", "2.0.jpg", "one.png", "flat.png", "broken.jpg", "absent.jpg"}
    assert rows["absent.jpg"] == {"photo": "absent.jpg", "error": "no such file"}
    with open("o.csv", newline="") as file:
        lines = {line["photo"]: line for line in csv.DictReader(file)}
    assert set(lines) == set(rows)
    assert lines["broken.jpg"]["error"] == rows["broken.jpg"]["error"]
    assert lines["1.0.jpg"]["error"] == lines["broken.jpg"]["burst"] == ""
    header = Path("o.csv").read_text().splitlines()[0]
    assert cull("absent.jpg", "--csv", "o.csv").exit_code == 1
    (line,) = csv.DictReader(Path("o.csv").read_text().splitlines())
    assert list(line) == header.split(",")
    assert {name: value for name, value in line.items() if value} == rows["absent.jpg"]
    assert rows["1.0.jpg"]["best"]
    assert rows["flat.png"]["whole"] is None
    assert rows["flat.png"]["sharpest"] is None
    assert rows["flat.png"]["share_in_focus"] is None


def test_sidecars_of_two_kinds(cull: Cull, folder: Path) -> None:
    save_burst((1.0, 2.0))
    (folder / "1.0.xmp").write_text(DARKTABLE.replace('Rating="1"', 'Rating="4"'), encoding="utf-8")
    result = cull(".", "--xmp", "rating", "--sidecar", "NAME.xmp")
    assert result.exit_code == 0
    assert "1.0.xmp: keeps its rating 4" in result.stderr
    assert not (folder / "1.0.jpg.xmp").exists()
    Image.open("1.0.jpg").save("1.0.png")
    (folder / "1.0.xmp").unlink()
    result = cull(".", "--xmp", "rating", "--sidecar", "NAME.xmp")
    assert result.exit_code == 1
    assert "another burst has the sidecar 1.0.xmp, too" in result.stderr
    assert not (folder / "1.0.xmp").exists()


def test_what_cannot_be_written_is_told(cull: Cull, folder: Path) -> None:
    save_burst((1.0, 2.0))
    (folder / "1.0.jpg.xmp").write_text("no sidecar")
    result = cull(".", "--xmp", "rating", "--xmp", "label", "--json", "o.json")
    assert result.exit_code == 1
    assert result.stderr.count("1.0.jpg.xmp: expected an XMP sidecar") == 1
    assert "failed" not in result.stderr
    assert (folder / "1.0.jpg.xmp").read_text() == "no sidecar"
    assert json.loads((folder / "o.json").read_text())["settings"]["region"] == "focus"


def test_wrong_usage(cull: Cull, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_burst((1.0,))
    for arguments, message in (
        (["--region", "0,0,2,1"], "expected focus, centre or X,Y,WIDTH,HEIGHT"),
        (["--region", "0.6,0,0.5,1"], "a rectangle in the picture"),
        (["--region", "nan,0,1,1"], "a rectangle in the picture"),
        (["--region", "eye"], "got eye"),
        (["--sidecar", "NAME.xmp"], "--sidecar is of --xmp"),
        (["--csv", "absent/o.csv"], "existing folder"),
    ):
        result = cull("1.0.jpg", *arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.replace("│", " ").split())
    monkeypatch.setitem(sys.modules, "lxml", None)
    result = cull("1.0.jpg", "--xmp", "rating")
    assert result.exit_code == 2
    assert 'pip install "defocus_fast[xmp]"' in result.stderr
