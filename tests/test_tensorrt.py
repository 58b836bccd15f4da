# SPDX-License-Identifier: Apache-2.0
"""Engines and their cache, and whole frames by them on the emulated device; TensorRT itself is a stand-in."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import onnx
import pytest
import tolerances
from click.testing import CliRunner
from emulated import device_options
from images import texture

import defocus_fast
from defocus_fast import _core, _tensorrt, cli

pytestmark = pytest.mark.skipif(
    "emulated" not in defocus_fast.build_config()["cuda"],
    reason="the CUDA part is not built with DEFOCUS_FAST_CUDA_EMULATION",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEFOCUS_FAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install(monkeypatch: pytest.MonkeyPatch, package: Any) -> None:
    """Have this be the only package of TensorRT (conftest.py hides those that are installed)."""
    for name in _tensorrt.PACKAGES:
        monkeypatch.setitem(sys.modules, name, package if name == package.__name__ else None)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    package = fake_tensorrt.make("tensorrt")
    install(monkeypatch, package)
    return package


def make(model: str, **options: Any) -> defocus_fast.Estimator:
    return defocus_fast.Estimator(20, 30, model=model, **{"device": "cuda", **options})


# ---- frames


@pytest.mark.parametrize("model", ["fast", "tip22"])
@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
def test_frames_of_the_shipped_models(package: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, fake_tensorrt.make(package))
    monkeypatch.setenv("EMULATION_DEVICE", "8.6")
    picture = texture(41, 67, seed=1)
    cpu = defocus_fast.Estimator(41, 67, model=model, device="cpu", precision="float32")
    expected = cpu.estimate(picture, bin_probabilities=True)
    float32 = defocus_fast.Estimator(41, 67, model=model, device="cuda")
    assert float32.precision == "float32"
    got = float32.estimate(picture, bin_probabilities=True)
    np.testing.assert_array_equal(got.edges, expected.edges)
    assert len(got.edges) > 100
    probabilities = got.bin_probabilities, expected.bin_probabilities
    np.testing.assert_allclose(*probabilities, rtol=0, atol=tolerances.PROBABILITY_DEVICE)
    np.testing.assert_allclose(got.map, expected.map, rtol=0, atol=tolerances.RADIUS_DEVICE + tolerances.PROPAGATED)
    np.testing.assert_array_equal(float32.estimate(picture).map, got.map)

    float16 = defocus_fast.Estimator(41, 67, model=model, device="cuda", precision="float16")
    half = float16.estimate(picture, bin_probabilities=True)
    np.testing.assert_array_equal(half.edges, expected.edges)
    difference = np.abs(half.bin_probabilities - expected.bin_probabilities)
    assert 0 < difference.max() <= tolerances.PROBABILITY_FLOAT16
    assert np.abs(half.map - expected.map).mean() <= tolerances.MAP_MEAN_FLOAT16


@pytest.mark.parametrize(("architecture", "size"), [("random_model", (30, 1030)), ("random_cells", (1550, 20))])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_pictures_of_several_tiles(
    architecture: str, size: tuple[int, int], precision: str, trt: Any, request: pytest.FixtureRequest
) -> None:
    """The stand-in refuses pointers off 256 bytes, which the second tile's would be if nobody saw to it."""
    model = request.getfixturevalue(architecture)
    picture = texture(*size, seed=2)
    edges = np.random.default_rng(1).random(size) < 0.02
    options: dict[str, Any] = {"model": model, "depth_threshold": 1, "max_edges": 5000}
    got = defocus_fast.Estimator(*size, **options, device="cuda", precision=precision).estimate(picture, edges=edges)
    given = options | device_options(model, *size, 5000)
    expected = defocus_fast.Estimator(*size, **given).estimate(picture, edges=edges)
    tolerance = tolerances.RADIUS_DEVICE if precision == "float32" else tolerances.RADIUS_FLOAT16
    np.testing.assert_allclose(got.radii, expected.radii, rtol=0, atol=tolerance)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
def test_frames_by_the_patch_graphs(
    package: str, precision: str, random_model: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their crops are given in the files' order, and only their engines are built."""
    install(monkeypatch, fake_tensorrt.make(package))
    monkeypatch.setenv("EMULATION_DEVICE", "8.6")
    picture = texture(20, 30, seed=1)
    edges = np.random.default_rng(1).random((20, 30)) < 0.1
    cpu = make(random_model, depth_threshold=1, device="cpu", precision="float32")
    expected = cpu.estimate(picture, edges=edges, bin_probabilities=True)
    device = make(random_model, evaluation="patch", depth_threshold=1, precision=precision, max_edges=80)
    got = device.estimate(picture, edges=edges, bin_probabilities=True)
    assert sorted(path.name.split("-")[:3] for path in cache.iterdir()) == [
        ["blur_patch", "80", precision],
        ["edge_patch", "80", precision],
    ]
    half = precision == "float16"
    np.testing.assert_allclose(
        got.bin_probabilities,
        expected.bin_probabilities,
        rtol=0,
        atol=tolerances.PROBABILITY_FLOAT16 if half else tolerances.PROBABILITY_DEVICE,
    )
    tolerance = tolerances.RADIUS_FLOAT16 if half else tolerances.RADIUS_DEVICE
    np.testing.assert_allclose(got.radii, expected.radii, rtol=0, atol=tolerance)


# ---- the cache


def test_engines_are_built_once(random_cells: str, trt: Any, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "defocus_fast"):
        first = make(random_cells)
    assert trt.builds == 3
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == ["blur_head", "edge_head", "trunk"]
    built = "cells/trunk (float32, H 39, W 48, compute capability 9.0, Emulated GPU) with tensorrt 1.0"
    assert f"building the engine of {built}" in caplog.text
    assert "Building engine, step 1 of 2" in caplog.text
    assert "Timing" not in caplog.text
    caplog.clear()
    picture = texture(20, 30)
    np.testing.assert_array_equal(make(random_cells).estimate(picture).map, first.estimate(picture).map)
    assert trt.builds == 3
    assert not caplog.text


def test_what_makes_another_engine(random_cells: str, random_model: str, trt: Any, tmp_path: Path) -> None:
    make(random_cells)
    for i, options in enumerate([{"precision": "float16"}, {"model": random_model}]):
        make(**{"model": random_cells, **options})
        assert trt.builds == 6 + 3 * i
    make(random_cells, max_edges=50)  # makes no difference
    assert trt.builds == 9
    make(random_model, max_edges=50)  # the heads' batch
    assert trt.builds == 11
    defocus_fast.Estimator(20, 36, model=random_model, device="cuda", max_edges=50)  # the trunk's image
    assert trt.builds == 12
    defocus_fast.Estimator(20, 36, model=random_cells, device="cuda")  # and with it the heads' cells
    assert trt.builds == (builds := 15)

    changed = tmp_path / "cells"
    shutil.copytree(random_cells, changed)
    make(str(changed))  # the same elsewhere
    assert trt.builds == builds
    weights = bytearray((changed / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (changed / "weights.bin").write_bytes(weights)
    make(str(changed))
    assert trt.builds == builds + 3


def test_engines_of_another_version_flavour_or_gpu(random_cells: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATION_DEVICE", "8.6")
    packages = [("tensorrt", "1.0"), ("tensorrt", "1.1"), ("tensorrt_rtx", "1.1")]
    for name, version in packages:
        install(monkeypatch, package := fake_tensorrt.make(name, version))
        make(random_cells)
        assert package.builds == 3
    monkeypatch.setenv("EMULATION_DEVICE", "8.9")
    make(random_cells)
    assert package.builds == 6
    monkeypatch.setenv("EMULATION_DEVICE", "8.6")
    make(random_cells)
    assert package.builds == 6


@pytest.mark.parametrize(("package", "builds"), [("tensorrt", [3, 6, 6, 9]), ("tensorrt_rtx", [3, 3, 3, 3])])
def test_engines_of_another_gpu_of_the_same_capability(
    random_cells: str,
    package: str,
    builds: list[int],
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """TensorRT would take them with a warning; those of TensorRT-RTX are for all of them."""
    install(monkeypatch, trt := fake_tensorrt.make(package))
    monkeypatch.setenv("EMULATION_DEVICE", "8.9")
    names = ["NVIDIA L4", "NVIDIA L40S", "NVIDIA L4", "../NVIDIA L4"]
    for name, expected in zip(names, builds, strict=True):
        before = trt.builds
        caplog.clear()
        monkeypatch.setenv("EMULATION_GPU", name)
        make(random_cells)
        assert trt.builds == expected
        built = f"building the engine of cells/trunk (float32, H 39, W 48, compute capability 8.9, {name})"
        assert (built in caplog.text) == (expected > before)
        assert "different models of devices" not in caplog.text
    assert len(list(cache.glob("*.engine1"))) == trt.builds
    assert len(list(cache.glob("*-sm89-NVIDIA_L4-*"))) == (3 if package == "tensorrt" else 0)


@pytest.mark.parametrize("damage", ["a bit", "the end", "everything", "another's"])
def test_damaged_engines_are_built_anew(
    random_cells: str, trt: Any, cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    picture = texture(20, 30)
    expected = make(random_cells).estimate(picture).map
    path = next(cache.glob("trunk-*"))
    whole = path.read_bytes()
    if damage == "a bit":
        path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 4]) + whole[-99:])
    elif damage == "the end":
        path.write_bytes(whole[:-1])
    elif damage == "everything":
        path.write_bytes(b"")
    else:
        path.write_bytes(next(cache.glob("edge_head-*")).read_bytes())
    caplog.clear()
    np.testing.assert_array_equal(make(random_cells).estimate(picture).map, expected)
    assert trt.builds == 4
    reason = "it is edge_head-" if damage == "another's" else "it is damaged"
    assert f"{path}: cannot be used, and is built anew: {reason}" in caplog.text
    assert path.read_bytes() == whole


def test_engines_that_tensorrt_refuses_are_built_anew(
    random_cells: str, trt: Any, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an exchange of the driver."""
    make(random_cells)
    path = next(cache.glob("trunk-*"))
    engine = _tensorrt.read(path)
    _tensorrt.write(path, _tensorrt.Engine(engine.tensors, engine.plan.replace(b"SM90", b"SM91")))
    make(random_cells)
    assert trt.builds == 4
    assert "built anew: TensorRT refuses it: built for" in caplog.text


def test_a_cache_that_cannot_be_written(
    random_cells: str, trt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()  # a folder without permissions is none to root
    monkeypatch.setenv("DEFOCUS_FAST_CACHE", str(tmp_path / "file"))
    assert np.isfinite(make(random_cells).estimate(texture(20, 30)).map).all()
    assert "cannot be written, so the engine will be built again: " in caplog.text


def test_the_cache_lies_where_the_platform_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEFOCUS_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _tensorrt.cache_folder() == tmp_path / "defocus_fast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _tensorrt.cache_folder() == tmp_path / ".cache" / "defocus_fast"


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("architecture", "evaluation", "engines"),
    [("random_cells", "shared", 3), ("random_model", "shared", 3), ("random_model", "patch", 2)],
)
def test_engines_that_the_command_line_has_built(
    architecture: str,
    evaluation: str,
    engines: int,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    model = request.getfixturevalue(architecture)
    install(monkeypatch, package := fake_tensorrt.make("tensorrt_rtx"))
    monkeypatch.setenv("EMULATION_DEVICE", "8.9")
    size = ["--height", "20", "--width", "30", "--compute-capability", "8.9"]
    kind = ["--model", model, "--precision", precision, "--evaluation", evaluation]
    command = ["build-engines", *kind, *size, "-o", str(tmp_path / "made")]
    done = CliRunner().invoke(cli.main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert package.builds == engines
    monkeypatch.setenv("DEFOCUS_FAST_CACHE", str(tmp_path / "made"))
    estimator = make(model, precision=precision, evaluation=evaluation)
    assert np.isfinite(estimator.estimate(texture(20, 30)).map).all()
    assert package.builds == engines


def test_the_command_line_says_what_it_cannot_build(
    random_cells: str, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ["--model", random_cells, "--height", "20", "--width", "30", "--compute-capability"]
    done = CliRunner().invoke(cli.main, ["build-engines", *size, "8.9"])
    assert done.exit_code == 1
    assert "Error: TensorRT builds for the GPU that is there, when an estimator is made" in done.output
    done = CliRunner().invoke(cli.main, ["build-engines", *size, "89"])
    assert done.exit_code == 2
    assert "expected a number such as 8.6, got 89" in done.output
    install(monkeypatch, fake_tensorrt.make("tensorrt_rtx"))
    done = CliRunner().invoke(cli.main, ["build-engines", *size, "8.9", "--evaluation", "patch"])
    assert done.exit_code == 1
    assert 'Error: evaluation: model "cells" has no patch networks; accepted: shared' in done.output
    assert trt.builds == 0


PROCESS = """
import sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
import fake_tensorrt, defocus_fast
from images import texture
trt = sys.modules["tensorrt"] = fake_tensorrt.make("tensorrt")
print("ready", flush=True)
while not Path({start!r}).exists():
    time.sleep(0.001)
for size in range(20, 30):
    result = defocus_fast.Estimator(20, size, model={model!r}, device="cuda").estimate(texture(20, size))
    print(size, float(result.map.mean()))
"""


def test_processes_that_build_at_once(random_cells: str, cache: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    program = PROCESS.format(tests=str(Path(__file__).parent), start=str(start), model=random_cells)
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    start.touch()
    answers = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers[0].splitlines()) == 10
    assert answers[0] == answers[1] == answers[2]
    assert not [path for path in cache.iterdir() if path.suffix != ".engine1"]


# ---- what is missing, and what fails


def test_missing_tensorrt_is_named(random_cells: str) -> None:
    message = r'device: TensorRT is missing: pip install "defocus_fast\[cuda\]"'
    with pytest.raises(defocus_fast.BackendUnavailable, match=message):
        make(random_cells)
    assert make(random_cells, device="auto").device == "cpu"


def test_missing_onnx_is_named(random_cells: str, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(defocus_fast.BackendUnavailable, match="device: the package onnx is missing"):
        make(random_cells)


@pytest.mark.parametrize(
    ("gpu", "precision", "accepted", "remedy"),
    [
        (
            "9.0",
            "float32",
            "8.0, 8.6, 8.9, 12.0, 12.1",
            "TensorRT, of pip install tensorrt-cu13, builds them on the GPU itself",
        ),
        (
            "9.0",
            "float16",
            "7.5, 8.0, 8.6, 8.9, 12.0, 12.1",
            "TensorRT, of pip install tensorrt-cu13, builds them on the GPU itself",
        ),
        ("7.5", "float32", "8.0, 8.6, 8.9, 12.0, 12.1", 'precision="float16"'),
    ],
)
def test_a_gpu_that_tensorrt_rtx_does_not_know(
    random_cells: str, monkeypatch: pytest.MonkeyPatch, gpu: str, precision: str, accepted: str, remedy: str
) -> None:
    install(monkeypatch, fake_tensorrt.make("tensorrt_rtx"))
    monkeypatch.setenv("EMULATION_DEVICE", gpu)
    message = f"builds {precision} networks for the compute capabilities {accepted}, got {gpu}: {remedy}"
    with pytest.raises(defocus_fast.BackendUnavailable, match=message):
        make(random_cells, precision=precision)
    assert make(random_cells, precision="auto", device="auto").device == "cpu"


def test_tensorrt_that_cannot_be_imported(random_cells: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken is not absent: nothing falls back to the CPU."""
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    for device in ("cuda", "auto"):
        with pytest.raises(defocus_fast.Error, match="package tensorrt cannot be imported: libnvinfer.so.10"):
            make(random_cells, device=device)


def test_auto_takes_tensorrt_and_hides_no_failure(random_model: str, trt: Any) -> None:
    assert make(random_model, device="auto").device == "cuda"
    trt.build_fails = True
    with pytest.raises(defocus_fast.Error, match="cannot build an engine: no implementation for node conv_1") as error:
        make(random_model, device="auto", max_edges=7)
    assert not isinstance(error.value, defocus_fast.BackendUnavailable)
    assert "random/edge_head (float32, N 7, compute capability 9.0, Emulated GPU)" in str(error.value)


def test_tensorrt_is_not_imported_without_a_gpu(random_cells: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensorrt, "import_tensorrt", lambda: pytest.fail("imported"))
    monkeypatch.setenv("EMULATION_DEVICE", "no device")
    assert make(random_cells, device="auto").device == "cpu"
    assert make(random_cells, device="cpu").device == "cpu"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda path: path.write_bytes(b"\xff\xffjunk"), "trunk.onnx: cannot be read: DecodeError"),
        (lambda path: path.unlink(), "trunk.onnx: cannot be read: No such file or directory"),
        (lambda path: (path.parent / "weights.bin").unlink(), "weights.bin: expected a file, got No such file"),
        (lambda path: (path.parent / "weights.bin").write_bytes(b""), "weights.bin: expected .* bytes, got 0"),
        (lambda path: _rename_operator(path), "trunk.onnx: TensorRT cannot read it: .*Frobnicate"),
    ],
)
def test_broken_model_folders(random_cells: str, trt: Any, tmp_path: Path, broken: Any, message: str) -> None:
    folder = tmp_path / "cells"
    shutil.copytree(random_cells, folder)
    broken(folder / "trunk.onnx")
    with pytest.raises(defocus_fast.ModelError, match=message):
        make(str(folder))


def _rename_operator(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    model.graph.node[0].op_type = "Frobnicate"
    path.write_bytes(model.SerializeToString())


def test_weights_beyond_half_precision(random_cells: str, trt: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    shutil.copytree(random_cells, folder)
    weights = np.fromfile(folder / "weights.bin", "<f4")
    weights[0] = 1e5
    weights.tofile(folder / "weights.bin")
    with pytest.raises(defocus_fast.ModelError, match="trunk.onnx: cannot be read: FloatingPointError: overflow"):
        make(str(folder), precision="float16")


def test_failures_at_loading_are_errors(random_cells: str, trt: Any) -> None:
    trt.no_memory = True
    with pytest.raises(defocus_fast.Error, match="cannot make an execution context: out of memory"):
        make(random_cells)
    trt.no_memory, trt.hidden_tensors = False, {"features"}
    with pytest.raises(defocus_fast.Error, match=r"expected an engine of the tensors \['features', 'image'\], got \['"):
        make(random_cells)
    trt.hidden_tensors, trt.refuses = set(), True
    with pytest.raises(defocus_fast.Error, match="refuses the engine that it has built: built for"):
        make(random_cells)


def test_failures_in_a_frame_are_errors(random_cells: str, trt: Any) -> None:
    networks = _tensorrt.Networks()
    networks.prepare(random_cells, "float32", _core.network_shapes(random_cells, 20, 30, 100, "shared"), 90, "GPU")
    memory = np.zeros(1 << 20, np.uint8)
    start = -memory.ctypes.data % 256 + memory.ctypes.data
    with pytest.raises(defocus_fast.Error, match=r"trunk: TensorRT refuses the address 0x\w+ of features: features at"):
        networks("trunk", [start, start + 4], 0)
    with pytest.raises(ValueError, match="zip"):
        networks("trunk", [start], 0)
    networks._graphs["blur_head"] = (["features"], networks._graphs["blur_head"][1])
    with pytest.raises(defocus_fast.Error, match="blur_head: TensorRT cannot enqueue it: no address for"):
        networks("blur_head", [start], 0)
