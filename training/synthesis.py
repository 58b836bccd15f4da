# SPDX-License-Identifier: Apache-2.0
"""Synthesis of defocused images with exact ground truth (paper, section IV-A, extended).

A scene is a stack of layers, far to near. Each layer has a sharp texture, a soft mask and a radius map; texture and
mask are blurred together (premultiplied) with a disk kernel, and composited. Uniform, gradual and stepwise radius maps
give pattern edges, layer boundaries give depth edges. Edges come from the detector run on the finished image.

Radii are in pixels of the finished image. Images are float32 RGB in [0, 1], shape (H, W, 3), unless said otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.feature import canny

from defocus_fast._disk import disk_areas
from training import existing, natural, positive, run

Array = np.ndarray[Any, Any]

RADIUS_BINS = np.arange(0.5, 8.01, 0.25)  # px, that B-NET tells apart; the last stands for larger ones, too
LEAST_RADIUS = 0.3  # px
MARGIN = 16  # px rendered beyond the image on each side, so that its border is blurred from real content

# Codes of the kind map.
NO_EDGE, PATTERN, DEPTH, AMBIGUOUS = range(4)

# A boundary counts as a depth edge where the radius jumps by at least DEPTH_STEP, as no boundary at all where it jumps
# by less than SAME_DEPTH_STEP; edges at jumps in between are ambiguous.
DEPTH_STEP, SAME_DEPTH_STEP = 1.0, 0.25
LAYER_STEP = 0.5  # px, least difference between the radii of a layer and of the background


def detect_edges(image: Array) -> Array:
    """Return the edge mask (H, W) bool of an RGB image, by the estimator's detector with the paper's thresholds."""
    return canny(image.max(axis=2), sigma=math.sqrt(2), low_threshold=0.08, high_threshold=0.20)


# ---------------------------------------------------------------- images


def split_of(name: str) -> str:
    """Return "train", "validation" (5 % of the names) or "test" (10 %), fixed by a hash of the image's name."""
    share = int(hashlib.sha256(Path(name).stem.encode()).hexdigest()[:8], 16) / 2**32
    return "validation" if share < 0.05 else "test" if share < 0.15 else "train"


@dataclass(frozen=True)
class Images:
    """The source images of one split: photographs (H, W, 3) and cut-outs (H, W, 4), all uint8 RGB(A)."""

    photos: list[Array]
    cutouts: list[Array]


def load_images(folder: Path, split: str, extra: Path | None = None, longest: int = 1600) -> Images:
    """Load the images of `split` below `folder` (as left by ``training.fetch``) and, if given, `extra`.

    Images longer than `longest` px are reduced to that. Names are sorted, so the order is reproducible.
    """
    photo_files = [*(folder / "photo").iterdir(), *(extra.iterdir() if extra else ())]
    photos = []
    for file in sorted((f for f in photo_files if split_of(f.name) == split), key=lambda f: f.name):
        photo = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if photo is None:
            continue
        scale = longest / max(photo.shape)
        if scale < 1:
            photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        photos.append(np.ascontiguousarray(photo[..., ::-1]))
    cutouts = []
    for file in sorted((folder / "cutout").iterdir()):
        cutout = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if split_of(file.name) == split and cutout is not None and cutout.ndim == 3 and cutout.shape[2] == 4:
            cutouts.append(np.ascontiguousarray(cutout[..., [2, 1, 0, 3]]))
    if not photos or not cutouts:
        raise ValueError(f"{folder}: no photos or no cut-outs for split {split!r}")
    return Images(photos, cutouts)


def photo_texture(images: Images, size: int, rng: np.random.Generator) -> Array:
    """Return a sharp (size, size, 3) texture: a photograph reduced by about 2 (less only where it is too small)."""
    photo = images.photos[rng.integers(len(images.photos))]
    scale = min(rng.uniform(1.5, 2.5), min(photo.shape[:2]) / size)
    side = int(size * scale)
    if side < size:  # too small even at full size: mirror it out
        pad = size - min(photo.shape[:2])
        photo = np.pad(photo, ((0, pad), (0, pad), (0, 0)), mode="symmetric")
        side = size
    y = rng.integers(photo.shape[0] - side + 1)
    x = rng.integers(photo.shape[1] - side + 1)
    if rng.random() < 0.6:  # of two places, the one with more detail
        other = rng.integers(photo.shape[0] - side + 1), rng.integers(photo.shape[1] - side + 1)
        y, x = max((y, x), other, key=lambda at: photo[at[0] : at[0] + side : 4, at[1] : at[1] + side : 4, 1].std())
    crop = cv2.resize(photo[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)
    crop = np.rot90(crop, rng.integers(4)) if rng.random() < 0.3 else crop
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    return np.ascontiguousarray(crop, dtype=np.float32) / 255


def _texture(images: Images, size: int, rng: np.random.Generator) -> Array:
    """Return a sharp texture, often with objects pasted into it: outlines that are no depth edges."""
    texture = photo_texture(images, size, rng)
    if rng.random() < 0.45:
        for _ in range(rng.integers(1, 4)):
            mask, own_colour = _random_mask(images, size, rng, thickness=rng.uniform(1.5, 8))
            if own_colour is None:
                flat = rng.random() < 0.3
                own_colour = (
                    np.full((size, size, 3), rng.random(3), np.float32) if flat else photo_texture(images, size, rng)
                )
            texture += mask[..., None] * (own_colour - texture)
    return texture


def _smooth_colour(size: int, rng: np.random.Generator) -> Array:
    """Return a texture without any: a colour that changes slowly, as a wall's or the sky's does."""
    corners = np.clip(rng.random(3) + rng.normal(0, 0.1, (2, 2, 3)), 0, 1).astype(np.float32)
    return cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)


def _recoloured(texture: Array, rng: np.random.Generator) -> Array:
    """Return the texture in another light: exposure and contrast, a colour cast, saturation."""
    texture = texture ** np.float32(2 ** rng.uniform(-1, 1))
    texture = texture * np.float32(2 ** rng.uniform(-1, 0.3) * rng.uniform(0.8, 1.2, 3))
    grey = texture.mean(2, keepdims=True)
    return np.clip(grey + np.float32(rng.uniform(0, 1.5)) * (texture - grey), 0, 1)


# ---------------------------------------------------------------- masks

_SUPERSAMPLING = 4


def _place_cutout(images: Images, size: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
    """Return the alpha of a cut-out at a random place and size, and its colour if it was reduced enough to be sharp."""
    cutout = images.cutouts[rng.integers(len(images.cutouts))]
    target = rng.uniform(0.25, 0.9) * size
    scale = target / max(cutout.shape[:2])
    cutout = cutout[:, ::-1] if rng.random() < 0.5 else cutout
    height, width = (max(8, round(side * scale)) for side in cutout.shape[:2])
    small = cv2.resize(cutout, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    y = int(rng.uniform(-0.3, 0.7) * height) - height // 2 + rng.integers(size)
    x = int(rng.uniform(-0.3, 0.7) * width) - width // 2 + rng.integers(size)
    rows, columns = slice(max(y, 0), min(y + height, size)), slice(max(x, 0), min(x + width, size))
    canvas = np.zeros((size, size, 4), np.float32)
    if rows.start < rows.stop and columns.start < columns.stop:
        canvas[rows, columns] = small[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x] / 255.0
    alpha = canvas[..., 3]
    if scale > 1:  # an enlarged outline is soft: make it as steep as one pixel again
        alpha = np.clip((alpha - 0.5) * scale + 0.5, 0, 1)
    return alpha, canvas[..., :3] if scale < 0.7 else None


def _draw_shape(kind: str, size: int, rng: np.random.Generator, thickness: float) -> Array:
    """Return an anti-aliased mask (size, size) of one random shape; `thickness` in px is for thin shapes."""
    big = size * _SUPERSAMPLING
    mask = np.zeros((big, big), np.uint8)
    if kind == "half_plane":
        angle = rng.uniform(0, 2 * math.pi)
        normal = np.array([math.cos(angle), math.sin(angle)])
        centre = rng.uniform(0.25, 0.75, 2) * big
        along = np.array([-normal[1], normal[0]]) * 2 * big
        corners = [centre - along, centre + along, centre + along + normal * 3 * big, centre - along + normal * 3 * big]
        cv2.fillPoly(mask, [np.int32(corners)], 255)
    elif kind == "polygon":
        count = rng.integers(3, 9)
        angles = np.sort(rng.uniform(0, 2 * math.pi, count))
        radius = rng.uniform(0.1, 0.45) * big * rng.uniform(0.4, 1, count)
        points = rng.uniform(0.1, 0.9, 2) * big + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(mask, [np.int32(points)], 255)
    elif kind == "smooth":
        angles = np.linspace(0, 2 * math.pi, 240, endpoint=False)
        waves = sum(rng.normal(0, 0.35 / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(1, 8))
        radius = rng.uniform(0.1, 0.4) * big * np.clip(1 + waves, 0.15, 2)
        points = rng.uniform(0.1, 0.9, 2) * big + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(mask, [np.int32(points)], 255)
    elif kind == "thin":
        for _ in range(rng.integers(1, 5)):
            ends = rng.uniform(-0.2, 1.2, (3, 2)) * big
            t = np.linspace(0, 1, 40)[:, None]
            curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
            width = max(1, round(thickness * rng.uniform(1, 2) * _SUPERSAMPLING))
            cv2.polylines(mask, [np.int32(curve)], False, 255, width)
    elif kind == "noise":  # foliage-like: a threshold of smoothed noise
        field = cv2.GaussianBlur(
            rng.standard_normal((size, size)).astype(np.float32), (0, 0), rng.uniform(0.02, 0.07) * size
        )
        field = cv2.resize(field, (big, big), interpolation=cv2.INTER_CUBIC)
        mask[field > np.quantile(field[::8, ::8], rng.uniform(0.4, 0.85))] = 255
    else:
        raise ValueError(f"shape: expected half_plane, polygon, smooth, thin or noise, got {kind!r}")
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _random_mask(images: Images, size: int, rng: np.random.Generator, thickness: float) -> tuple[Array, Array | None]:
    """Return a mask (size, size) and, for some cut-outs, the colour (size, size, 3) that belongs to it."""
    if rng.random() < 0.35:
        return _place_cutout(images, size, rng)
    kind = rng.choice(["half_plane", "polygon", "smooth", "thin", "noise"], p=[0.25, 0.25, 0.25, 0.13, 0.12])
    return _draw_shape(str(kind), size, rng, thickness), None


# ---------------------------------------------------------------- blur


@dataclass(frozen=True)
class Aperture:
    """The shape of the blur. The defaults are the disk."""

    gaussian_share: float = 0.0  # between the shape (0) and the Gaussian of its variance (1)
    blades: int = 0  # sides of a regular polygon; 0: round
    angle: float = 0.0  # by which the shape is turned
    eclipse: float = 0.0  # radii between the centres of two disks outside of which it is dark: a cat's eye
    obstruction: float = 0.0  # share of the radius that is dark in the middle: a ring
    aberration: float = 0.0  # brightness of the rim over the mean's, less that of the centre, in [-2, 2]
    softness: float = 0.0  # k of the factor exp(-k (distance / radius)^2): at 4.5 a Gaussian cut at three deviations


def _light(aperture: Aperture, x: Array, y: Array) -> Array:
    """Return the brightness of a shape, without its Gaussian share, at points (n,) x (n,); its radius is 1."""
    x, y = x[None, :], y[:, None]
    distance = np.hypot(x, y)
    light = (1 + aperture.aberration * (distance**2 - 0.5)) * np.exp(-aperture.softness * distance**2)
    light[(distance > 1) | (distance < aperture.obstruction)] = 0
    if aperture.blades:
        sector = 2 * math.pi / aperture.blades
        from_middle = (np.arctan2(y, x) - aperture.angle) % sector - sector / 2
        light[distance * np.cos(from_middle) > math.cos(sector / 2)] = 0
    if aperture.eclipse:
        aside = aperture.eclipse / 2 * np.array([math.cos(aperture.angle), math.sin(aperture.angle)])
        light[np.hypot(x + aside[0], y + aside[1]) > 1] = 0
        light[np.hypot(x - aside[0], y - aside[1]) > 1] = 0
    return light


def shape_kernel(radius: float, aperture: Aperture) -> Array:
    """Return the kernel of a shape whose second moment, the mean over all directions, is that of the disk of `radius`
    px."""
    points = (np.arange(100) + 0.5) / 50 - 1
    light = _light(aperture, points, points)
    moment = (light * (points**2 + points[:, None] ** 2)).sum() / light.sum() / 2
    size = radius / 2 / math.sqrt(moment)  # px, of the shape's radius
    half, per_pixel = math.ceil(size - 0.5), 16 if radius < 4 else 6
    points = ((np.arange((2 * half + 1) * per_pixel) + 0.5) / per_pixel - half - 0.5) / size
    return _light(aperture, points, points).reshape(2 * half + 1, per_pixel, -1, per_pixel).mean((1, 3))


@lru_cache(maxsize=4096)
def kernel_of(radius: float, aperture: Aperture = Aperture()) -> Array:
    """Return the kernel of a blur of `radius` px; sums to 1. That of the disk is exact, each entry the disk's share of
    that pixel."""
    is_disk = replace(aperture, gaussian_share=0.0) == Aperture()
    kernel = disk_areas(radius) if is_disk else shape_kernel(radius, aperture)
    if aperture.gaussian_share > 0:
        half = len(kernel) // 2
        half_gauss = max(half, math.ceil(1.5 * radius))
        kernel = np.pad(kernel, half_gauss - half)
        profile = np.exp(-0.5 * (np.arange(-half_gauss, half_gauss + 1) / max(radius / 2, 1e-3)) ** 2)
        gauss = np.outer(profile, profile)
        share = aperture.gaussian_share
        kernel = (1 - share) * kernel / kernel.sum() + share * gauss / gauss.sum()
    return (kernel / kernel.sum()).astype(np.float32)


def blur(image: Array, radius: Array, aperture: Aperture = Aperture()) -> Array:
    """Blur (H, W, C) with the disk, or another shape, of the radius map (H, W): gathering, exact where the map is
    locally constant.

    A varying map is rendered from radii 0.25 px apart, above 8 px by 3 %, linearly mixed.
    """
    low, high = float(radius.min()), float(radius.max())
    if high - low < 0.02:
        kernel = kernel_of(round(0.5 * (low + high), 3), aperture)
        return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT)
    steps = np.arange(math.floor(low * 4), math.ceil(high * 4) + 1) / 4
    if high > 8:
        steps = np.concatenate([steps[steps < 8], np.geomspace(8, high, math.ceil(math.log(high / 8) / 0.03) + 1)])
    result = np.zeros_like(image)
    for number, step in enumerate(steps):
        weight = np.interp(radius, steps, np.eye(len(steps))[number]).astype(np.float32)
        if weight.any():
            kernel = kernel_of(float(step), aperture)
            result += weight[..., None] * cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT)
    return result


def _radius_map(size: int, rng: np.random.Generator, low: float, high: float, form: str) -> Array:
    """Return a radius map (size, size) running from `low` to `high` as a slope, a bowl or in small steps."""
    y, x = (np.mgrid[:size, :size] / size - 0.5).astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = x * math.cos(angle) + y * math.sin(angle)
    if form == "bowl":  # passes through focus: sharpest on a line, softer on both sides of it
        ramp = np.abs(ramp - rng.uniform(-0.3, 0.3))
    ramp = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    radius = low + (high - low) * ramp
    if form == "steps":
        height = rng.uniform(0.25, 0.5)
        radius = low + np.floor((radius - low) / height) * height
    return np.maximum(radius, LEAST_RADIUS).astype(np.float32)


# ---------------------------------------------------------------- scenes


@dataclass(frozen=True)
class Camera:
    """What the camera does to the scene, besides the disk blur. The defaults do nothing."""

    gamma: float = 1.0  # blur and compositing happen in light = value ** gamma
    aperture: Aperture = Aperture()
    vignetting: float = 0.0  # loss of light in the corners
    gain: float = 1.0
    contrast: float = 1.0
    shot_noise: float = 0.0  # standard deviation at white
    read_noise: float = 0.0
    bayer: bool = False  # colour mosaic, interpolated again
    denoising: float = 0.0  # standard deviation of what a bilateral filter smooths
    sharpening: float = 0.0  # amount of an unsharp mask of sigma 1 px
    jpeg_quality: int = 0  # 0: not compressed
    chroma_subsampling: bool = False


def random_camera(rng: np.random.Generator, clean_share: float) -> Camera:
    """Return a camera with no effects, with probability `clean_share`, or with a random choice of them."""
    if rng.random() < clean_share:
        return Camera()

    def maybe(probability: float, low: float, high: float, otherwise: float) -> float:
        value = rng.uniform(low, high)
        return float(value) if rng.random() < probability else otherwise

    return Camera(
        gamma=maybe(0.45, 1.6, 2.4, 1.0),
        aperture=Aperture(maybe(0.25, 0.1, 0.6, 0.0)),
        vignetting=maybe(0.2, 0.1, 0.5, 0.0),
        gain=maybe(0.4, 0.6, 1.3, 1.0),
        contrast=maybe(0.4, 0.7, 1.4, 1.0),
        shot_noise=maybe(0.4, 0.0, 0.025, 0.0),
        read_noise=maybe(0.4, 0.0, 0.012, 0.0),
        bayer=bool(rng.random() < 0.1),
        sharpening=maybe(0.15, 0.1, 0.6, 0.0),
        jpeg_quality=int(maybe(0.5, 70, 99, 0)),
        chroma_subsampling=bool(rng.random() < 0.5),
    )


def training_camera(rng: np.random.Generator, clean_share: float) -> Camera:
    """Return a camera as ``random_camera``'s, sometimes with an aperture that is no disk and with more effects."""
    camera = random_camera(rng, clean_share)
    if rng.random() < 0.3:
        shape = {
            "blades": int(rng.integers(5, 10)),
            "eclipse": float(rng.uniform(0.1, 0.9)),
            "obstruction": float(rng.uniform(0.2, 0.5)),
            "aberration": float(rng.uniform(-1.5, 1.5)),
            "softness": float(rng.uniform(0, 4.5)),
        }
        chosen = rng.choice(list(shape), rng.integers(1, 3), replace=False)
        aperture = replace(
            camera.aperture,
            angle=float(rng.uniform(0, 2 * math.pi)),
            **{str(name): shape[str(name)] for name in chosen},
        )
        camera = replace(camera, aperture=aperture)
    if camera.jpeg_quality and rng.random() < 0.4:
        camera = replace(camera, jpeg_quality=int(rng.integers(50, 80)))
    if camera.shot_noise + camera.read_noise > 0 and rng.random() < 0.3:
        noise = camera.shot_noise + camera.read_noise
        camera = replace(camera, denoising=float(noise * rng.uniform(1, 4)), sharpening=float(rng.uniform(0, 0.6)))
    return camera


def photograph(light: Array, camera: Camera, rng: np.random.Generator) -> Array:
    """Return the finished image, uint8 (H, W, 3), of the blurred light."""
    if camera.vignetting:
        y, x = (np.abs(np.linspace(-1, 1, side)) for side in light.shape[:2])
        light = light * (1 - camera.vignetting * (y[:, None] ** 2 + x**2) / 2)[..., None].astype(np.float32)
    light = np.clip(light * camera.gain, 0, 1)
    if camera.shot_noise or camera.read_noise:
        deviation = np.sqrt(camera.shot_noise**2 * light + camera.read_noise**2)
        light = np.clip(light + deviation * rng.standard_normal(light.shape, dtype=np.float32), 0, 1)
    image = light ** np.float32(1 / camera.gamma)
    image = np.clip((image - 0.5) * camera.contrast + 0.5, 0, 1)
    if camera.bayer:
        value = np.uint8(np.rint(image * 255))
        mosaic = value[..., 1].copy()
        mosaic[::2, ::2], mosaic[1::2, 1::2] = value[::2, ::2, 0], value[1::2, 1::2, 2]
        image = cv2.cvtColor(mosaic, cv2.COLOR_BayerRGGB2RGB_EA).astype(np.float32) / 255
    if camera.denoising:
        image = cv2.bilateralFilter(image, 5, camera.denoising, 1.5)
    if camera.sharpening:
        image = image + camera.sharpening * (image - cv2.GaussianBlur(image, (0, 0), 1.0))
    pixels = np.uint8(np.rint(np.clip(image, 0, 1) * 255))
    if camera.jpeg_quality:
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        if not camera.chroma_subsampling:
            sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        options = [cv2.IMWRITE_JPEG_QUALITY, camera.jpeg_quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        data = cv2.imencode(".jpg", pixels[..., ::-1], options)[1]
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class Layer:
    """One layer of a scene."""

    texture: Array  # (S, S, 3) sharp
    mask: Array  # (S, S) in [0, 1]; 1 everywhere for the background
    radius: Array  # (S, S) px


@dataclass(frozen=True)
class Scene:
    """A finished image and its ground truth."""

    image: Array  # (H, W, 3) uint8
    radius: Array  # (H, W) float32, px: of the nearest layer at each pixel
    edge_radius: Array  # (H, W) float32, px: at edge pixels, of the layer that produced the edge
    kind: Array  # (H, W) uint8: NO_EDGE, PATTERN, DEPTH or AMBIGUOUS
    layers: list[Layer]  # that it was rendered from, far to near; they go beyond the image


def _kind_map(edges: Array, radius: Array, nearest: Array) -> tuple[Array, Array]:
    """Return the kind of each edge pixel, and the radius that produced it.

    `nearest` numbers the topmost layer. The outline of a layer is as soft as that layer, so a depth edge takes the
    near layer's radius; within that radius of the boundary both layers shine through and pattern edges are ambiguous.
    """
    box = np.ones((3, 3), np.uint8)
    boundary = cv2.dilate(nearest, box) != cv2.erode(nearest, box)
    kind = np.where(edges, PATTERN, NO_EDGE).astype(np.uint8)
    if not boundary.any():
        return kind, radius
    jump = cv2.dilate(radius, box) - cv2.erode(radius, box)
    top = cv2.dilate(nearest, box)
    near_radius = np.zeros_like(radius)  # of the near layer, at boundary pixels
    for number in range(1, top.max() + 1):
        of_layer = cv2.dilate(np.where(nearest == number, radius, 0), box)
        near_radius[top == number] = of_layer[top == number]
    produced = radius.copy()
    # Jumps too small for a depth edge first, so that a clear one close by has the last word.
    for is_source, at_boundary in (
        (boundary & (jump >= SAME_DEPTH_STEP) & (jump < DEPTH_STEP), AMBIGUOUS),
        (boundary & (jump >= DEPTH_STEP), DEPTH),
    ):
        if not is_source.any():
            continue
        distance, label = cv2.distanceTransformWithLabels(
            np.uint8(~is_source), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        radius_of_label = np.zeros(label.max() + 1, np.float32)
        radius_of_label[label[is_source]] = near_radius[is_source]
        outline = radius_of_label[label]  # radius of the nearest boundary's near layer
        kind[edges & (distance <= outline + 2)] = AMBIGUOUS
        at = edges & (distance <= 1.5 + 0.25 * outline)
        kind[at] = at_boundary
        produced[at] = outline[at]
    return kind, produced


def render(layers: list[Layer], camera: Camera, rng: np.random.Generator, margin: int = MARGIN) -> Scene:
    """Blur and composite `layers` (far to near), take the image and label its edges. Cuts `margin` off each side."""
    gamma = np.float32(camera.gamma)
    background = layers[0]
    light = blur(background.texture**gamma, background.radius, camera.aperture)
    radius = background.radius
    nearest = np.zeros(radius.shape, np.uint8)
    for number, layer in enumerate(layers[1:], 1):
        premultiplied = np.dstack([layer.texture**gamma * layer.mask[..., None], layer.mask])
        blurred = blur(premultiplied, layer.radius, camera.aperture)
        light = light * (1 - blurred[..., 3:]) + blurred[..., :3]
        inside = layer.mask > 0.5
        radius = np.where(inside, layer.radius, radius)
        nearest[inside] = number
    cut = (slice(margin, -margin), slice(margin, -margin))
    image = photograph(np.clip(light[cut], 0, 1), camera, rng)
    radius, nearest = np.ascontiguousarray(radius[cut]), np.ascontiguousarray(nearest[cut])
    kind, edge_radius = _kind_map(detect_edges(image.astype(np.float32) / 255), radius, nearest)
    return Scene(image, radius, edge_radius, kind, layers)


def narrow_radius(rng: np.random.Generator, most: float = 6.5) -> float:
    """Return a radius up to a little beyond the paper's range, so that its ends are not special.

    The sharp end comes a little more often: that is where images are in focus.
    """
    return float(rng.uniform(LEAST_RADIUS, 2.5) if rng.random() < 0.25 else rng.uniform(LEAST_RADIUS, most))


def training_radius(rng: np.random.Generator) -> float:
    """Return a radius up to well beyond the bins: what is blurrier than they say is to be known as such."""
    return narrow_radius(rng, most=12.0)


def wide_radius(rng: np.random.Generator) -> float:
    """Return a radius as in photographs of shallow focus: its logarithm is uniform."""
    return float(np.exp(rng.uniform(math.log(0.5), math.log(40.0))))


def random_scene(
    images: Images,
    size: int,
    rng: np.random.Generator,
    layered_share: float = 0.55,
    clean_share: float = 0.4,
    gradual_share: float | None = None,
    recoloured_share: float = 0.0,
    draw_radius: Callable[[np.random.Generator], float] = narrow_radius,
    draw_camera: Callable[[np.random.Generator, float], Camera] = random_camera,
    untextured_share: float = 0.0,
    margin: int = MARGIN,
) -> Scene:
    """Return a random scene of (size, size): layered with probability `layered_share`, else one texture.

    A layer's texture is shown in another light with probability `recoloured_share`, and is one smooth colour with
    probability `untextured_share`. No radius may be larger than `margin`, which is rendered beyond the image.

    The background is uniformly blurred or, with probability `gradual_share` (by default 0.2 if layered, else 0.5),
    with a slope, a bowl or small steps.
    """
    full = size + 2 * margin

    def radius_map(radius: float, gradual: float) -> Array:
        if rng.random() >= gradual:
            return np.full((full, full), radius, np.float32)
        form = str(rng.choice(["slope", "bowl", "steps"], p=[0.4, 0.25, 0.35]))
        return _radius_map(full, rng, radius, draw_radius(rng), form)

    def layer(texture: Array, mask: Array, radius: Array) -> Layer:
        if untextured_share > 0 and rng.random() < untextured_share:
            texture = _smooth_colour(full, rng)
        recoloured = recoloured_share > 0 and rng.random() < recoloured_share
        return Layer(_recoloured(texture, rng) if recoloured else texture, mask, radius)

    layered = rng.random() < layered_share
    first = draw_radius(rng)
    if gradual_share is None:
        gradual_share = 0.2 if layered else 0.5
    background = radius_map(first, gradual_share)
    layers = [layer(_texture(images, full, rng), np.ones((full, full), np.float32), background)]
    for _ in range(rng.integers(1, 4) if layered else 0):
        radius = draw_radius(rng)
        while abs(radius - first) < LAYER_STEP:
            radius = draw_radius(rng)
        # Touching thin things are kept wider than their own blur, else the far side shines through their middle.
        mask, colour = _random_mask(images, full, rng, thickness=max(2.0, 1.5 * radius))
        texture = colour if colour is not None else _texture(images, full, rng)
        layers.append(layer(texture, mask, radius_map(radius, 0.15)))
    return render(layers, draw_camera(rng, clean_share), rng, margin)


# ---------------------------------------------------------------- shards

SCENES_PER_SHARD = 250
# Of what scenes have that is not in the paper, validation and test scenes have nothing: so they stay as they were.
RECOLOURED_SHARE = {"train": 0.4, "validation": 0.0, "test": 0.0}
UNTEXTURED_SHARE = {"train": 0.15, "validation": 0.0}
CAMERAS = {"train": training_camera, "validation": random_camera, "test": random_camera}
RADIUS_SCALE = 20  # shards hold the edge radius in 1/20 px


def _write_shards(numbers: range, images: Images, folder: Path, size: int, seed: int, split: str) -> None:
    """Write shards, each uint8 (scenes, size, size, 5) = R, G, B, edge radius * RADIUS_SCALE, kind."""
    for number in numbers:
        path = folder / f"{number:04d}.npy"
        if path.exists():
            print(f"{path}: kept as it is", flush=True)
            continue
        shard = np.empty((SCENES_PER_SHARD, size, size, 5), np.uint8)
        for i in range(SCENES_PER_SHARD):
            rng = np.random.default_rng([seed, number, i])
            draw_radius = training_radius if i % 2 else narrow_radius
            scene = random_scene(
                images,
                size,
                rng,
                recoloured_share=RECOLOURED_SHARE[split],
                draw_radius=draw_radius,
                draw_camera=CAMERAS[split],
                untextured_share=UNTEXTURED_SHARE[split],
            )
            shard[i, ..., :3], shard[i, ..., 4] = scene.image, scene.kind
            shard[i, ..., 3] = np.rint(scene.edge_radius * RADIUS_SCALE)
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            np.save(file, shard)
        os.replace(part, path)
        print(path, flush=True)


def write(args: argparse.Namespace) -> None:
    """Write shards of random scenes for training or validation. Shards that are there are kept, whatever their seed."""
    folder = args.out / args.split
    folder.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)  # also because OpenCV's own threads don't survive a fork
    images = load_images(args.images, args.split, args.extra)
    seed = args.seed if args.split == "train" else args.seed + 1_000_000
    fork = multiprocessing.get_context("fork")  # the processes share the decoded images
    jobs = [
        fork.Process(
            target=_write_shards,
            args=(range(job, args.shards, args.jobs), images, folder, args.size, seed, args.split),
            daemon=True,
        )
        for job in range(args.jobs)
    ]
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # which stops the processes, too
    for process in jobs:
        process.start()
    for process in jobs:
        process.join()
    if any(process.exitcode for process in jobs):
        raise SystemExit("a process failed; run again to write the missing shards")


def main() -> None:
    parser = argparse.ArgumentParser(description=write.__doc__)
    parser.add_argument("images", type=existing, help="folder written by training.fetch")
    parser.add_argument("out", type=Path, help="shards go to OUT/<split>/")
    parser.add_argument("--split", choices=["train", "validation"], default="train")
    parser.add_argument("--shards", type=positive, default=28, help=f"of {SCENES_PER_SHARD} scenes each")
    parser.add_argument("--size", type=positive, default=256, help="side of a scene, px")
    parser.add_argument("--seed", type=natural, default=1)
    parser.add_argument("--extra", type=existing, help="folder with more sharp photographs")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count())
    run(parser, write)


if __name__ == "__main__":
    main()
