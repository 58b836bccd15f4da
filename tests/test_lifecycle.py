# SPDX-License-Identifier: Apache-2.0
"""Nothing that happens to a process brings it down: forks, its end during a frame, sub-interpreters, too little memory.

Each program runs in a process of its own, which may not hang, and says nothing on stderr.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

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


def test_daemon_threads_inside_a_frame_at_the_end_of_the_interpreter() -> None:
    program = """
estimators = [Estimator(90, 130, num_threads=2) for _ in range(3)]
def frames(estimator):
    while True:
        estimator.estimate(image)
for estimator in estimators:
    threading.Thread(target=frames, args=(estimator,), daemon=True).start()
time.sleep(0.05)
"""
    for _ in range(10):  # std::terminate came in more than half of the runs
        run(program)


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
        errors.append(type(error).__name__)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(*errors, np.array_equal(estimator.estimate(image).map, expected))
""")
        == "MemoryError MemoryError MemoryError True\n"
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
