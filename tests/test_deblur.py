# SPDX-License-Identifier: Apache-2.0
"""Deblurring: what it computes, what it gains, what it leaves alone, what it refuses; and its command."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from images import texture
from numpy.typing import NDArray
from PIL import Image
from scipy import signal
from scipy.optimize import minimize_scalar

import defocus_fast
from defocus_fast import _deblur, _disk, cli

Array = NDArray[Any]


def psnr(image: Array, truth: Array) -> float:
    return float(10 * np.log10(255**2 / np.mean((image.astype(float) - truth) ** 2)))


def disk(radius: float) -> Array:
    areas = _disk.disk_areas(radius)
    return areas / areas.sum()


def blurred(image: Array, radius: float, noise: float = 0.003) -> NDArray[np.uint8]:
    """Return a uint8 image blurred by convolution with a disk, going on mirrored, with noise."""
    kernel = disk(radius)
    half = len(kernel) // 2
    padding = [(half, half), (half, half), (0, 0)][: image.ndim]
    wide = np.pad(image.astype(float), padding, mode="symmetric").reshape(*(s + 2 * half for s in image.shape[:2]), -1)
    planes = [signal.fftconvolve(wide[..., c], kernel, mode="valid") for c in range(wide.shape[2])]
    values = np.stack(planes, 2).reshape(image.shape)
    values += 255 * noise * np.random.default_rng(0).standard_normal(image.shape)
    return np.uint8(np.rint(np.clip(values, 0, 255)))


def test_disk_areas_add_up_to_the_disk() -> None:
    for radius in (0.2, 0.5, 1.3, 7.0, 40.0):
        areas = _disk.disk_areas(radius)
        assert areas.sum() == pytest.approx(np.pi * radius**2, rel=2e-2 if radius < 1 else 1e-3)
        assert areas.max() <= 1
        assert areas[0].any()
        assert len(areas) % 2


@pytest.mark.parametrize(("radius", "height", "width"), [(1.3, 20, 33), (4.0, 40, 25), (9.0, 11, 7)])
def test_the_transfer_is_that_of_a_convolution_with_the_mirrored_image(radius: float, height: int, width: int) -> None:
    """Also of a disk that is larger than the image."""
    from scipy.fft import dctn, idctn

    image = np.random.default_rng(0).random((height, width))
    expected = signal.convolve(np.pad(image, 20, mode="symmetric"), disk(radius), mode="same")[20:-20, 20:-20]
    found = idctn(_deblur._transfer(radius, height, width) * dctn(image))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 30.0, 2000.0])
def test_shrinking_finds_the_minimum(beta: float) -> None:
    """Against a search; near the threshold, where 0 and the root are as good, either may be taken."""
    v = np.linspace(-1.2, 1.2, 97, dtype=np.float32) * np.float32(3 * beta ** (-2 / 3))
    found = v.copy()
    _deblur._shrink(found, beta)
    for value, w in zip(v, found, strict=True):

        def energy(w: float, value: float = float(value)) -> float:
            return abs(w) ** 0.5 + beta / 2 * (w - value) ** 2

        root = minimize_scalar(energy, bounds=sorted((value / 3, value * 1.01)), method="bounded").x if value else 0.0
        assert energy(float(w)) <= min(energy(0.0), energy(root)) * (1 + 1e-4) + 1e-9
    assert (found == 0).any()
    assert (found != 0).any()


@pytest.mark.parametrize("radius", [0.9, 2.0, 5.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_blurred_image_becomes_sharper(radius: float, channels: int) -> None:
    """With the right radius; a wrong one helps less, whatever the channels."""
    squares = np.kron(np.random.default_rng(1).integers(30, 220, (16, 20, 3)), np.ones((9, 9, 1))).astype(np.uint8)
    sharp = squares if channels == 3 else squares[..., 0]
    soft = blurred(sharp, radius)
    gains = {
        factor: psnr(defocus_fast.deblur(soft, np.full(soft.shape[:2], factor * radius), noise=0.003), sharp)
        - psnr(soft, sharp)
        for factor in (0.6, 1.0, 1.7)
    }
    assert gains[1.0] > 4
    assert gains[1.0] > max(gains[0.6], gains[1.7]) + 1


def test_every_part_is_deblurred_by_its_own_radius() -> None:
    """The sharp half, full of edges, stays as it is, and does not ring into the other one."""
    sharp = texture(160, 240)
    radii = np.full((160, 240), 4.0, np.float32)
    radii[:, 120:] = 0.5
    soft = np.where(radii[..., None] > 1, blurred(sharp, 4.0, 0.0), sharp)
    found = defocus_fast.deblur(soft, radii)
    np.testing.assert_array_equal(found[:, 120:], sharp[:, 120:])
    for columns in (slice(0, 80), slice(80, 116)):
        assert psnr(found[:, columns], sharp[:, columns]) > psnr(soft[:, columns], sharp[:, columns]) + 1.5


def test_radii_in_between_lie_in_between() -> None:
    soft = blurred(texture(90, 90)[..., 0], 2.0)
    low, high = _deblur._step(5), _deblur._step(6)
    both = [defocus_fast.deblur(soft, np.full(soft.shape, r)).astype(float) for r in (low, high)]
    middle = defocus_fast.deblur(soft, np.full(soft.shape, (low + high) / 2))
    # Not exactly: what is deblurred by the upper one is first blurred up to it.
    assert np.abs(middle - (both[0] + both[1]) / 2).mean() < 0.4 * np.abs(both[0] - both[1]).mean()


def test_the_border_is_as_good_as_the_middle() -> None:
    """Of an image that goes on beyond it, unknown to the deblurring."""
    sharp = texture(200, 200)[..., 1]
    soft = blurred(sharp, 3.0)[20:-20, 20:-20]
    error = np.abs(defocus_fast.deblur(soft, np.full(soft.shape, 3.0)).astype(float) - sharp[20:-20, 20:-20])
    edge = np.ones_like(error, bool)
    edge[10:-10, 10:-10] = False
    assert error[edge].mean() < 2 * error[~edge].mean()


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = blurred(texture(300, 420)[..., 0], 2.5)
    radii = np.linspace(0.3, 2.5, 300 * 420, dtype=np.float32).reshape(300, 420)
    whole = defocus_fast.deblur(soft, radii).astype(float)
    monkeypatch.setattr(_deblur, "TILE", 150)
    tiled = defocus_fast.deblur(soft, radii).astype(float)
    assert np.abs(tiled - whole).mean() < 0.1
    steps = [np.abs(np.diff(image, axis=1)).mean(0) for image in (tiled, whole)]
    for border in (140, 280):  # of 420 px in tiles of 140
        assert steps[0][border - 1] < steps[1][border - 1] + 0.2


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_deblur, "TILE", 100)
    soft, radii = texture(110, 210), np.random.default_rng(0).uniform(0, 4, (110, 210))
    answers = [defocus_fast.deblur(soft, radii, num_threads=threads) for threads in (1, 5, None)]
    for one, other in itertools.pairwise(answers):
        np.testing.assert_array_equal(one, other)


def test_linear_light() -> None:
    """What was blurred in light is deblurred better in light, which shows where black meets white."""
    light = np.kron(np.random.default_rng(3).random((12, 12)) > 0.5, np.ones((8, 8)))
    kernel = disk(2.5)
    soft = signal.fftconvolve(np.pad(light, 8, mode="symmetric"), kernel, mode="same")[8:-8, 8:-8].clip(0, 1)
    values = np.where(soft <= 0.0031308, 12.92 * soft, 1.055 * soft ** (1 / 2.4) - 0.055).astype(np.float32)
    radii = np.full(values.shape, 2.5)
    errors = [
        np.abs(defocus_fast.deblur(values, radii, linear_light=linear) - light).mean() for linear in (False, True)
    ]
    assert errors[1] < 0.7 * errors[0]
    same = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(_deblur._from_light(_deblur._to_light(same)), same, atol=1e-6)


def test_the_noisier_the_smoother() -> None:
    soft = blurred(texture(120, 120)[..., 0], 2.0, noise=0.03)
    sums = [
        np.abs(np.diff(defocus_fast.deblur(soft, np.full(soft.shape, 2.0), noise=noise).astype(float))).sum()
        for noise in (0.0, 0.01, 0.03)
    ]
    assert all(before > 1.1 * after for before, after in itertools.pairwise(sums))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (1, 40), (40, 1), (2, 3, 3), (7, 7, 3), (37, 41)])
@pytest.mark.parametrize("radius", [0.0, 0.5, 3.0, 600.0])
def test_images_of_every_size_and_blur(shape: tuple[int, ...], radius: float) -> None:
    """A flat image has nothing to sharpen; what is sharp stays as it is."""
    radii = np.full(shape[:2], radius)
    for flat in (np.full(shape, 77, np.uint8), np.full(shape, 0.3, np.float32)):
        found = defocus_fast.deblur(flat, radii)
        assert found.dtype == flat.dtype
        assert found.shape == shape
        np.testing.assert_allclose(found, flat, atol=1e-5)
    if radius <= 0.5:
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        np.testing.assert_array_equal(defocus_fast.deblur(image, radii), image)


def test_arguments_are_left_alone() -> None:
    frame = texture(60, 80)[::-1, :, ::-1]
    copy, radii = frame.copy(), np.full((60, 80), 2, np.uint8)
    frame.flags.writeable = radii.flags.writeable = False
    np.testing.assert_array_equal(defocus_fast.deblur(frame, radii), defocus_fast.deblur(copy, np.full((60, 80), 2.0)))
    np.testing.assert_array_equal(frame, copy)


IMAGE, RADII = np.zeros((4, 5, 3), np.uint8), np.ones((4, 5))


@pytest.mark.parametrize(
    ("image", "radii", "options", "error", "message"),
    [
        (IMAGE.astype(float), RADII, {}, TypeError, "image: expected uint8 or float32"),
        (IMAGE[..., :2], RADII, {}, ValueError, "image: expected uint8 or float32 of shape"),
        (np.full((4, 5), 1.5, np.float32), RADII, {}, ValueError, "image: expected float32 in [0, 1]"),
        (np.full((4, 5), np.nan, np.float32), RADII, {}, ValueError, "image: expected float32 in [0, 1]"),
        ("otters.jpg", RADII, {}, TypeError, "image: expected a NumPy array"),
        (IMAGE, RADII.T, {}, ValueError, "radii: expected shape (4, 5), that of the image, got (5, 4)"),
        (IMAGE, -RADII, {}, ValueError, "radii: expected finite numbers >= 0"),
        (IMAGE, RADII * np.nan, {}, ValueError, "radii: expected finite numbers >= 0"),
        (IMAGE, RADII * np.inf, {}, ValueError, "radii: expected finite numbers >= 0"),
        (IMAGE, RADII > 0, {}, TypeError, "radii: expected real numbers, got bool"),
        (IMAGE, RADII, {"noise": -0.1}, ValueError, "noise: expected a number from 0 to 1, got -0.1"),
        (IMAGE, RADII, {"noise": float("nan")}, ValueError, "noise: expected a number from 0 to 1, got nan"),
        (IMAGE, RADII, {"noise": "low"}, TypeError, "noise: expected a number from 0 to 1, got 'low'"),
        (IMAGE, RADII, {"num_threads": 0}, ValueError, "num_threads: expected an integer from 1 to 1024, got 0"),
        (IMAGE, RADII, {"num_threads": 1.5}, TypeError, "num_threads: expected an integer from 1 to 1024, got 1.5"),
    ],
)
def test_bad_arguments(image: Any, radii: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        defocus_fast.deblur(image, radii, **options)
    assert message in str(raised.value)


def test_without_scipy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the extra, and nothing else needs SciPy."""
    monkeypatch.setitem(sys.modules, "scipy.fft", None)
    with pytest.raises(ImportError, match='pip install "defocus_fast\\[deblur\\]"'):
        defocus_fast.deblur(IMAGE, RADII)
    Image.fromarray(texture(40, 40)).save(tmp_path / "a.png")
    result = CliRunner().invoke(cli.main, ["deblur", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert 'pip install "defocus_fast[deblur]"' in result.stderr
    assert not (tmp_path / "out").exists()


# ---- the command


def test_the_command_deblurs_by_the_estimated_map(random_model: str, folder: Path) -> None:
    photo = texture(64, 96)
    Image.fromarray(photo).save("a b.png")
    deep = np.random.default_rng(0).integers(0, 65536, (50, 60), np.uint16)
    Image.fromarray(deep).save("deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo).save("turned.png", exif=exif)
    Path("broken.jpg").write_bytes(b"no")
    options = ["--model", random_model, "--precision", "float32", "--threads", "2", "--noise", "0.02", "-o", "out"]
    files = ["a b.png", "deep.png", "turned.png", "broken.jpg"]
    result = CliRunner().invoke(cli.main, ["deblur", *files, *options])
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines() == ["broken.jpg: not a JPEG, PNG, TIFF, WebP, HEIC or RAW image", "1 of 4 failed"]
    assert "96 x 64" in result.stdout
    written = {path.name: np.asarray(Image.open(path)) for path in Path("out").iterdir()}
    assert set(written) == {"a b.deblurred.png", "deep.deblurred.png", "turned.deblurred.png"}

    def expected(image: Array) -> Array:
        radii = defocus_fast.estimate_blur(image, model=random_model, precision="float32")
        return defocus_fast.deblur(image, radii, noise=0.02)

    np.testing.assert_array_equal(written["a b.deblurred.png"], expected(photo))
    np.testing.assert_array_equal(written["turned.deblurred.png"], expected(np.rot90(photo, -1)))
    real = np.float32(deep) / 65535
    np.testing.assert_array_equal(written["deep.deblurred.png"], np.rint(expected(real) * 65535))
    assert (written["deep.deblurred.png"] % 257 != 0).any(), "16 bits, not 8"


def test_results_of_earlier_runs_are_no_photographs(random_model: str, folder: Path) -> None:
    Image.fromarray(texture(40, 50)).save("a.png")
    for _ in range(2):
        result = CliRunner().invoke(cli.main, ["deblur", ".", "--model", random_model])
        assert result.exit_code == 0, result.output
        assert {path.name for path in folder.iterdir()} == {"a.png", "a.deblurred.png"}


def test_no_photograph_is_overwritten(random_model: str, folder: Path) -> None:
    for name in ("a.png", "a.deblurred.png"):
        Image.fromarray(texture(40, 50)).save(name)
    before = Path("a.deblurred.png").read_bytes()
    result = CliRunner().invoke(cli.main, ["deblur", ".", "--model", random_model])
    assert result.exit_code == 1
    assert "a.deblurred.png would overwrite a photograph of this run" in result.stderr
    assert Path("a.deblurred.png").read_bytes() == before


@pytest.mark.parametrize("arguments", [["--noise", "2"], ["--noise", "nan"], ["--model", "no-such"], ["-o", "a.png"]])
def test_wrong_usage_is_status_2(folder: Path, arguments: list[str]) -> None:
    Image.fromarray(texture(40, 50)).save("a.png")
    result = CliRunner().invoke(cli.main, ["deblur", "a.png", *arguments])
    assert result.exit_code == 2, result.output
    assert [path.name for path in folder.iterdir()] == ["a.png"]
