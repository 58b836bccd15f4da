# SPDX-License-Identifier: Apache-2.0
"""Estimators that share threads."""

from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from images import texture

import defocus_fast
from defocus_fast import Estimator, ThreadPool, VideoEstimator


def test_estimators_on_one_pool_answer_side_by_side_as_alone(random_cells: str) -> None:
    frames = [texture(70 + 20 * i, 90, seed=i) for i in range(4)]
    expected = [Estimator.for_image(frame, model=random_cells, num_threads=1).estimate(frame).map for frame in frames]
    pool = ThreadPool(num_threads=3)
    assert pool.num_threads == 3
    assert repr(pool) == "ThreadPool(num_threads=3)"
    estimators = [Estimator.for_image(frame, model=random_cells, thread_pool=pool) for frame in frames]
    video = VideoEstimator(70, 90, model=random_cells, thread_pool=pool, num_threads=3)
    assert [each.num_threads for each in (*estimators, video)] == [3] * 5
    del pool

    def same(i: int) -> bool:
        return all(np.array_equal(estimators[i].estimate(frames[i]).map, expected[i]) for _ in range(5))

    with ThreadPoolExecutor(4) as callers:
        answers = callers.map(same, range(4))
        np.testing.assert_array_equal(video.estimate(frames[0]).map, expected[0])
        assert list(answers) == [True] * 4


def test_on_start_runs_once_in_each_thread_before_the_pool_is_made() -> None:
    called: list[tuple[int, int]] = []
    pool = ThreadPool(num_threads=4, on_start=lambda index: called.append((index, threading.get_native_id())))
    assert sorted(index for index, _ in called) == [0, 1, 2]
    threads = {thread for _, thread in called}
    assert len(threads) == 3
    tasks = {int(task) for task in os.listdir("/proc/self/task")}
    assert threads <= tasks - {threading.get_native_id()}
    before = len(tasks)
    estimators = [Estimator(20, 30, model="fast", thread_pool=pool) for _ in range(5)]
    assert len(os.listdir("/proc/self/task")) <= before
    assert len(called) == 3
    assert estimators[4].num_threads == 4


def test_on_start_pins_threads() -> None:
    cores = sorted(os.sched_getaffinity(0))
    threads: list[int] = []

    def pin(index: int) -> None:
        os.sched_setaffinity(0, {cores[index % len(cores)]})
        threads.append(threading.get_native_id())

    pool = ThreadPool(num_threads=3, on_start=pin)
    pinned = sorted(tuple(os.sched_getaffinity(thread)) for thread in threads)
    assert pinned == sorted((cores[index % len(cores)],) for index in range(2))
    assert os.sched_getaffinity(0) == set(cores)
    del pool


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_on_start_raises_comes_out(error: type[BaseException]) -> None:
    def fail(index: int) -> None:
        if index > 0:
            raise error(f"thread {index}")

    with pytest.raises(error, match=r"^thread [12]$"):
        ThreadPool(num_threads=4, on_start=fail)


def test_wrong_arguments() -> None:
    pool = ThreadPool(num_threads=2)
    for call, error, message in [
        (lambda: ThreadPool(num_threads=0), ValueError, r"^num_threads: expected an integer in \[1, 1024\], or none"),
        (lambda: ThreadPool(num_threads="2"), TypeError, "^num_threads: expected an integer"),
        (lambda: ThreadPool(on_start=3), TypeError, "^on_start: expected a callable, or None, got 3$"),
        (lambda: ThreadPool(threads=2), TypeError, "unexpected keyword argument 'threads'"),
        (lambda: Estimator(20, 30, thread_pool=2), TypeError, "^thread_pool: expected a ThreadPool, or None, got 2$"),
        (lambda: VideoEstimator(20, 30, thread_pool="x"), TypeError, "^thread_pool: expected a ThreadPool"),
        (
            lambda: Estimator(20, 30, thread_pool=pool, num_threads=3),
            ValueError,
            "^num_threads: expected none or that of the thread pool, 2, got 3$",
        ),
        (lambda: pickle.dumps(pool), TypeError, "pickle"),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert defocus_fast.ThreadPool is ThreadPool
