# SPDX-License-Identifier: Apache-2.0
"""Nothing that happens to a process brings it down: forks, its end during a frame, sub-interpreters, too little memory.

Each program runs in a process of its own, which may not hang, and says nothing on stderr.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

import defocus_fast

FRAME = """
import os, signal, sys, threading, time
import numpy as np
import defocus_fast
from defocus_fast import Estimator

rng = np.random.default_rng(0)
image = rng.integers(0, 256, (90, 130, 3), np.uint8)
large = rng.integers(0, 256, (600, 800, 3), np.uint8)

def child_status(pid):
    # A child that hangs is ended, and seen by its status.
    for _ in range(600):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"
"""


def run(program: str) -> str:
    command = [sys.executable, "-c", FRAME + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_forked_child_uses_destroys_and_makes_estimators() -> None:
    assert (
        run("""
estimator = Estimator(90, 130, num_threads=2)
expected = estimator.estimate(image).map
edges = defocus_fast.detect_edges(image, num_threads=2)
pid = os.fork()
if pid == 0:
    same = np.array_equal(estimator.estimate(image).map, expected)
    same &= np.array_equal(Estimator(90, 130, num_threads=3).estimate(image).map, expected)
    same &= np.array_equal(defocus_fast.detect_edges(image, num_threads=2), edges)
    again = Estimator(90, 130, num_threads=2)
    grandchild = os.fork()
    if grandchild == 0:
        sys.exit(0 if np.array_equal(estimator.estimate(image).map, again.estimate(image).map) else 1)
    same &= child_status(grandchild) == 0
    del estimator
    sys.exit(0 if same else 1)  # by way of the interpreter's end
print(child_status(pid), np.array_equal(estimator.estimate(image).map, expected))
""")
        == "0 True\n"
    )


def test_a_child_forked_during_a_frame_says_so() -> None:
    assert (
        run("""
estimator = Estimator(600, 800, model="tip22", num_threads=2)
thread = threading.Thread(target=estimator.estimate, args=(large,))
thread.start()
time.sleep(0.1)
pid = os.fork()
if pid == 0:
    try:
        estimator.estimate(large)
        sys.exit(1)
    except defocus_fast.Error as error:
        assert "forked during a frame" in str(error)
    del estimator
    assert len(Estimator(90, 130, num_threads=2).estimate(image).edges) > 100
    sys.exit(0)
print(child_status(pid))
thread.join()
""")
        == "0\n"
    )


def test_a_child_forked_while_a_frame_in_device_memory_is_enqueued_says_so() -> None:
    if "emulated" not in defocus_fast.build_config()["cuda"]:
        pytest.skip("the CUDA part is not built with DEFOCUS_FAST_CUDA_EMULATION")
    assert (
        run("""
class InDeviceMemory:
    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = {**array.__array_interface__, "stream": None}
inside, go_on = threading.Event(), threading.Event()
def networks(graph, tensors, stream):
    inside.set()
    go_on.wait(60)
estimator = Estimator(90, 130, device="cuda", networks=networks)
frame = InDeviceMemory(image), InDeviceMemory(np.empty((90, 130), np.float32))
thread = threading.Thread(target=estimator.estimate_into, args=frame)
thread.start()
inside.wait(60)
pid = os.fork()
if pid == 0:
    try:
        estimator.estimate_into(*frame)
        sys.exit(1)
    except defocus_fast.Error as error:
        assert "forked during a frame" in str(error)
    del estimator
    sys.exit(0)
go_on.set()
thread.join()
print(child_status(pid))
""")
        == "0\n"
    )


def test_daemon_threads_inside_a_frame_at_the_end_of_the_interpreter() -> None:
    program = """
estimators = [Estimator(90, 130, num_threads=2) for _ in range(3)]
def frames(estimator):
    while True:
        estimator.estimate(image)
def stages():
    while True:
        defocus_fast.detect_edges(image, num_threads=2)
for estimator in estimators:
    threading.Thread(target=frames, args=(estimator,), daemon=True).start()
threading.Thread(target=stages, daemon=True).start()
"""
    for i in range(10):  # std::terminate came in more than half of the runs
        run(program + f"time.sleep({0.01 * (i % 5)})")  # 0: the threads' first calls


@pytest.mark.parametrize("method", ["prepare", "__call__"])
def test_daemon_threads_inside_python_networks_at_the_end_of_the_interpreter(method: str) -> None:
    if "emulated" not in defocus_fast.build_config()["cuda"]:
        pytest.skip("the CUDA part is not built with DEFOCUS_FAST_CUDA_EMULATION")
    for _ in range(5):
        assert (
            run(f"""
inside = threading.Event()
def work(*_):
    inside.set()
    while True:
        sum(range(1000))
class Networks:
    def __call__(self, graph, tensors, stream):
        pass
Networks.{method} = work
def frame():
    Estimator(90, 130, device="cuda", networks=Networks()).estimate(image)
threading.Thread(target=frame, daemon=True).start()
print(inside.wait(60), flush=True)
""")
            == "True\n"
        )


def test_a_forked_child_starts_a_pools_threads_again() -> None:
    assert (
        run("""
calls = []
pool = defocus_fast.ThreadPool(num_threads=3, on_start=calls.append)
estimators = [Estimator(90, 130, thread_pool=pool) for _ in range(2)]
expected = estimators[0].estimate(image).map
pid = os.fork()
if pid == 0:
    same = True
    def frame(estimator):
        global same
        same &= np.array_equal(estimator.estimate(image).map, expected)
    frame(estimators[1])
    estimators.append(Estimator(90, 130, thread_pool=pool))
    callers = [threading.Thread(target=frame, args=(each,)) for each in estimators]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    del estimators
    sys.exit(0 if same and sorted(calls) == [0, 0, 1, 1] else 1)
print(child_status(pid), sorted(calls), np.array_equal(estimators[1].estimate(image).map, expected))
""")
        == "0 [0, 1] True\n"
    )


@pytest.mark.parametrize("delay", [0, 0.02, 0.05])
def test_the_interpreter_ends_while_pools_are_made_and_used(delay: float) -> None:
    for _ in range(3):
        run(f"""
pool = defocus_fast.ThreadPool(num_threads=2, on_start=lambda index: None)
kept = [Estimator(90, 130, thread_pool=pool) for _ in range(2)]
def frames(estimator):
    while True:
        estimator.estimate(image)
def pools():
    while True:
        defocus_fast.ThreadPool(num_threads=3, on_start=lambda index: time.sleep(0.001))
for estimator in kept:
    threading.Thread(target=frames, args=(estimator,), daemon=True).start()
threading.Thread(target=pools, daemon=True).start()
time.sleep({delay})
""")


def test_import_in_a_sub_interpreter_is_refused() -> None:
    assert "main interpreter only" in run("""
import importlib
interpreters = importlib.import_module("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
program = '''
try:
    import defocus_fast._core
except ImportError as error:
    print(error, flush=True)
'''
interpreters.run_string(interpreters.create(), program)
""")


def test_too_little_memory_is_a_memory_error_and_leaves_estimators_usable() -> None:
    assert (
        run("""
import resource
estimator = Estimator(90, 130, num_threads=2)
expected = estimator.estimate(image).map
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
errors = []
for call in (
    lambda: Estimator(20_000, 20_000, num_threads=2),
    lambda: Estimator(90, 130, num_threads=1024),
    lambda: defocus_fast.propagate(*[np.broadcast_to(each, (9000, 9000)) for each in (
        np.uint8(0), np.float32(1), np.uint8(1), np.uint8(0))], num_threads=2),
):
    try:
        call()
        errors.append(None)
    except Exception as error:
        errors.append(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
names = [type(error).__name__ for error in errors]
print(*names, "20000x20000" in str(errors[0]), np.array_equal(estimator.estimate(image).map, expected))
""")
        == "MemoryError MemoryError MemoryError True True\n"
    )


@pytest.mark.parametrize("model", ["fast", "tip22"])
def test_signals_reach_the_main_thread_during_frames(model: str) -> None:
    assert (
        run(f"""
estimator = Estimator(600, 800, model={model!r}, num_threads=2)
threading.Thread(target=lambda: [estimator.estimate(large) for _ in range(20)], daemon=True).start()
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    time.sleep(30)
except KeyboardInterrupt:
    print(threading.current_thread() is threading.main_thread())
""")
        == "True\n"
    )


def test_memory_that_ends_anywhere_is_a_memory_error() -> None:
    """In forked processes: in the same one, calls would find memory that others have left."""
    printed = run("""
import resource

def outcome(extra, call):
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + extra, resource.RLIM_INFINITY))
        try:
            call()
            code = 0
        except MemoryError:
            code = 3
        os._exit(code)
    return child_status(pid)

radii = np.ones((600, 800), np.float32)
image_float = large / np.float32(255)
for n in (1, 3):
    estimator = Estimator(600, 800, num_threads=n)
    for call in (
        lambda: Estimator(600, 800, num_threads=n),
        lambda: estimator.estimate(large, bin_probabilities=True),
        lambda: defocus_fast.detect_edges(large, num_threads=n),
        lambda: defocus_fast.propagate(large, radii, radii != 0, radii == 0, num_threads=n),
        lambda: defocus_fast.domain_transform_filter(image_float, image_float, sigma_s=7, sigma_r=1, num_threads=n),
    ):
        print(*[outcome(int(2**18 * step * 1.25**step), call) for step in range(16)])
""")
    calls = [line.split() for line in printed.splitlines()]
    assert len(calls) == 10
    for outcomes in calls:
        assert (outcomes[0], outcomes[-1]) == ("3", "0")  # with nothing, and with 100 MB
        assert set(outcomes) == {"0", "3"}


def test_an_estimator_that_had_too_little_memory_answers_as_before() -> None:
    assert int(
        run("""
import resource
failed = 0
expected = Estimator(600, 800, num_threads=2).estimate(large).map
for step in range(1, 10):
    estimator = Estimator(600, 800, num_threads=2)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (step << 20), resource.RLIM_INFINITY))
    try:
        estimator.estimate(large, bin_probabilities=True)
    except MemoryError:
        failed += 1
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert np.array_equal(estimator.estimate(large).map, expected)
print(failed)
""")
    )


def test_threads_that_cannot_be_started_are_an_error_and_leave_none_behind() -> None:
    assert (
        run("""
import re, resource
defocus_fast.detect_edges(image, num_threads=1)  # what is imported late is imported while this user may read it
resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
if os.getuid() == 0:
    os.setuid(65534)  # root has no limit
before = len(os.listdir("/proc/self/task"))
for _ in range(3):
    try:
        defocus_fast.detect_edges(image, num_threads=8)
    except defocus_fast.Error as error:
        text = "num_threads: could start only [1-7] of 8 threads: Resource temporarily unavailable"
        print(bool(re.fullmatch(text, str(error))), len(os.listdir("/proc/self/task")) - before)
print(defocus_fast.detect_edges(image, num_threads=1).shape)
""")
        == "True 0\nTrue 0\nTrue 0\n(90, 130)\n"
    )
