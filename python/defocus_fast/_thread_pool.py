# SPDX-License-Identifier: Apache-2.0
"""Threads that several estimators share; the core has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import _core
from ._table import document, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._core import ThreadPoolOptions


class ThreadPool:
    """Threads for any number of estimators, which take them as `thread_pool`.

    Each frame is computed by the thread that calls its estimator and by those of the pool that have nothing else to do:
    frames of several estimators run side by side, and none waits for another's end. A pool's threads go where the
    fewest are. They live as long as the pool, or an estimator made with it. A pool cannot be pickled; in a forked
    process the first frame starts the threads again.

    Args:
        on_start: called once in each thread before it computes anything, with an index from 0 to `num_threads` - 2, as
            the caller of a frame is its last thread: to give it cores or a priority, such as by
            ``os.sched_setaffinity(0, {index})``. In a forked process it is called again.
        {options}

    Raises:
        TypeError, ValueError: an argument is of another type, or out of range.
        Error: the system starts fewer threads than `num_threads`.
        Exception: the first one of `on_start`; no thread is left behind.
    """

    __slots__ = ("_core",)
    _core: _core.ThreadPool

    @takes("ThreadPool")
    def __init__(
        self, *, on_start: Callable[[int], object] | None = None, **options: Unpack[ThreadPoolOptions]
    ) -> None:
        if on_start is not None and not callable(on_start):
            raise TypeError(f"on_start: expected a callable, or None, got {on_start!r:.200}")
        self._core = _core.ThreadPool(on_start, **options)

    @property
    def num_threads(self) -> int:
        """Threads that a frame runs on at most, its caller included."""
        return self._core.num_threads

    def __repr__(self) -> str:
        return f"ThreadPool(num_threads={self.num_threads})"


if ThreadPool.__doc__:  # not with python -OO
    ThreadPool.__doc__ = document(ThreadPool.__doc__, "ThreadPool")


def core_of(thread_pool: ThreadPool | None) -> _core.ThreadPool | None:
    """Return what the core's estimators are given."""
    if thread_pool is None:
        return None
    if not isinstance(thread_pool, ThreadPool):
        raise TypeError(f"thread_pool: expected a ThreadPool, or None, got {thread_pool!r:.200}")
    return thread_pool._core
