# SPDX-License-Identifier: Apache-2.0
"""Arrays in device memory, in and out, on the emulated device; tests/test_gpu.py repeats it with real ones."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_arrays import (
    CONSUMERS,
    CUDA,
    PRODUCERS,
    CudaArray,
    DLPackArray,
    HostDLPack,
    OldDLPackArray,
    by_dlpack,
    capsule_name,
    relabel,
    set_bits,
    set_major_version,
    set_type_code,
)
from emulated import device_options
from images import texture

import defocus_fast
from defocus_fast import benchmark

HEIGHT, WIDTH = 20, 31


@pytest.fixture(scope="module")
def estimator(random_cells: str) -> defocus_fast.Estimator:
    options = device_options(random_cells, HEIGHT, WIDTH, HEIGHT * WIDTH)
    return defocus_fast.Estimator(HEIGHT, WIDTH, model=random_cells, **options)


def picture() -> np.ndarray:
    return texture(HEIGHT, WIDTH, seed=1)


def layouts() -> dict[str, np.ndarray]:
    colour = picture()
    grey = colour[..., 1].astype(np.float32) / 255
    padded = np.zeros((HEIGHT, WIDTH + 9, 3), np.uint8)
    padded[:, :WIDTH] = colour
    return {
        "colour": colour,
        "float": colour.astype(np.float32) / 255,
        "grey float": grey,
        "grey uint8": np.ascontiguousarray(colour[..., 0]),
        "pitch": padded[:, :WIDTH],
        "planar": np.ascontiguousarray(colour.transpose(2, 0, 1)).transpose(1, 2, 0),
        "flipped, BGR": colour[::-1, :, ::-1],
        "every second": np.repeat(grey, 2, axis=1)[:, ::2],
    }


def check_frames(
    estimator: defocus_fast.Estimator,
    image: np.ndarray,
    to_device: Callable[[np.ndarray], Any],
    to_host: Callable[[Any], np.ndarray],
    stream: Any = None,
) -> None:
    """Device to device equals host to host bit for bit; `to_host` reads arrays of `to_device` and of the result."""
    expected = estimator.estimate(image)
    assert len(expected.edges) > 10
    result = estimator.estimate(to_device(image), stream=stream)
    assert isinstance(result, defocus_fast.DeviceBlurMap)
    assert estimator.edge_count(stream) == (len(expected.edges), len(expected.edges))
    np.testing.assert_array_equal(to_host(result.map), expected.map)
    np.testing.assert_array_equal(to_host(result.expected_error), expected.expected_error)
    assert estimator.estimate(to_device(image), expected_error=False, stream=stream).expected_error is None

    out = to_device(np.full(image.shape[:2], -1, np.float32))
    assert estimator.estimate_into(to_device(image), out, stream=stream) is out
    estimator.edge_count(stream)
    np.testing.assert_array_equal(to_host(out), expected.map)

    edges = np.zeros(image.shape[:2], np.uint8)
    edges[3, ::2] = 1
    result = estimator.estimate(to_device(image), edges=to_device(edges), stream=stream)
    np.testing.assert_array_equal(to_host(result.map), estimator.estimate(image, edges=edges).map)

    assert estimator.estimate_into(to_device(image), result.map, stream=stream) is result.map  # an array like others
    estimator.edge_count(stream)
    np.testing.assert_array_equal(to_host(result.map), expected.map)


def to_host(array: Any) -> np.ndarray:
    return by_dlpack(array) if isinstance(array, defocus_fast.DeviceArray) else array.array


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("layout", layouts())
def test_frames_of_every_producer(estimator: defocus_fast.Estimator, producer: str, layout: str) -> None:
    check_frames(estimator, layouts()[layout], PRODUCERS[producer], to_host)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_results_come_out_by_every_protocol(estimator: defocus_fast.Estimator, consumer: str) -> None:
    """Without a copy; the memory lives as long as any array that shows it."""
    result = estimator.estimate(CudaArray(picture()))
    expected = estimator.estimate(picture())
    pointer = result.map.__cuda_array_interface__["data"][0]
    arrays = [CONSUMERS[consumer](result.map), CONSUMERS[consumer](result.expected_error)]
    assert arrays[0].ctypes.data == pointer
    del result
    gc.collect()
    others = [estimator.estimate(CudaArray(picture()[::-1])) for _ in range(10)]  # would be given freed memory
    np.testing.assert_array_equal(arrays[0], expected.map)
    np.testing.assert_array_equal(arrays[1], expected.expected_error)
    del others


def test_capsules_of_pytorch(estimator: defocus_fast.Estimator) -> None:
    """PyTorch without a GPU makes and takes them as with one, but for the device's number."""
    torch = pytest.importorskip("torch")

    class Tensor(DLPackArray):
        def __dlpack__(self, *, stream: Any = None, max_version: Any = None, copy: Any = None) -> Any:
            return relabel(torch.from_numpy(self.array).__dlpack__(max_version=max_version, copy=copy), self.device)

    result = estimator.estimate(Tensor(picture()))
    estimator.estimate_into(Tensor(picture()), Tensor(out := blank()))
    maps = [torch.from_dlpack(HostDLPack(result.map, versioned)) for versioned in (False, True)]
    del result
    for each in (out, *maps):
        np.testing.assert_array_equal(each, estimator.estimate(picture()).map)


def test_out_in_any_layout(estimator: defocus_fast.Estimator) -> None:
    expected = estimator.estimate(picture()).map
    for producer in PRODUCERS.values():
        memory = np.full((HEIGHT + 2, 2 * WIDTH), -1, np.float32)
        for out in (memory[1:-1, ::2], memory[-2:0:-1, -2::-2]):
            estimator.estimate_into(producer(picture()), producer(out))
            np.testing.assert_array_equal(out, expected)
        assert (memory[:, 1::2] == -1).all()
        assert (memory[[0, -1]] == -1).all()


class Recorded:
    """Notes what is asked of the core."""

    def __init__(self, core: Any, log: list[Any]) -> None:
        self._core, self._log = core, log

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self._log.append((name, *(each for each in arguments if isinstance(each, int))))
            return getattr(self._core, name)(*arguments, **options)

        return call if name in ("order", "enqueue", "edge_count") else getattr(self._core, name)


class Stream:
    """A stream of a library that keeps its handle in `name`."""

    def __init__(self, name: str, handle: Any) -> None:
        setattr(self, name, (lambda: (0, handle)) if name == "__cuda_stream__" else handle)


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (None, 1),
        (0, 1),
        (1, 1),
        (2, 2),
        (77, 77),
        (Stream("__cuda_stream__", 77), 77),
        (Stream("ptr", 77), 77),
        (Stream("cuda_stream", 77), 77),
        (Stream("cuda_stream", 0), 1),
        (Stream("handle", 77), 77),
        (Stream("handle", ctypes.c_void_p(77)), 77),
        (Stream("handle", ctypes.c_void_p(0)), 1),
        (np.int64(77), 77),
    ],
)
def test_work_is_in_stream_order(random_cells: str, stream: Any, handle: int) -> None:
    """Every producer is ordered before the frame, the frame before every consumer; networks get the stream."""
    options = device_options(random_cells, HEIGHT, WIDTH)
    log: list[Any] = []
    evaluate = options["networks"]

    def networks(graph: str, tensors: list[int], on: int) -> None:
        assert on == handle
        evaluate(graph, tensors, on)

    estimator = defocus_fast.Estimator(HEIGHT, WIDTH, model=random_cells, **options | {"networks": networks})
    estimator._core = Recorded(estimator._core, log)
    image = DLPackArray(picture(), log=log)
    estimator.estimate_into(image, OldDLPackArray(np.empty((HEIGHT, WIDTH), np.float32), log=log), stream=stream)
    assert log == [("__dlpack__", handle), ("__dlpack__", handle), ("enqueue", handle)]
    log.clear()
    out = CudaArray(np.empty((HEIGHT, WIDTH), np.float32), stream=2)
    estimator.estimate_into(CudaArray(picture(), stream=123), out, stream=stream)
    assert log == [("order", 123, handle), ("order", 2, handle), ("enqueue", handle)]
    log.clear()
    estimator.estimate_into(CudaArray(picture(), stream=None), CudaArray(out.array), stream=stream)
    assert log == [("enqueue", handle)]

    result = estimator.estimate(CudaArray(picture()), stream=stream)
    # Of the per-thread default stream, 2, each thread has its own: the legacy one, which waits for all, stands for it.
    ready = 1 if handle == 2 else handle
    assert result.map.__cuda_array_interface__["stream"] == ready
    log.clear()
    result.map.__dlpack__(stream=-1)
    assert log == []
    result.map.__dlpack__(stream=55)
    result.map.__dlpack__()
    assert log == [("order", ready, 55), ("order", ready, 1)]
    log.clear()
    estimator.edge_count(stream)
    assert log == [("edge_count", handle)]


def test_exported_as_asked(estimator: defocus_fast.Estimator) -> None:
    array = estimator.estimate(CudaArray(picture())).map
    assert (array.shape, array.dtype) == ((HEIGHT, WIDTH), np.float32)
    assert repr(array) == "DeviceArray(20 x 31, GPU 0)"
    assert capsule_name(array.__dlpack__(max_version=(0, 8))) == "dltensor"
    assert capsule_name(array.__dlpack__(max_version=(1, 0), dl_device=CUDA, copy=False)) == "dltensor_versioned"
    for refused in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match=r"only exported as it is, on device \(2, 0\)"):
            array.__dlpack__(**refused)
    for stream in (0, -2):
        with pytest.raises(ValueError, match=f"stream: expected -1, 1, 2 or a handle, got {stream}"):
            array.__dlpack__(stream=stream)
    with pytest.raises(TypeError, match="got one in device memory: see cupy.asarray"):
        np.asarray(array)


@pytest.mark.parametrize("producer", PRODUCERS)
def test_producers_are_kept_for_their_frame_and_no_longer(random_cells: str, producer: str) -> None:
    options = device_options(random_cells, HEIGHT, WIDTH)
    estimator = defocus_fast.Estimator(HEIGHT, WIDTH, model=random_cells, **options)
    first, second = picture(), picture()[::-1]
    counts = [sys.getrefcount(first), sys.getrefcount(second)]
    out = np.empty((HEIGHT, WIDTH), np.float32)
    for image in [first, second] * 3:
        estimator.estimate_into(PRODUCERS[producer](image), PRODUCERS[producer](out))
    del image
    assert sys.getrefcount(first) == counts[0]
    assert sys.getrefcount(second) > counts[1]  # the device may still read it
    del estimator
    gc.collect()
    assert sys.getrefcount(second) == counts[1]


def test_what_is_refused_is_given_back(estimator: defocus_fast.Estimator) -> None:
    """Of every producer, by the deleter of its capsule."""
    wrong = np.zeros((HEIGHT, WIDTH), np.float64)
    estimator.estimate_into(CudaArray(picture()), CudaArray(np.empty((HEIGHT, WIDTH), np.float32)))
    count = sys.getrefcount(wrong)
    for make in (*PRODUCERS.values(), lambda array: DLPackArray(array, change=lambda c: set_major_version(c, 2))):
        with pytest.raises(TypeError):
            estimator.estimate(make(wrong))
    gc.collect()
    assert sys.getrefcount(wrong) == count


def test_results_are_freed(random_cells: str) -> None:
    """Unused capsules, consumed ones, and the results themselves; and they let go of their estimator."""
    options = device_options(random_cells, HEIGHT, WIDTH)
    estimator = defocus_fast.Estimator(HEIGHT, WIDTH, model=random_cells, **options)

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def results(core: Any, count: int) -> None:
        for _ in range(count):
            array = defocus_fast.DeviceArray(core, 1)
            array.__dlpack__()
            array.__dlpack__(max_version=(1, 1))
            for consume in CONSUMERS.values():
                consume(array)

    estimator.estimate(CudaArray(picture()))
    results(estimator._core, 1000)
    before = resident()
    results(estimator._core, 20_000)  # of 2.5 KB each
    assert resident() - before < 4e6
    gone = weakref.ref(estimator)
    del estimator
    gc.collect()
    assert gone() is None


def test_threads_share_an_estimator(estimator: defocus_fast.Estimator) -> None:
    pictures = [texture(HEIGHT, WIDTH, seed=seed) for seed in range(8)]
    outs = [blank() for _ in pictures]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(estimator.estimate_into, map(CudaArray, pictures), map(CudaArray, outs)))
        results = list(threads.map(estimator.estimate, map(DLPackArray, pictures)))
    for image, out, result in zip(pictures, outs, results, strict=True):
        np.testing.assert_array_equal(out, estimator.estimate(image).map)
        np.testing.assert_array_equal(by_dlpack(result.map), out)


def test_a_result_keeps_its_stream(estimator: defocus_fast.Estimator) -> None:
    """Consumers will be told to wait for it."""
    stream = Stream("ptr", 77)
    alive = weakref.ref(stream)
    result = estimator.estimate(CudaArray(picture()), stream=stream)
    del stream
    assert alive() is not None
    del result
    assert alive() is None


def test_an_estimator_for_an_image_without_a_shape(random_cells: str) -> None:
    """The CUDA Array Interface needs no other attribute."""

    class Image:
        __cuda_array_interface__ = CudaArray(picture()).__cuda_array_interface__

    options = device_options(random_cells, HEIGHT, WIDTH)
    estimator = defocus_fast.Estimator.for_image(Image(), model=random_cells, **options)
    assert (estimator.height, estimator.width) == (HEIGHT, WIDTH)
    del Image.__cuda_array_interface__["shape"]
    with pytest.raises(TypeError, match=r"image: expected a shape \(integer >= 0, ...\) in .*, got None"):
        defocus_fast.Estimator.for_image(Image())


def test_networks_that_call_their_estimator(random_cells: str) -> None:
    """An error: it would wait for itself."""
    estimators: list[defocus_fast.Estimator] = []
    options = device_options(random_cells, HEIGHT, WIDTH)
    options["networks"] = lambda *_: estimators[0].estimate(CudaArray(picture()))
    estimators.append(defocus_fast.Estimator(HEIGHT, WIDTH, model=random_cells, **options))
    for _ in range(2):
        with pytest.raises(defocus_fast.Error, match="estimator: called from within one of its own calls"):
            estimators[0].estimate(CudaArray(picture()))
    with pytest.raises(TypeError, match="networks: expected a callable, or none, got 3"):
        defocus_fast.Estimator(HEIGHT, WIDTH, model=random_cells, networks=3)  # type: ignore[arg-type]


def test_estimators_side_by_side(random_cells: str) -> None:
    estimators = [
        defocus_fast.Estimator(HEIGHT, WIDTH, model=random_cells, **device_options(random_cells, HEIGHT, WIDTH))
        for _ in range(3)
    ]
    expected = estimators[0].estimate(picture()).map
    with ThreadPoolExecutor(3) as threads:
        jobs = [threads.submit(estimator.estimate, picture()) for _ in range(5) for estimator in estimators]
        for job in jobs:
            np.testing.assert_array_equal(job.result().map, expected)


@pytest.mark.parametrize(("architecture", "left_out"), [("random_model", True), ("random_cells", False)])
def test_more_edges_than_there_is_memory_for(architecture: str, left_out: bool, request: pytest.FixtureRequest) -> None:
    """Nobody waits, so nothing is raised: edge_count tells. Where cells answer there is memory for all."""
    model = request.getfixturevalue(architecture)
    options = device_options(model, HEIGHT, WIDTH, 10)
    estimator = defocus_fast.Estimator(HEIGHT, WIDTH, model=model, **options)
    estimator.estimate(CudaArray(picture()))
    found, kept = estimator.edge_count()
    assert kept == (10 if left_out else found)
    assert found == defocus_fast.detect_edges(picture()).sum() > 10


def blank(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape or (HEIGHT, WIDTH), dtype)


SIZE = f"expected height x width {HEIGHT} x {WIDTH}, got"
IMAGE = r"expected uint8 or float32 in \[0, 1\] of shape \(H, W\) or \(H, W, 3\), got "
OUT = r"expected float32 of shape \(H, W\), got "
ANOTHER_GPU = "expected memory of GPU 0, got memory of GPU 1"
BAD_IMAGES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "size": (lambda: CudaArray(picture()[1:]), ValueError, f"{SIZE} 19 x 31"),
    "float64": (lambda: DLPackArray(blank(dtype=float)), TypeError, IMAGE + r"float64 \(20, 31\)"),
    "bfloat16": (
        lambda: DLPackArray(blank(dtype=np.float16), change=lambda capsule: set_type_code(capsule, 4)),
        TypeError,
        "expected uint8 or float32, got DLPack type code 4 of 16 bits and 1 lanes",
    ),
    "big-endian": (lambda: CudaArray(blank(dtype=">f4")), TypeError, IMAGE + ">f4"),
    "channels": (lambda: DLPackArray(blank(HEIGHT, WIDTH, 4)), ValueError, IMAGE + r"float32 \(20, 31, 4\)"),
    "dimensions": (lambda: CudaArray(blank(9)), ValueError, IMAGE + r"float32 \(9,\)"),
    "empty": (lambda: DLPackArray(blank(0, WIDTH)), ValueError, IMAGE + r"float32 \(0, 31\)"),
    "unaligned": (lambda: CudaArray(blank(), strides=(4 * WIDTH + 1, 4)), ValueError, "expected an aligned array"),
    "null": (lambda: CudaArray(picture(), data=(0, False)), ValueError, "expected a pointer to pixels, got null"),
    "mask": (lambda: CudaArray(picture(), mask=CudaArray(picture())), TypeError, "expected an array without a mask"),
    "version": (lambda: CudaArray(picture(), version=1), TypeError, "_interface__ of version 2 or 3, got 1"),
    "no version": (lambda: CudaArray(picture(), version=None), TypeError, "_interface__ of version 2 or 3, got None"),
    "later version": (lambda: CudaArray(picture(), version=99), TypeError, "_interface__ of version 2 or 3, got 99"),
    "no data": (
        lambda: CudaArray(picture(), data=None),
        TypeError,
        r"expected data \(pointer, read-only\) in .*, got None",
    ),
    "no interface": (
        lambda: SimpleNamespace(__cuda_array_interface__=None),
        TypeError,
        "expected a dict as __cuda_array_interface__, got None",
    ),
    "no shape": (lambda: CudaArray(picture(), shape=None), TypeError, r"a shape .* in __cuda_array_.*, got None"),
    "shape": (lambda: CudaArray(picture(), shape=(9, -9)), TypeError, r"a shape .* in __cuda_array_.*, got \(9, -9\)"),
    "no typestr": (lambda: CudaArray(picture(), typestr=None), TypeError, "as typestr in __cuda_array_.*, got None"),
    "typestr": (lambda: CudaArray(picture(), typestr="<f3"), TypeError, "__cuda_array_inter.*, got: data type '<f3'"),
    "strides": (lambda: CudaArray(picture(), strides=(1,)), TypeError, "__cuda_array_interface__ .*, got: mismatch in"),
    "stream 0": (lambda: CudaArray(picture(), stream=0), ValueError, "expected a stream from 1 to .*, got 0"),
    "stream -1": (lambda: CudaArray(picture(), stream=-1), ValueError, "expected a stream from 1 to .*, got -1"),
    "stream 2**64": (lambda: CudaArray(picture(), stream=2**64), ValueError, "expected a stream from 1 to .*, got 184"),
    "stream of text": (lambda: CudaArray(picture(), stream="x"), ValueError, "expected a stream from 1 to .*, got 'x'"),
    "24 bits": (
        lambda: DLPackArray(blank(), change=lambda capsule: set_bits(capsule, 24)),
        TypeError,
        "expected uint8 or float32, got DLPack type code 2 of 24 bits and 1 lanes",
    ),
    "another GPU": (lambda: DLPackArray(picture(), device=(2, 1)), ValueError, ANOTHER_GPU),
    "DLPack 2": (
        lambda: DLPackArray(picture(), change=lambda capsule: set_major_version(capsule, 2)),
        TypeError,
        r"expected DLPack 1, got 2\.",
    ),
}


@pytest.mark.parametrize("bad", BAD_IMAGES)
def test_bad_images(estimator: defocus_fast.Estimator, bad: str) -> None:
    make, error, message = BAD_IMAGES[bad]
    with pytest.raises(error, match="image: .*" + message):
        estimator.estimate(make())
    check_frames(estimator, picture(), CudaArray, to_host)  # still works


def test_bad_capsules(estimator: defocus_fast.Estimator) -> None:
    used = DLPackArray(picture()).__dlpack__(max_version=(1, 1), copy=False)
    image = DLPackArray(picture(), change=lambda _: used)
    estimator.estimate(image)
    with pytest.raises(ValueError, match='image: expected an unused DLPack capsule, got <capsule object "used_dlten'):
        estimator.estimate(image)
    with pytest.raises(ValueError, match="image: expected an unused DLPack capsule, got 7"):
        estimator.estimate(DLPackArray(picture(), change=lambda _: 7))

    def refuse(_: Any) -> Any:
        raise BufferError("call detach() first")

    with pytest.raises(TypeError, match=r"image: DLPackArray does not export its memory: call detach\(\) first"):
        estimator.estimate(DLPackArray(picture(), change=refuse))


def test_bad_outs(estimator: defocus_fast.Estimator) -> None:
    image = CudaArray(picture())
    read_only = blank()
    read_only.flags.writeable = False
    not_writeable = "expected a writeable array, got a read-only one"
    for out, error, message in [
        (blank(), TypeError, "expected an array in device memory, as image is, got ndarray"),
        (CudaArray(read_only), ValueError, not_writeable),
        (DLPackArray(read_only), ValueError, not_writeable),
        (CudaArray(blank(dtype=np.uint8)), TypeError, OUT + "uint8"),
        (CudaArray(blank(HEIGHT, WIDTH, 1)), ValueError, OUT + r"float32 \(20, 31, 1\)"),
        (DLPackArray(blank(HEIGHT, 5)), ValueError, f"{SIZE} 20 x 5"),
        (CudaArray(blank(), strides=(0, 4)), ValueError, "expected pixels that do not overlap in memory"),
    ]:
        with pytest.raises(error, match="out: " + message):
            estimator.estimate_into(image, out)
    with pytest.raises(TypeError, match=r"out: expected a NumPy array, as `image` is in host memory, got CudaArray"):
        estimator.estimate_into(picture(), CudaArray(blank()))
    with pytest.raises(TypeError, match="edges: expected an array in device memory, as image is, got ndarray"):
        estimator.estimate(image, edges=blank(dtype=bool))
    with pytest.raises(TypeError, match="edges: expected an array in host memory, got CudaArray, which is on a device"):
        estimator.estimate(picture(), edges=CudaArray(blank(dtype=bool)))
    with pytest.raises(ValueError, match="bin_probabilities: expected False for an image in device memory"):
        estimator.estimate(image, bin_probabilities=True)


def test_bad_streams(estimator: defocus_fast.Estimator) -> None:
    for stream in ("s", True, 1.5, object(), Stream("ptr", None)):
        with pytest.raises(TypeError, match="stream: expected a handle or an object with __cuda_stream__, ptr"):
            estimator.estimate(CudaArray(picture()), stream=stream)
    for handle in (-1, 2**64):
        with pytest.raises(ValueError, match=r"stream: expected a handle from 0 to 2\*\*64 - 1, got "):
            estimator.estimate_into(CudaArray(picture()), CudaArray(picture()), stream=handle)
    result = estimator.estimate(CudaArray(picture()))
    for consumer_s in (0, -2, 1.5, 2**64):
        with pytest.raises(ValueError, match="stream: expected -1, 1, 2 or a handle, got "):
            result.map.__dlpack__(stream=consumer_s)
    with pytest.raises(ValueError, match="stream: expected None for an image in host memory"):
        estimator.estimate(picture(), stream=7)


@pytest.mark.parametrize(
    ("memory", "message"),
    [("unknown", "expected memory of GPU 0, got memory that no GPU knows"), ("1", ANOTHER_GPU)],
)
def test_memory_that_the_gpu_does_not_reach(
    estimator: defocus_fast.Estimator, monkeypatch: pytest.MonkeyPatch, memory: str, message: str
) -> None:
    """Whatever its producer says."""
    monkeypatch.setenv("EMULATION_MEMORY", memory)
    with pytest.raises(ValueError, match="image: " + message):
        estimator.estimate(CudaArray(picture()))


def test_estimators_on_the_cpu(random_cells: str) -> None:
    estimator = defocus_fast.Estimator(HEIGHT, WIDTH, model=random_cells, device="cpu")
    out = np.zeros((HEIGHT, WIDTH), np.float32)
    for producer in PRODUCERS.values():
        with pytest.raises(
            TypeError, match="image: expected an array in host memory, got .*Array, which is on a device"
        ):
            estimator.estimate(producer(picture()), stream=3)
        with pytest.raises(TypeError, match="image: expected an array in host memory"):
            estimator.estimate_into(producer(picture()), producer(out))
    with pytest.raises(defocus_fast.BackendUnavailable, match="need device cuda, this estimator's is cpu"):
        estimator.edge_count()


def test_memory_that_host_and_device_share(estimator: defocus_fast.Estimator) -> None:
    """Managed memory is device memory; pinned memory is host memory."""
    assert isinstance(estimator.estimate(DLPackArray(picture(), device=(13, 0))), defocus_fast.DeviceBlurMap)
    pinned = estimator.estimate(OldDLPackArray(picture(), device=(3, 0)))
    assert isinstance(pinned, defocus_fast.BlurMap)
    np.testing.assert_array_equal(pinned.map, estimator.estimate(picture()).map)


def test_estimators_for_images_on_the_device(random_cells: str) -> None:
    class Tensor(CudaArray):
        shape = (HEIGHT, WIDTH, 3)

    options = device_options(random_cells, HEIGHT, WIDTH)
    estimator = defocus_fast.Estimator.for_image(Tensor(picture()), model=random_cells, **options)
    assert (estimator.height, estimator.width) == (HEIGHT, WIDTH)


def test_times(random_cells: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the stages by the device's clock; from host to host and from device to device apart."""
    options = {"model": random_cells, **device_options(random_cells, HEIGHT, WIDTH)}
    for depth_threshold, to_device in ((None, None), (1.0, DLPackArray)):
        monkeypatch.setattr(benchmark, "_to_device", lambda to_device=to_device: to_device)
        times = benchmark.time_frames(picture(), 0, depth_threshold=depth_threshold, **options).stages
        on_device, frames = times.pop("device to device"), times.pop("whole frame")
        assert list(times) == ["detect_edges", "extract_features", "classify_edges", "estimate_radii", "propagate"]
        assert all(0 < sum(stages) < frame for *stages, frame in zip(*times.values(), frames, strict=True))
        assert min(times["extract_features"]) > 10 * max(times["classify_edges"]) * (depth_threshold == 1.0)
        assert [ms > 0 for ms in on_device] == ([True] * 3 if to_device else [False])
