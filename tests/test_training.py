# SPDX-License-Identifier: Apache-2.0
"""Training on tiny shards: what a network is asked, what is saved, and what export makes of it. Needs PyTorch."""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from images import texture

torch = pytest.importorskip("torch")

from defocus_fast import BackendUnavailable, Estimator, model_io  # noqa: E402
from training import (  # noqa: E402
    batches,
    calibrate,
    checkpoints,
    export,
    losses,
    networks,
    plain_name,
    propagation,
    train,
    train_propagation,
    validate,
)
from training.synthesis import DEPTH, PATTERN, RADIUS_BINS, RADIUS_SCALE  # noqa: E402


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of noise with labels at random pixels."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(1)
    for split in ("train", "validation"):
        (folder / split).mkdir()
        shard = np.zeros((3, 128, 128, 5), np.uint8)
        for scene in shard:
            scene[..., :3] = texture(128, 128, seed=int(rng.integers(100)))
            scene[..., 4] = rng.choice([0, PATTERN, DEPTH], (128, 128), p=[0.8, 0.1, 0.1])
            scene[..., 3] = rng.uniform(0.5, 6, (128, 128)) * RADIUS_SCALE
        np.save(folder / split / "0000.npy", shard)
    return folder


@pytest.fixture(autouse=True)
def few_validation_crops(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(batches, "VALIDATION_CROPS", 72)
    threads, handlers = torch.get_num_threads(), [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    yield
    torch.set_num_threads(threads)
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
        signal.signal(number, handler)


def run(monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    module.main()


def options(shards: Path, out: Path, *more: Any) -> list[Any]:
    return ["--model", "fast", "--width", 8, "--batch", 2, "--threads", 1, "--shards", shards, "--out", out, *more]


def test_soft_bins() -> None:
    """Their mean is the radius, within the bins; at most two neighbours share it."""
    radius = torch.linspace(0.2, 8.6, 100)
    target = losses.soft_bins(radius, len(RADIUS_BINS))
    bins = torch.tensor(RADIUS_BINS, dtype=torch.float32)
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(target @ bins, radius.clamp(0.5, 8.0), atol=1e-5)
    assert ((target > 0).sum(1) <= 2).all()


def test_half_of_each_target_is_what_the_teacher_says(shards: Path) -> None:
    """Of targets cross-entropies are linear."""
    torch.manual_seed(0)
    model, teacher = networks.Fast(8), networks.Fast(16)
    batch = batches.Sampler(shards / "train", model.side, model.patch, model.every_edge)(4, np.random.default_rng(0))
    batch = batch.on(torch.device("cpu"))
    with torch.no_grad():
        labels, both = losses.losses(model, batch), losses.losses(model, batch, teacher)
        own, said = (each(batch.crops, batch.at) for each in (model, teacher))
    entropies = [-(s.softmax(1) * o.log_softmax(1)).sum(1) for o, s in zip(own, said, strict=True)]
    depth, pattern = batch.kind == DEPTH, batch.kind == PATTERN
    of_kind = torch.where(depth, losses.BLUR_WEIGHT[DEPTH], losses.BLUR_WEIGHT[PATTERN])
    expected = (entropies[0] * of_kind).sum() / of_kind.sum(), sum(entropies[1][k].mean() for k in (depth, pattern)) / 2
    for got, label, answer in zip(both, labels, expected, strict=True):
        assert float(got) == pytest.approx(float(label + answer) / 2, rel=1e-5)  # sums of float32


@pytest.mark.parametrize("name", ["tip22", "fast"])
def test_all_edges_of_a_crop_get_what_their_patches_get(name: str) -> None:
    """Tolerance: sums in float32 in another order."""
    torch.manual_seed(0)
    model = networks.MODELS[name](8)
    crops = torch.from_numpy(texture(model.side, model.side)).permute(2, 0, 1)[None].float() / 255
    half = model.patch // 2
    if name == "tip22":
        grid = [half + start + 3 * step for start in networks.GRIDS for step in range(3)]
        centres = corners = np.array([(y, x) for y in grid for x in grid if (y - x) % 3 == 0])
    else:  # any pixel of a cell is answered by its cell, whose middle is a patch's
        corners = np.array([(half + 3, half + 6)] * 9)
        centres = corners + np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    at = torch.tensor([[0, y, x] for y, x in centres])
    patches = torch.cat([crops[..., y - half : y + half + 1, x - half : x + half + 1] for y, x in corners])
    middle = torch.tensor([[n, half, half] for n in range(len(patches))])
    with torch.no_grad():
        for dense, literal in zip(model(crops, at), model(patches, middle), strict=True):
            np.testing.assert_allclose(dense, literal, rtol=0, atol=1e-5)


def test_crops_at_the_border_are_mirrored_as_the_estimator_does(shards: Path) -> None:
    sampler = batches.Sampler(shards / "train", side=75, patch=45, every_edge=True)
    scene = np.array(sampler.shards[0][0])
    sampler._edge = lambda _rng: (scene, np.array([0, 127]))  # type: ignore[method-assign]
    padded = np.pad(scene, ((75, 75), (75, 75), (0, 0)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (75, 75), axis=(0, 1))
    for seed in range(5):
        crop = sampler._crop(np.random.default_rng(seed))
        kinds = {
            np.rot90(flipped, turns).tobytes() for flipped in (crop[..., 4], crop[:, ::-1, 4]) for turns in range(4)
        }
        assert any(windows[y, x, 4].tobytes() in kinds for y in range(30, 90) for x in range(120, 203))


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Channels are revived after the stop, too."""
    monkeypatch.setattr(train, "REVIVE_EVERY", 2)
    arguments = options(shards, tmp_path, "--steps", 8, "--every", 6, "--lr", 0.05)
    run(monkeypatch, train, *arguments, "--name", "straight")
    draw = batches.Steps.__getitem__

    def stop_at(self: Any, step: int) -> Any:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(self, step)

    monkeypatch.setattr(batches.Steps, "__getitem__", stop_at)
    with pytest.raises(SystemExit, match="stopped at step 4 of 8"):
        run(monkeypatch, train, *arguments, "--name", "stopped")
    monkeypatch.setattr(batches.Steps, "__getitem__", draw)
    run(monkeypatch, train, *arguments, "--name", "stopped", "--resume")
    straight, stopped = (torch.load(tmp_path / f"{name}.pt")["ema"] for name in ("straight", "stopped"))
    for name, tensor in straight.items():
        np.testing.assert_array_equal(tensor, stopped[name])
    assert [line.split(",")[0] for line in (tmp_path / "stopped.csv").read_text().splitlines()] == ["step", *"4", *"68"]
    capsys.readouterr()
    for wrong, message in (
        (["--lr", 0.01], "was begun with lr 0.05, got 0.01"),
        (["--seed", 2], "was begun with seed 1, got 2"),
        ([], "--steps: expected more than the 8 of"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, train, *arguments, "--name", "stopped", "--resume", *wrong)
        assert message in capsys.readouterr().err


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, train, *options(shards, tmp_path, "--steps", 2))
    before = (tmp_path / "fast.pt").read_bytes()
    monkeypatch.setattr(train, "losses", lambda *each: [loss * float("nan") for loss in losses.losses(*each)])
    with pytest.raises(SystemExit):
        run(monkeypatch, train, *options(shards, tmp_path, "--steps", 4, "--resume"))
    assert "the weights of step 4 are not finite" in capsys.readouterr().err
    assert (tmp_path / "fast.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "nan"], "expected a number from 0 to 1, got nan"),
        (["--lr", "-1"], "expected a number from 0 to 1, got -1"),
        (["--steps", "0"], "expected a whole number > 0, got 0"),
        (["--name", "../x"], "expected a name without folders, got '../x'"),
        (["--shards", "absent"], "there is no absent"),
        (["--side", "44"], "side: expected 45 + a multiple of 3, got 44"),
        (["--bins", "32"], "--bins: expected 2 to 31, got 32"),
        (["--without", "branch2"], "--without: expected beginnings of stem"),
        (["--teacher", model_io.shipped_folder() / "fast"], "a teacher of the same architecture, depth and 31 radius"),
        (["--resume"], "No such file"),
    ],
)
def test_unfit_arguments(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[Any],
    message: str,
) -> None:
    """Told in one line, before anything is written."""
    with pytest.raises(SystemExit):
        run(monkeypatch, train, *options(shards, tmp_path / "out", "--steps", 2), *arguments)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for name in ("a/b", "..", "", "a\nb"):
        with pytest.raises(argparse.ArgumentTypeError):
            plain_name(name)


@pytest.mark.parametrize("name", ["tip22", "fast"])
def test_export_and_back(
    name: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is exported runs in the estimator, and is what was trained, sharpened. It may read up to 6 px only."""
    more = ["--model", name, "--side", networks.MODELS[name](8).patch + 6, "--bins", 23]
    run(monkeypatch, train, *options(shards, tmp_path, "--steps", 2, *more))
    folder = tmp_path / "exported"
    run(monkeypatch, export, tmp_path / f"{name}.pt", folder, "--shards", shards, "--name", "small")
    trained = torch.load(tmp_path / f"{name}.pt")["ema"]
    model = networks.MODELS[name](8, bins=23)
    checkpoints.load_weights(model, folder)
    for key, tensor in model.state_dict().items():
        np.testing.assert_allclose(tensor, trained[key], rtol=1e-6, atol=1e-9)
    estimator = Estimator(50, 60, model=folder)
    assert np.isfinite(estimator.estimate(texture(50, 60)).map).all()
    np.testing.assert_allclose(estimator.radius_bins, RADIUS_BINS[:23])
    assert "name: small" in (folder / "model.txt").read_text()
    run(monkeypatch, validate, folder, "--shards", shards, "--json", tmp_path / "scores.json")
    assert "exported" in (tmp_path / "scores.json").read_text()
    capsys.readouterr()
    for arguments, message in (
        (
            (export, shards / "train" / "0000.npy", folder, "--shards", shards),
            "expected a checkpoint of training, got another file",
        ),
        ((validate, folder, folder, "--shards", shards), "expected folders of different names, got exported, exported"),
        ((validate, folder, "--shards", shards, "--json", tmp_path / "absent" / "x"), "cannot write"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, *arguments)
        assert message in capsys.readouterr().err


def test_ranges_are_means_of_what_layers_reach_in_scenes(tmp_path: Path) -> None:
    """What the heads read is no range. Tolerance: sums in float32 in another order."""
    model = networks.Fast(4, bins=23, depth=2)
    weights = {name: tensor.contiguous().numpy() for name, tensor in model.state_dict().items()}
    model_io.write_model(tmp_path, weights, name="m", trained="not")
    scenes = np.stack([texture(60, 60, seed=seed) for seed in range(3)])
    expected = {}
    with torch.no_grad():
        x = torch.from_numpy(scenes).permute(0, 3, 1, 2).float() / 255
        for name, weight, stride in (("stem", model.stem, 3), ("convs.0", model.convs[0], 1)):
            x = torch.relu(torch.nn.functional.conv2d(x, weight, stride=stride))
            expected[name] = float(x.amax((1, 2, 3)).mean())
    assert calibrate.ranges(tmp_path, scenes) == pytest.approx(expected, rel=1e-5)


def test_models_with_shifted_crops_are_refused(shards: Path, tmp_path: Path) -> None:
    """The published weights are such a model, under a licence that would stick to whatever comes of them."""
    weights = {name: tensor.numpy() for name, tensor in networks.Tip22(4, bins=23).state_dict().items()}
    model_io.write_model(tmp_path / "m", weights, name="m", trained="not", crop_offset=1)
    with pytest.raises(ValueError, match="expected a model whose crops share their centre, got crop_offset 1"):
        networks.read_model(tmp_path / "m")
    model_io.write_model(tmp_path / "m", weights, name="m", trained="not")
    with pytest.raises(ValueError, match="expected a model of the architecture and width to be trained"):
        checkpoints.load_weights(networks.Tip22(8), tmp_path / "m")


def test_missing_bins_begin_as_the_last_one(tmp_path: Path) -> None:
    """A model that read up to 6 px goes on to 8 px: what it knew stays, and each new bin is as probable as its last.
    Back to fewer bins, the first ones stay."""
    before = networks.Fast(4, bins=23)
    weights = {name: tensor.contiguous().numpy() for name, tensor in before.state_dict().items()}
    model_io.write_model(tmp_path, weights, name="m", trained="not")
    after = networks.Fast(4)
    checkpoints.load_weights(after, tmp_path)
    crops = torch.rand(2, 3, before.side, before.side)
    at = torch.tensor([[0, 30, 30], [1, 25, 40]])
    with torch.no_grad():
        known, wider = before(crops, at)[0] / networks.SHARPENING, after(crops, at)[0]
    torch.testing.assert_close(wider[:, :23], known)
    torch.testing.assert_close(wider[:, 23:], known[:, -1:].expand(-1, len(RADIUS_BINS) - 23))
    fewer = networks.Fast(4, bins=12)
    checkpoints.load_weights(fewer, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(fewer(crops, at)[0], known[:, :12])


def test_a_narrower_model_begins_with_the_channels_that_matter(tmp_path: Path) -> None:
    """Of a model with channels that nothing makes or nothing reads, a narrower one keeps the others: it is the same."""
    narrow, wide = networks.Fast(4, depth=2), networks.Fast(8, depth=2)
    every_other = [1, 2, 4, 7]
    units = [i for i in range(16) if i % 2]
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.zero_()
        wide.stem[every_other] = narrow.stem
        for into, weight in zip(wide.convs, narrow.convs, strict=True):
            into[np.ix_(every_other, every_other)] = weight
        for into, head in ((wide.blur, narrow.blur), (wide.edge, narrow.edge)):
            into.dense1.weight[np.ix_(every_other, units)] = head.dense1.weight
            into.dense1.bias[units], into.dense2.weight[units] = head.dense1.bias, head.dense2.weight
            into.dense2.bias[:] = head.dense2.bias
        wide.stem[0] = 100  # which nothing reads
    weights = {name: tensor.contiguous().numpy() for name, tensor in wide.state_dict().items()}
    model_io.write_model(tmp_path, weights, name="m", trained="not", radius_bins=tuple(RADIUS_BINS.tolist()))
    found = networks.Fast(4, depth=2)
    checkpoints.load_weights(found, tmp_path)
    networks.sharpen(found, networks.SHARPENING)
    torch.testing.assert_close(found.state_dict(), narrow.state_dict())


@pytest.mark.parametrize("name", ["fast", "tiny", "tip22"])
def test_training_begins_with_shipped_weights(name: str) -> None:
    """Which may have a network of distances, too."""
    folder = model_io.shipped_folder() / name
    model = networks.read_model(folder)
    weights = model_io.read_weights(folder)
    for tensor, values in model.state_dict().items():
        np.testing.assert_array_equal(values, weights[tensor])


def test_several_models_begin_as_their_mean(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other", tmp_path / "third"]
    trained = [networks.Fast(4) for _ in folders]
    for folder, model in zip(folders, trained, strict=True):
        weights = {name: tensor.contiguous().numpy() for name, tensor in model.state_dict().items()}
        model_io.write_model(folder, weights, name="m", trained="not", radius_bins=tuple(RADIUS_BINS.tolist()))
    mean = networks.Fast(4)
    checkpoints.load_mean(mean, folders)
    expected = torch.stack([model.stem for model in trained]).mean(0)
    torch.testing.assert_close(mean.stem, expected)  # float32 sums in another order
    logits = torch.stack([model.blur.dense2.bias for model in trained]).mean(0) / networks.SHARPENING
    torch.testing.assert_close(mean.blur.dense2.bias, logits)


def shipped_copy(folder: Path) -> Path:
    """The shipped model in a folder of its own."""
    return Path(shutil.copytree(model_io.shipped_folder() / "fast", folder))


def random_distances(seed: int) -> Any:
    """A network that answers all kinds of things."""
    torch.manual_seed(seed)
    network = propagation.Propagation()
    for conv in network.convs:
        torch.nn.init.normal_(conv.bias, std=0.1)
    torch.nn.init.normal_(network.context.weight, std=0.3)
    torch.nn.init.normal_(network.out.weight, std=0.1)  # as far as a trained one goes
    torch.nn.init.normal_(network.out.bias, std=0.3)
    return network.eval()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("height", "width"), [(144, 161), (203, 130), (140, 520)])
def test_distances_of_the_core_are_those_of_training(tmp_path: Path, height: int, width: int, precision: str) -> None:
    """The map and the expected error of the core against PyTorch's, on sizes with regions that are not whole, and that
    are one piece of cpp/src/formulas.hpp, two and four.

    In float32 edges, inputs and factors differ by rounding, which the filter's many steps add up. bfloat16 rounds
    each layer's values to 1/256, and factors are exponential in the last one's: errors are relative.
    """
    tolerance, on_average = (5e-4, 5e-4) if precision == "float32" else (0.02, 0.01)
    folder = shipped_copy(tmp_path / "model")
    network = random_distances(height)
    model_io.add_propagation(folder, network.weights())
    y = np.arange(height)[:, None]
    image = texture(height, width, seed=1)
    image[:, width // 2 :] = (image[:, width // 2 :] // 4 + 90) * (1 + 0.2 * np.sin(y / 9))[..., None]
    try:
        estimator = Estimator(height, width, model=folder, grid="corner", precision=precision)
    except BackendUnavailable:
        pytest.skip("this CPU has no bfloat16")
    plain = Estimator(height, width, model=folder, distances="domain_transform", grid="corner", precision=precision)
    metadata = train_propagation.metadata(folder)
    largest, threshold = float(metadata["radius_bins"].split()[-1]), float(metadata["depth_threshold"])
    of_image: Any = (plain, image, np.zeros((height, width), np.float32), largest, threshold)
    sample = propagation.sample(*of_image)
    with torch.no_grad():
        inputs = torch.from_numpy(sample.inputs)[None]
        logarithms = network(inputs)
        maps, weight, squares, factor = propagation.propagate(logarithms, [sample], squares=True)
        (paper,) = propagation.propagate(None, [propagation.sample(*of_image, learned=False)])
        spread = propagation.deviation(maps, weight, squares, sample.octave)
        without = []
        for half in (slice(0, propagation.WIDTH), slice(propagation.WIDTH, None)):  # of the context: means, maxima
            blind = copy.deepcopy(network)
            blind.context.weight[:, half] = 0
            without += propagation.propagate(blind(inputs), [sample])
    floor, slope = float(metadata["error_floor"]), float(metadata["error_slope"])
    error = np.hypot(floor, slope * spread[0].numpy()) * factor[0].numpy()
    answer, plain_answer = estimator.estimate(image), plain.estimate(image)
    for found, expected in ((answer.map, maps[0]), (answer.expected_error, error), (plain_answer.map, paper[0])):
        known = enlarged(np.asarray(expected), height, width)
        np.testing.assert_allclose(found, known, tolerance, tolerance)
        assert np.abs(found - known).mean() < on_average * known.mean()
    for other in (paper, *without):  # else nothing was tested
        assert (other - maps).abs().mean() > 5 * on_average
    for num_threads in (1, 3):
        again = Estimator(
            height, width, model=folder, grid="corner", precision=precision, num_threads=num_threads
        ).estimate(image)
        np.testing.assert_array_equal(again.map, answer.map)


def enlarged(half: np.ndarray, height: int, width: int) -> np.ndarray:
    """Linearly between the centres of pixels of twice the size."""
    ys, xs = ((np.arange(n) + 0.5) / 2 - 0.5 for n in (height, width))
    rows = np.array([np.interp(xs, np.arange(half.shape[1]), row) for row in half])
    return np.array([np.interp(ys, np.arange(half.shape[0]), column) for column in rows.T]).T


def test_gradient_of_the_filter() -> None:
    torch.manual_seed(0)
    signals = torch.rand(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    across, down = (torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *values: propagation.spread(*values, 2.0), (signals, across, down))


@pytest.fixture(scope="module")
def spread_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two scenes each, the right half of which is blurred."""
    folder = tmp_path_factory.mktemp("scenes")
    for name, sigma, largest in (("narrow", 2, 4.0), ("wide", 7, 14.0)):
        (folder / name).mkdir()
        for n in range(2):
            image = texture(160, 160, seed=n)
            image[:, 80:] = cv2.GaussianBlur(image, (0, 0), sigma)[:, 80:]
            cv2.imwrite(str(folder / name / f"{n}.png"), image[..., ::-1])
            radius = np.where(np.arange(160) < 80, 0.5, largest).astype(np.float32)
            np.save(folder / name / f"{n}.npy", np.tile(radius, (160, 1)))
    return folder


def actual_to_expected(model: Path, scenes: Path) -> float:
    """Return the mean quotient of the error and the expected error of all pixels."""
    found = []
    for file in scenes.glob("*.png"):
        answer = Estimator(160, 160, model=model, grid="corner").estimate(cv2.imread(str(file))[..., ::-1].copy())
        actual = np.abs(answer.map - np.load(file.with_suffix(".npy")))
        negligible = train_propagation.NEGLIGIBLE
        found.append(((actual + negligible) / (answer.expected_error + negligible)).mean())
    return float(np.mean(found))


def test_learned_distances_are_trained(spread_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps on scenes lower the error on them, and only the network is added to the model."""
    folder = shipped_copy(tmp_path / "model")
    weights = model_io.read_weights(folder)
    before = {name: values for name, values in weights.items() if not name.startswith("propagation.")}
    both = [spread_scenes / "narrow", spread_scenes / "wide"]
    monkeypatch.setattr(train_propagation, "ERROR_BATCHES", 6)
    monkeypatch.setattr(train_propagation, "PIXELS", 6 * 80 * 80)
    run(monkeypatch, train_propagation, folder, *both, "--validation", *both, "--steps", 40, "--out", tmp_path)
    after = model_io.read_weights(folder)
    assert set(after) - set(before) == set(model_io.propagation_shapes())
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    assert np.abs(after["propagation.context.weight"]).max() > 0  # which it begins with
    # 1 where what is fitted is best, of the batches by which it is: each is of one folder, its scenes are drawn.
    drawn = [np.random.default_rng([0, 40 + n]).integers(2) for n in range(train_propagation.ERROR_BATCHES)]
    quotients = [actual_to_expected(folder, each) for each in both]
    assert np.mean([quotients[n] for n in drawn]) == pytest.approx(1, abs=0.05)
    kept = propagation.Propagation()
    kept.load(tmp_path / "distances.npz")
    for name, values in kept.weights().items():  # half precision
        np.testing.assert_allclose(values, after[name], rtol=2e-3, atol=1e-3)
    # Of several networks the mean, which without a step gets another expected error and nothing else.
    random_distances(1).save(tmp_path / "other.npz")
    monkeypatch.setattr(train_propagation, "accept", lambda *each: None)
    run(
        *(monkeypatch, train_propagation, folder, *both, "--validation", *both, "--steps", 0, "--out", tmp_path),
        *("--init", tmp_path / "distances.npz", tmp_path / "other.npz", "--name", "mean"),
    )
    first, second, found = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("distances", "other", "mean"))
    for name, values in found.items():
        expected = (first[name].astype(np.float32) + second[name].astype(np.float32)) / 2
        others = [n for n in range(len(values)) if name[:4] != "out." or n != propagation.ERROR]
        np.testing.assert_allclose(values[others], expected[others], rtol=2e-3, atol=1e-3)


def test_learned_distances_are_resumed(
    spread_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was stopped comes to the weights of one that was not. Each batch is of one folder, both have their
    turn."""
    folder = shipped_copy(tmp_path / "model")
    random_distances(1).save(tmp_path / "init.npz")
    rate, truth_of, mixed = train_propagation.learning_rate, train_propagation.truth_of, []

    def noted(batch: list[propagation.Sample]) -> Any:
        if len(batch) == 10:
            mixed.append({float(s.truth.max()) for s in batch})
        return truth_of(batch)

    def stopping(step: int, *more: Any) -> float:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return rate(step, *more)

    for name, value in (("ERROR_BATCHES", 1), ("PIXELS", 10 * 80 * 80), ("MOST_GROWTH", 100), ("truth_of", noted)):
        monkeypatch.setattr(train_propagation, name, value)
    scenes = [spread_scenes / "narrow", spread_scenes / "wide", "--validation", spread_scenes / "narrow"]
    arguments = [folder, *scenes, "--steps", 4, "--out", tmp_path, "--init", tmp_path / "init.npz", "--name"]
    run(monkeypatch, train_propagation, *arguments, "straight")
    assert len(mixed) == 5
    assert all(len(each) == 1 for each in mixed)
    assert set.union(*mixed) == {4.0, 14.0}
    monkeypatch.setattr(train_propagation, "learning_rate", stopping)
    with pytest.raises(SystemExit, match="stopped at step 2 of 4"):
        run(monkeypatch, train_propagation, *arguments, "stopped")
    run(monkeypatch, train_propagation, *arguments, "stopped", "--resume")
    straight, stopped = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("straight", "stopped"))
    assert straight.keys() == stopped.keys()
    for name, values in straight.items():
        np.testing.assert_array_equal(values, stopped[name])
    assert [line.split(",")[0] for line in (tmp_path / "stopped.csv").read_text().splitlines()] == ["step", "2", "4"]
    capsys.readouterr()
    for wrong, message in (
        (["straight"], "straight.pt exists: --resume goes on from it"),
        (["stopped", "--resume"], "--steps: expected more than the 4 of"),
        (["stopped", "--resume", "--seed", 2], "was begun with seed 0, got 2"),
        (["new", "--init", folder / "weights.bin"], "expected an .npz file of training.train_propagation"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, train_propagation, *arguments, *wrong)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("largest", "after", "accepted"),
    [(12.0, 0.2039, True), (12.0, 0.2041, False), (12.0, np.nan, False), (12.1, 0.1999, True), (12.1, 0.2, False)],
)
def test_which_learned_distances_are_written(largest: float, after: float, accepted: bool) -> None:
    """Narrow scenes may get worse by 2 %, wide ones must get better."""
    scenes: Any = [argparse.Namespace(truth=np.array([0.5, radius])) for radius in (3.0, largest)]
    if accepted:
        train_propagation.accept(Path("f"), scenes, 6.0, 0.2, after)
    else:
        with pytest.raises(ValueError, match="f: the error is .* octaves, 0.2000 without the network"):
            train_propagation.accept(Path("f"), scenes, 6.0, 0.2, after)


def test_what_a_network_does_not_see(spread_scenes: Path) -> None:
    """Neither what is kept from it nor the training changes its answer by that; every input has one name."""
    names = propagation.INPUTS_OF
    np.testing.assert_array_equal(np.sort(np.concatenate(list(names.values()))), np.arange(propagation.INPUTS))
    (sample, *_) = train_propagation.samples(model_io.shipped_folder() / "fast", spread_scenes / "wide")
    inputs = train_propagation.inputs_of([sample])
    for name in (*names, "context"):
        network = random_distances(2)
        network.blind([name])
        before = network(inputs)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
        before.square().mean().backward()
        optimizer.step()
        if name == "context":
            assert not network.context.weight.any()
        else:
            changed = inputs.clone()
            changed[:, names[name]] += 1
            torch.testing.assert_close(network(changed), network(inputs), rtol=0, atol=0)
        assert (network(inputs) - before).abs().max() > 0.1


def test_what_a_training_may_begin_with() -> None:
    network = propagation.Propagation()
    network.load(Path(propagation.__file__).parent / "candidates" / "distances.npz")
    assert network.context.weight.abs().max() > 0.1
