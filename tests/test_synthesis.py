# SPDX-License-Identifier: Apache-2.0
"""The synthesis of training and test scenes: what the shipped weights learned, and what they are judged by."""

from __future__ import annotations

import re
import signal
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import texture
from PIL import Image

import defocus_fast
from training import fetch, scenes, synthesis
from training.synthesis import AMBIGUOUS, DEPTH, PATTERN, Aperture, Camera, Images, Layer

MARGIN = synthesis.MARGIN


@pytest.fixture(scope="module")
def images() -> Images:
    """Photographs and cut-outs of noise."""
    photos = [texture(300, 420, seed=seed) for seed in range(3)]
    y, x = np.mgrid[:60, :80]
    alpha = np.uint8(255 * ((y - 30) ** 2 / 25**2 + (x - 40) ** 2 / 35**2 < 1))
    cutouts = [np.dstack([texture(60, 80, seed=seed), alpha]) for seed in (7, 8)]
    return Images(photos, cutouts)


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.75, 1.0, 2.37, 6.0, 6.5])
def test_the_kernel_of_the_disk_is_area_exact(radius: float) -> None:
    """Against 200 x 200 points in every pixel; the strips of the kernel are exact to about 1 / 64^1.5 of a pixel."""
    kernel = synthesis.kernel_of(radius)
    half = len(kernel) // 2
    points = (np.arange(len(kernel) * 200) + 0.5) / 200 - half - 0.5
    inside = points[:, None] ** 2 + points**2 <= radius**2
    area = inside.reshape(len(kernel), 200, len(kernel), 200).mean((1, 3))
    np.testing.assert_allclose(kernel * np.pi * radius**2, area, rtol=0, atol=4e-3)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(kernel, kernel.T[::-1, ::-1])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_softer_apertures_blur_as_much(share: float) -> None:
    """Disk and Gaussian have the same variance; a pixel adds 1 / 12, which the sampled Gaussian lacks."""
    kernel = synthesis.kernel_of(4.0, Aperture(share))
    at = np.arange(len(kernel)) - len(kernel) // 2
    variance = (kernel.sum(0) * at**2).sum()
    # The Gaussian is cut at 3 sigma, which takes 3 % of its variance.
    assert variance == pytest.approx(4.0**2 / 4 + (1 - share) / 12, rel=0.01 + 0.03 * share)


@pytest.mark.parametrize(
    "aperture",
    [
        Aperture(blades=5, angle=0.3),
        Aperture(eclipse=0.8, angle=1.0),
        Aperture(obstruction=0.5),
        Aperture(aberration=1.5),
        Aperture(softness=4.5),
        Aperture(aberration=-1.5, blades=8),
    ],
)
@pytest.mark.parametrize("radius", [2.5, 9.0])
def test_other_apertures_have_the_second_moment_of_the_disk(aperture: Aperture, radius: float) -> None:
    """Tolerance: the shape ends between points that are up to 1 / 6 px apart."""
    kernel = synthesis.kernel_of(radius, aperture)
    at = np.arange(len(kernel)) - len(kernel) // 2
    moment = ((kernel.sum(0) + kernel.sum(1)) * at**2).sum() / 2
    assert moment == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.03)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert not np.array_equal(kernel, synthesis.kernel_of(radius))


def test_blur_of_a_varying_map_is_exact_where_the_map_is_constant() -> None:
    image = np.float32(texture(60, 80)) / 255
    radius = np.full((60, 80), 1.5, np.float32)
    radius[:, 40:] = 3.1  # between two of the radii that are rendered
    varying = synthesis.blur(image, radius)
    for columns, value, tolerance in ((slice(0, 38), 1.5, 1e-6), (slice(45, 80), 3.1, 6e-3)):
        expected = synthesis.blur(image, np.full_like(radius, value))
        np.testing.assert_allclose(varying[:, columns], expected[:, columns], rtol=0, atol=tolerance)
    delta = np.zeros((21, 21, 1), np.float32)
    delta[10, 10] = 1
    spread = synthesis.blur(delta, np.full((21, 21), 2.0, np.float32)).squeeze()
    np.testing.assert_allclose(spread[8:13, 8:13], synthesis.kernel_of(2.0), rtol=0, atol=1e-7)


def test_an_occluding_edge_is_the_disks_step_response() -> None:
    """White half-plane over black: the share of a disk on one side of a line, averaged over a pixel."""
    size, radius = 40 + 2 * MARGIN, 5.0
    mask = np.zeros((size, size), np.float32)
    mask[:, size // 2 :] = 1
    layers = [
        Layer(np.zeros((size, size, 3), np.float32), np.ones_like(mask), np.full_like(mask, 1.0)),
        Layer(np.ones((size, size, 3), np.float32), mask, np.full_like(mask, radius)),
    ]
    scene = synthesis.render(layers, Camera(), np.random.default_rng(0))
    fine = (np.arange(40 * 100) + 0.5) / 100 - 20
    t = np.clip(fine / radius, -1, 1)
    response = 0.5 + (t * np.sqrt(1 - t**2) + np.arcsin(t)) / np.pi
    np.testing.assert_allclose(scene.image[20, :, 0], 255 * response.reshape(40, 100).mean(1), rtol=0, atol=1)
    assert (scene.radius[:, :20] == 1).all()
    assert (scene.radius[:, 20:] == radius).all()


def test_layers_do_not_take_colour_from_outside_their_mask() -> None:
    """Texture and mask are blurred together: red over red stays red, whatever lies beside the mask in the texture."""
    size = 20 + 2 * MARGIN
    red = np.zeros((size, size, 3), np.float32)
    red[..., 0] = 0.5
    mask = np.zeros((size, size), np.float32)
    mask[:, : size // 2] = 1
    front = np.where(mask[..., None] > 0, red, 1)
    radius = np.full((size, size), 2.0, np.float32)
    scene = synthesis.render(
        [Layer(red, np.ones_like(mask), radius), Layer(front, mask, radius + 3)], Camera(), np.random.default_rng(0)
    )
    assert np.unique(scene.image.reshape(-1, 3), axis=0).tolist() == [[128, 0, 0]]


@pytest.mark.parametrize(
    ("near", "far", "kind"),
    [(1.0, 3.0, DEPTH), (3.0, 1.0, DEPTH), (2.0, 2.5, AMBIGUOUS), (2.5, 2.0, AMBIGUOUS), (2.0, 2.1, PATTERN)],
)
def test_kinds_of_edges(near: float, far: float, kind: int) -> None:
    """The near layer covers the left half; every pixel is taken for an edge."""
    nearest = np.zeros((20, 40), np.uint8)
    nearest[:, :20] = 1
    radius = np.where(nearest == 1, near, far).astype(np.float32)
    found, produced = synthesis._kind_map(np.ones((20, 40), bool), radius, nearest)
    assert (found == found[:1]).all()
    boundary = found[0, 19:21]
    assert (boundary == kind).all()
    assert (produced[:, 19:21] == (radius[:, 19:21] if kind == PATTERN else near)).all()
    far_off = np.abs(np.arange(40) - 19.5) > near + 3.5
    assert (found[0, far_off] == PATTERN).all()
    assert (produced[:, far_off] == radius[:, far_off]).all()
    if kind == DEPTH:  # both layers shine through, as far as the outline is blurred
        between = (np.abs(np.arange(40) - 19.5) > 2.5 + 0.25 * near) & (np.abs(np.arange(40) - 19.5) < near + 2)
        assert between.any() == (near > 1)
        assert (found[0, between] == AMBIGUOUS).all()


def test_camera_without_effects_rounds_and_gamma_is_undone() -> None:
    image = texture(50, 60)
    for gamma in (1.0, 2.2):
        light = (np.float32(image) / 255) ** np.float32(gamma)
        found = synthesis.photograph(light, Camera(gamma=gamma), np.random.default_rng(0))
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(
    "camera",
    [
        Camera(vignetting=0.5),
        Camera(shot_noise=0.02),
        Camera(read_noise=0.01),
        Camera(bayer=True),
        Camera(sharpening=0.6),
        Camera(jpeg_quality=80, chroma_subsampling=True),
        Camera(gain=0.7),
        Camera(contrast=0.8),
    ],
)
def test_every_camera_effect_changes_the_picture_but_not_the_scene(camera: Camera) -> None:
    image = texture(50, 60)
    found = synthesis.photograph(np.float32(image) / 255, camera, np.random.default_rng(0))
    assert found.dtype == np.uint8
    assert found.shape == image.shape
    assert not np.array_equal(found, image)
    flat = [np.float64(each).ravel() for each in (found, image)]
    assert np.corrcoef(flat)[0, 1] > 0.8


def test_edges_are_the_estimators() -> None:
    """With the paper's thresholds."""
    image = texture(150, 131, seed=3)
    edges = synthesis.detect_edges(np.float32(image) / 255)
    assert edges.mean() > 0.05
    np.testing.assert_array_equal(edges, defocus_fast.detect_edges(image))


def test_random_scenes(images: Images) -> None:
    """The same from the same seed; labels lie at the detector's edges, radii in their range, all kinds occur."""
    kinds = set()
    for seed in range(6):
        scene, again = (synthesis.random_scene(images, 128, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(scene.image, again.image)
        np.testing.assert_array_equal(scene.kind, again.kind)
        edges = synthesis.detect_edges(np.float32(scene.image) / 255)
        np.testing.assert_array_equal(scene.kind > 0, edges)
        for radius in (scene.radius, scene.edge_radius):
            assert radius.shape == (128, 128)
            assert radius.min() >= 0.3
            assert radius.max() <= 6.5
        kinds |= set(np.unique(scene.kind).tolist())
    assert kinds == {0, PATTERN, DEPTH, AMBIGUOUS}


def test_shards(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "SCENES_PER_SHARD", 2)
    synthesis._write_shards(range(2), images, tmp_path, 96, 1, "validation")
    shard = np.load(tmp_path / "0001.npy")
    assert shard.dtype == np.uint8
    assert shard.shape == (2, 96, 96, 5)
    rng = np.random.default_rng([1, 1, 1])
    scene = synthesis.random_scene(images, 96, rng, draw_radius=synthesis.training_radius)  # of every second one
    np.testing.assert_array_equal(shard[1, ..., :3], scene.image)
    np.testing.assert_array_equal(shard[1, ..., 4], scene.kind)
    np.testing.assert_allclose(
        shard[1, ..., 3] / synthesis.RADIUS_SCALE, scene.edge_radius, rtol=0, atol=0.5 / synthesis.RADIUS_SCALE
    )
    np.save(tmp_path / "0000.npy", shard)
    synthesis._write_shards(range(2), images, tmp_path, 96, 1, "validation")
    np.testing.assert_array_equal(np.load(tmp_path / "0000.npy"), shard)  # what is there is kept


def test_fixed_scenes(images: Images) -> None:
    """Half layered, a quarter slanted, a quarter both; a scene does not depend on how many there are."""
    found = dict(scenes.fixed_scenes(images, 8, 96, "validation"))
    forms = [name.split("_", 1)[1] for name in found]
    assert sorted(forms) == ["layered"] * 4 + ["layered_slanted"] * 2 + ["slanted"] * 2
    (name, first), *_ = scenes.fixed_scenes(images, 1, 96, "validation")
    np.testing.assert_array_equal(first.image, found[name].image)
    for name, scene in found.items():
        if name.endswith("_slanted"):  # more radii than layers
            assert len(np.unique(scene.radius)) > 4


def test_fixed_scenes_have_edges_by_the_papers_thresholds(images: Images) -> None:
    """Faint photographs have too few."""
    faint = [photo // 5 + 100 for photo in images.photos]
    for _, scene in scenes.fixed_scenes(replace(images, photos=[*images.photos, *faint]), 8, 96, "validation"):
        assert synthesis.detect_edges(np.float32(scene.image) / 255).mean() >= 0.03


@pytest.mark.parametrize(("module", "split"), [(scenes, "test"), (synthesis, "validation")])
def test_commands(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, split: str) -> None:
    """From a folder as ``training.fetch`` leaves it to files with the split's scenes."""
    name = next(f"{number}.png" for number in range(1000) if synthesis.split_of(f"{number}.png") == split)
    for kind, image in (("photo", images.photos[0]), ("cutout", images.cutouts[0])):
        (tmp_path / kind).mkdir()
        Image.fromarray(image).save(tmp_path / kind / name)
    monkeypatch.setattr(synthesis, "SCENES_PER_SHARD", 1)
    handler = signal.getsignal(signal.SIGTERM)
    more = ["--count", "1"] if module is scenes else ["--shards", "1", "--jobs", "1"]
    options = ["--split", split, "--size", "96", *more]
    monkeypatch.setattr(sys, "argv", ["command", str(tmp_path), str(tmp_path / "out"), *options])
    try:
        module.main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    found = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.*"))
    assert found == (["000_layered.npy", "000_layered.png"] if module is scenes else ["validation/0000.npy"])


def test_manifest_and_splits() -> None:
    """Nothing of other people's test sets; every image once, and in one split only, whatever its form."""
    entries = fetch.read_manifest()
    assert len(entries) == 557
    assert not [entry for entry in entries if re.search("scikit|skimage|sklearn|opencv", entry.package + entry.file)]
    assert len({(entry.use, entry.name) for entry in entries}) == 557
    for entry in entries:
        assert entry.use in ("photo", "cutout")
        assert entry.licence
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
    twice = [(a, b) for a in entries for b in entries if a.sha256 == b.sha256 and a.name < b.name]
    assert all(synthesis.split_of(a.name) == synthesis.split_of(b.name) for a, b in twice)
    splits = {entry.name: synthesis.split_of(entry.name) for entry in entries}
    shares = {split: list(splits.values()).count(split) / len(splits) for split in ("train", "validation", "test")}
    assert sum(shares.values()) == 1
    for split, share in (("train", 0.85), ("validation", 0.05), ("test", 0.10)):
        assert shares[split] == pytest.approx(share, abs=0.03)
    assert synthesis.split_of("a.jpg") == synthesis.split_of("a.webp")


@pytest.mark.parametrize("version", [1, 2])
def test_resource_archive(version: int) -> None:
    """An archive of one folder with a plain and a compressed file, laid out as Qt's documentation of rcc has it."""
    names, data, offsets = b"", b"", {}
    for name in ("", "images", "a.txt", "b.txt"):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    contents = {"a.txt": b"plain", "b.txt": b"compressed " * 20}
    places = {}
    for name, content in contents.items():
        packed = content if name == "a.txt" else struct.pack(">I", len(content)) + zlib.compress(content)
        places[name] = len(data)
        data += struct.pack(">I", len(packed)) + packed
    stamp = bytes(8 if version > 1 else 0)
    folder = 2
    tree = struct.pack(">IHII", offsets[""], folder, 1, 1) + stamp
    tree += struct.pack(">IHII", offsets["images"], folder, 2, 2) + stamp
    for name in contents:
        tree += struct.pack(">IHHHI", offsets[name], int(name == "b.txt"), 0, 0, places[name]) + stamp
    header = struct.pack(">4sIIII", b"qres", version, 20, 20 + len(tree), 20 + len(tree) + len(data))
    found = dict(fetch.rcc_members(header + tree + data + names))
    assert found == {f"images/{name}": content for name, content in contents.items()}
    with pytest.raises(ValueError, match="expected it to start with b'qres'"):
        list(fetch.rcc_members(b"PK" + bytes(30)))
