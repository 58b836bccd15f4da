# SPDX-License-Identifier: Apache-2.0
"""Formats of files and colours that are read, and units and formats in which results are written."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pillow_heif
import pytest
import tifffile
from click.testing import Result
from images import texture
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

import defocus_fast
from defocus_fast import _images, _units

Floats = NDArray[np.float64]
Estimate = Callable[..., Result]


# ---- units and what is written


def test_sigma_is_of_the_same_variance_as_the_disk() -> None:
    x, y = np.meshgrid(np.linspace(-30, 30, 1201), np.linspace(-30, 30, 1201))
    disk = x**2 + y**2 <= 20**2
    deviation = np.sqrt((x**2)[disk].mean())
    assert deviation == pytest.approx(20 * _units.FACTORS["sigma"], rel=1e-3)
    assert np.ptp(x[disk]) == pytest.approx(20 * _units.FACTORS["diameter"], rel=1e-3)


@pytest.mark.parametrize(("unit", "factor"), [("radius", 1), ("diameter", 2), ("sigma", 0.5)])
def test_every_file_has_the_unit(estimate: Estimate, folder: Path, unit: str, factor: float) -> None:
    Image.fromarray(texture(40, 60)).save("a.png")
    assert estimate("a.png", "--save", "npy", "--save", "error", "-o", "radius").exit_code == 0
    every = [option for kind in ("npy", "error", "png", "tif", "exr", "overlay") for option in ("--save", kind)]
    result = estimate("a.png", *every, "--unit", unit)
    assert result.exit_code == 0, result.output
    expected = np.load("radius/a.blur.npy") * np.float32(factor)
    assert expected.dtype == np.float32
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(np.load("a.blur.npy"), expected)
    np.testing.assert_array_equal(np.load("a.error.npy"), np.load("radius/a.error.npy") * np.float32(factor))
    with tifffile.TiffFile("a.blur.tif") as tif:
        (page,) = tif.pages
        np.testing.assert_array_equal(page.asarray(), expected)
        text = page.description
    with OpenEXR.File("a.blur.exr") as exr:
        np.testing.assert_array_equal(exr.channels()["Y"].pixels, expected)
        assert exr.header()["blur_unit"] == f"{unit}, px"
        assert exr.header()["comments"] == text
    with Image.open("a.blur.png") as png:
        np.testing.assert_allclose(np.asarray(png) / 500, expected, atol=0.001001)
        assert png.text["blur_unit"] == unit  # type: ignore[attr-defined]
        assert png.text["Description"].startswith(text)
    assert text.startswith(
        "blur radius" if unit == "radius" else f"{unit} ({factor:g} * blur radius by defocus_fast), in pixels"
    )
    median = f"{np.median(expected):.2f}"
    assert median in next(line for line in result.stdout.splitlines() if "a.png" in line).split()
    assert f"{unit} in px = value / 500" in result.stdout


def test_results_are_no_photographs(estimate: Estimate, folder: Path) -> None:
    """Those of any kind and unit are left alone when their folder is done again; pictures of such names are not."""
    for name in ("a.png", "b.mask.png", "b.blur.tif"):
        Image.fromarray(texture(20, 30)).save(name)
    kinds = [option for kind in ("png", "overlay", "mask", "tif") for option in ("--save", kind)]
    photos = {path.name for path in folder.iterdir()}
    results = {
        stem + suffix
        for stem in ("a", "b.mask", "b.blur")
        for suffix in (".blur.png", ".overlay.jpg", ".mask.png", ".blur.tif")
    }
    for unit in ("diameter", "sigma"):
        assert estimate(".", *kinds, "--unit", unit).exit_code == 0
        assert {path.name for path in folder.iterdir()} == photos | results | {"defocus_fast.jsonl"}


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ([], lambda radii: radii.min() + 0.3 * np.ptp(radii)),
        (["--alpha", "0.7"], lambda radii: radii.min() + 0.7 * np.ptp(radii)),
        (["--threshold", "7"], lambda radii: 7 / 2),
    ],
)
def test_masks(estimate: Estimate, folder: Path, options: list[str], least: Callable[[Floats], float]) -> None:
    """Equation 5, or a limit in px of the unit."""
    Image.fromarray(texture(60, 80)).save("a.png")
    assert estimate("a.png", "--save", "npy").exit_code == 0
    radii = np.load("a.blur.npy").astype(float)
    result = estimate("a.png", "--save", "mask", "--unit", "diameter", *options)
    assert result.exit_code == 0, result.output
    with Image.open("a.mask.png") as image:
        assert image.mode == "1"
        mask = np.asarray(image)
    expected = radii >= least(radii)
    assert 0 < expected.mean() < 1, np.quantile(radii, (0, 0.5, 1))
    assert (mask != expected).mean() < 0.001, "but for rounding"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0.5"], "--alpha is of --save mask"),
        (["--threshold", "1"], "--threshold is of --save mask"),
        (["--save", "mask", "--threshold", "1", "--alpha", "0.5"], "expected --alpha or --threshold, got both"),
        (["--save", "mask", "--alpha", "1.5"], "1.5"),
        (["--unit", "mm"], "mm"),
        (["--ray", "--unit", "sigma"], "--unit is not of --ray"),
        (["--ray", "--alpha", "0"], "--alpha is not of --ray"),
        (["--ray", "--report", "page.html"], "--report is not of --ray"),
    ],
)
def test_options_that_do_not_fit(estimate: Estimate, folder: Path, options: list[str], message: str) -> None:
    Image.fromarray(texture(20, 30)).save("a.png")
    result = estimate("a.png", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert [path.name for path in folder.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("package", "extra", "name", "options", "status"),
    [
        ("OpenEXR", "exr", "a.png", ["--save", "exr"], 2),
        ("jinja2", "report", "a.png", ["--report", "a.html"], 2),
        ("pillow_heif", "heic", "a.heic", [], 1),
        ("rawpy", "raw", "a.NEF", [], 1),
    ],
)
def test_missing_packages_are_named(
    estimate: Estimate,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
    name: str,
    options: list[str],
    status: int,
) -> None:
    if name == "a.NEF":
        Path(name).write_bytes(b"II*\0")
    else:
        pillow_heif.register_heif_opener()
        Image.fromarray(texture(20, 30)).save(name)
    monkeypatch.setitem(sys.modules, package, None)
    result = estimate(name, *options)
    assert result.exit_code == status
    assert f'the package {package} is needed: pip install "defocus_fast[{extra}]"' in result.stderr


def test_extras_are_loaded_by_what_needs_them(folder: Path, random_model: str) -> None:
    Image.fromarray(texture(20, 30)).save("a.png")
    program = (
        "import sys; from click.testing import CliRunner; from defocus_fast import cli;"
        f"r = CliRunner().invoke(cli.main, ['estimate', 'a.png', '--model', {random_model!r}]); assert not r.exit_code;"
        "print({'rawpy', 'pillow_heif', 'OpenEXR', 'jinja2', 'matplotlib'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


# ---- colours


def to_linear(values: Floats) -> Floats:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def from_linear(light: Floats) -> Floats:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def to_xyz(red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float]) -> Floats:
    """Return the matrix from linear RGB of these chromaticities and white D65 to XYZ."""
    x, y = np.array([red, green, blue]).T
    primaries = np.array([x / y, np.ones(3), (1 - x - y) / y])
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    matrix: Floats = primaries * np.linalg.solve(primaries, white)
    return matrix


SRGB = to_xyz((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = to_xyz((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = to_xyz((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))


def as_8_bits(values: Floats) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def in_p3(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return as_8_bits(from_linear(to_linear(picture / 255) @ (np.linalg.inv(DISPLAY_P3) @ SRGB).T))


def in_adobe_rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    light = to_linear(picture / 255) @ (np.linalg.inv(ADOBE_RGB) @ SRGB).T
    return as_8_bits(np.maximum(light, 0) ** (256 / 563))


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def p3_profile() -> bytes:
    """The profile of sRGB, whose tone curve Display P3 has too, with other primaries, adapted to D50 by Bradford."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50, d65 = bradford @ [0.9642, 1, 0.8249], bradford @ DISPLAY_P3.sum(1)
    primaries = np.linalg.inv(bradford) @ np.diag(d50 / d65) @ bradford @ DISPLAY_P3
    profile = bytearray(srgb_profile())
    (count,) = struct.unpack_from(">I", profile, 128)
    for i in range(count):
        key, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        if key in (b"rXYZ", b"gXYZ", b"bXYZ"):
            xyz = primaries[:, b"rgb".index(key[:1])]
            struct.pack_into(">3i", profile, offset + 8, *(round(value * 65536) for value in xyz))
    return bytes(profile)


def adobe_rgb_exif(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({0xA001: 65535})
    exif.get_ifd(0x8769)[0xA005] = {1: "R03", 2: b"0100"}
    return exif.tobytes()


def saved(picture: NDArray[np.uint8], name: str, **options: Any) -> NDArray[Any]:
    """What is read of a picture that is saved with such options."""
    Image.fromarray(picture).save(name, **options)
    return _images.read_photo(Path(name))


def colourful(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Saturated colours that the other spaces have, too: edges everywhere."""
    levels = np.random.default_rng(5).choice([20, 130, 240], (height // 8, width // 8, 3))
    return np.kron(levels, np.ones((8, 8, 1))).astype(np.uint8)


PROFILES = [
    ("Display P3", in_p3, lambda: {"icc_profile": p3_profile()}),
    ("Adobe RGB, of which Exif tells", in_adobe_rgb, lambda: {"exif": adobe_rgb_exif()}),
]


@pytest.mark.parametrize(("name", "convert", "options"), PROFILES, ids=[name for name, _, _ in PROFILES])
def test_a_picture_in_another_colour_space_has_the_map_of_its_srgb_form(
    folder: Path, name: str, convert: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], options: Callable[[], Any]
) -> None:
    plain = colourful()
    other = convert(plain)
    assert np.abs(other.astype(int) - plain).max() > 20, "they are stored in other numbers"
    jpeg = {"quality": 100, "subsampling": 0}
    for suffix, more in (("png", {}), ("tif", {}), ("webp", {"lossless": True}), ("jpg", jpeg)):
        if suffix == "tif" and "exif" in options():
            continue  # Pillow writes its tags as TIFF's own, without the interoperability index
        errors = np.abs(saved(other, f"a.{suffix}", **options(), **more).astype(int) - plain)
        assert errors.mean() < 1, suffix
        if suffix != "jpg":
            assert errors.max() <= 3, "rounding to 8 bits in the other space is up to three levels in this one"
    estimator = defocus_fast.Estimator(*plain.shape[:2], precision="float32")
    expected, unconverted = estimator.estimate(plain).map, estimator.estimate(other).map
    mapped = estimator.estimate(_images.read_photo(Path("a.png"))).map
    assert np.abs(mapped - expected).mean() < 0.001
    assert np.abs(unconverted - expected).mean() > 0.004, "the colour space matters to this picture"


def test_colours_of_turned_and_veiled_pictures(folder: Path) -> None:
    """Orientation, profile and transparency do not get in each other's way."""
    plain = colourful()
    got = saved(in_adobe_rgb(plain), "turned.png", exif=adobe_rgb_exif(orientation=6))
    assert np.abs(got.astype(int) - np.rot90(plain, -1)).max() <= 3
    veiled = Image.fromarray(in_p3(plain)).convert("RGBA")
    alpha = np.full(plain.shape[:2], 255, np.uint8)
    alpha[:10] = 0
    veiled.putalpha(Image.fromarray(alpha))
    for image, name in ((veiled, "veiled.png"), (veiled.quantize(64), "palette.png")):
        image.save(name, icc_profile=p3_profile())
        got = _images.read_photo(Path(name)).astype(int)
        assert (got[:10] == 255).all(), name
        assert np.abs(got[10:] - plain[10:]).mean() < (1 if name == "veiled.png" else 8), name


def test_srgb_is_left_as_it_is(folder: Path) -> None:
    """Bit for bit, and also where the profile is of no use."""
    plain = texture(50, 70)
    for profile in (srgb_profile(), b"", b"nonsense", srgb_profile()[:200], p3_profile()[:-200]):
        np.testing.assert_array_equal(saved(plain, "a.png", icc_profile=profile), plain)
    np.testing.assert_array_equal(saved(plain[..., 0], "grey.png", icc_profile=p3_profile()), plain[..., 0])


def test_profiles_of_greyscale(folder: Path) -> None:
    """Linear light, as scanners and scientists store it."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + struct.pack(">II", 0, 0) + bytes(4)
    header = b"\2\x10\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + white[8:] + bytes(48)
    tags = struct.pack(">I", 2) + b"wtpt" + struct.pack(">II", 156, 20) + b"kTRC" + struct.pack(">II", 176, 12)
    profile = struct.pack(">I", 192) + bytes(4) + header + tags + white + curve
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = as_8_bits(from_linear(grey / 255))
    got = saved(grey, "a.png", icc_profile=profile)
    assert got.shape == (16, 16)
    assert np.abs(got.astype(int) - expected).max() <= 1
    image = Image.fromarray(np.stack([grey, np.full_like(grey, 255)], -1), "LA")
    image.save("b.png", icc_profile=profile)
    np.testing.assert_array_equal(_images.read_photo(folder / "b.png"), got)


# ---- HEIC and RAW


def test_heic(folder: Path) -> None:
    """Whatever its name, turned once, and in Display P3 as telephones write it."""
    pillow_heif.register_heif_opener()
    plain = colourful()
    image = Image.fromarray(in_p3(plain))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save("a.heic", quality=-1, chroma=444, icc_profile=p3_profile(), exif=exif.tobytes())
    assert b"irot" in Path("a.heic").read_bytes(), "it is stored lying"
    Path("really_heic.jpg").write_bytes(Path("a.heic").read_bytes())
    for name in ("a.heic", "really_heic.jpg"):
        got = _images.read_photo(folder / name)
        assert np.abs(got.astype(int) - np.rot90(plain, -1)).mean() < 2
        np.testing.assert_array_equal(_images.read_photo(io.BytesIO(Path(name).read_bytes())), got)


def write_dng(path: str, mosaic: NDArray[np.uint16], orientation: int) -> None:
    """Write a RAW file of a camera with the mosaic RGGB whose colours are those of sRGB."""
    camera_to_xyz = to_xyz((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
    matrix = [part for value in np.linalg.inv(camera_to_xyz).ravel() for part in (round(value * 10000), 10000)]
    tags = [
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, "s", 0, "Test", True),  # UniqueCameraModel
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern
        (50721, "2i", 9, matrix, True),  # ColorMatrix1
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
        (50717, "H", 1, 65535, True),  # WhiteLevel
        (274, "H", 1, orientation, True),
    ]
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=tags, metadata=None)


@pytest.mark.parametrize("orientation", [1, 6])
def test_raw(estimate: Estimate, folder: Path, orientation: int) -> None:
    """Colours where they belong, turned as the camera says."""
    mosaic = np.full((96, 128), 3000, np.uint16)
    mosaic[::2, :64:2] = 30000  # red pixels of the left half
    mosaic[1:48:2, 65::2] = 30000  # blue ones of the upper right quarter
    write_dng("a.DNG", mosaic, orientation)
    photo = _images.read_photo(Path("a.DNG"))
    assert photo.dtype == np.uint8
    np.testing.assert_array_equal(_images.read_photo(io.BytesIO(Path("a.DNG").read_bytes()), "b.dng"), photo)
    photo = np.rot90(photo) if orientation == 6 else photo
    assert photo.shape == (96, 128, 3)
    quarters = [
        photo[rows, columns].mean((0, 1))
        for rows in (np.s_[8:40], np.s_[56:88])
        for columns in (np.s_[8:56], np.s_[72:120])
    ]
    assert [int(quarter.argmax()) for quarter in quarters[:3]] == [0, 2, 0]
    assert np.ptp(quarters[3]) < 5, "grey, as it was taken"
    assert estimate(".", "--save", "npy").exit_code == 0, "folders have RAW files, too"
    assert np.load("a.blur.npy").shape == ((128, 96) if orientation == 6 else (96, 128))


def test_files_that_are_broken(estimate: Estimate, folder: Path) -> None:
    pillow_heif.register_heif_opener()
    write_dng("whole.dng", np.full((96, 128), 3000, np.uint16), 1)
    Image.fromarray(colourful()).save("whole.heic")
    contents = {
        "empty.cr2": b"",
        "text.nef": b"not an image" * 100,
        "cut.dng": Path("whole.dng").read_bytes()[:5000],
        "head.arw": Path("whole.dng").read_bytes()[:100],
        "cut.heic": Path("whole.heic").read_bytes()[:600],
        "text.heic": b"not an image" * 100,
    }
    for name, content in contents.items():
        Path(name).write_bytes(content)
    result = estimate(".", "--save", "npy")
    assert result.exit_code == 1
    for name in contents:
        assert sum(line.startswith(f"{name}: ") for line in result.stderr.splitlines()) == 1, result.stderr
    assert "LibRaw cannot read it" in result.stderr
    assert {path.name for path in folder.glob("*.npy")} == {"whole.blur.npy", "whole-2.blur.npy"}


def test_tiff_files_of_other_pixels(folder: Path) -> None:
    """They are TIFF files, and so it is said what of them is not read."""
    for kind, name, bigtiff in ((np.float32, "floating point", False), (np.uint32, "whole numbers", True)):
        tifffile.imwrite("a.tif", np.zeros((8, 8, 3), kind), photometric="rgb", bigtiff=bigtiff)
        with pytest.raises(ValueError, match=f"expected a TIFF file of 8 or .*, got 3 of 32 bits, {name}"):
            _images.read_photo(Path("a.tif"))
    Path("a.tif").write_bytes(Path("a.tif").read_bytes()[:40])
    with pytest.raises(UnidentifiedImageError):
        _images.read_photo(Path("a.tif"))


def test_raw_files_of_too_many_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dng("a.dng", np.full((96, 128), 3000, np.uint16), 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with pytest.raises(ValueError, match="expected at most 12000 pixels, got 12288"):
        _images.read_photo(Path("a.dng"))
