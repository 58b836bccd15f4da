# SPDX-License-Identifier: Apache-2.0
"""Many pictures: one is computed while the next are read and the last ones are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Picture = TypeVar("Picture")
Result = TypeVar("Result")
Done = TypeVar("Done")


class Skipped(Exception):
    """Raised by `read` where nothing is to be done."""


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Picture],
    compute: Callable[[Item, Picture], Result],
    write: Callable[[Item, Picture, Result], Done],
    pixels: Callable[[Picture], int],
    workers: int,
) -> Iterator[tuple[Item, Done | Exception]]:
    """Yield every item with what `write` returned or what one of the three raised, as soon as it is there.

    `read` and `write` run in up to `workers` threads each, or a few; `compute` in one, in the order of the items. No
    more is read while the pictures in memory have 48 megapixels, or 8 a worker, or more. A signal is raised at once;
    what is being read, computed or written then goes on until it ends or the process does.
    """
    most_pixels = max(48, 8 * workers) << 20
    most_ahead = min(max(2, workers // 2), 8)
    most_behind = 2 * min(workers, 16)
    readers = ThreadPoolExecutor(most_ahead, "read")
    computer = ThreadPoolExecutor(1, "compute")
    writers = ThreadPoolExecutor(most_behind // 2, "write")
    items = iter(items)
    reading: deque[tuple[Item, Future[Picture]]] = deque()
    computing: tuple[Item, Picture, Future[Result]] | None = None
    writing: dict[Future[Done], tuple[Item, int]] = {}
    try:
        more = True
        while True:
            held = sum(size for _, size in writing.values()) + (pixels(computing[1]) if computing else 0)
            held += sum(pixels(read.result()) for _, read in reading if read.done() and not read.exception())
            while more and held < most_pixels and len(reading) < most_ahead and len(writing) < most_behind:
                try:
                    item = next(items)
                except StopIteration:
                    more = False
                else:
                    reading.append((item, readers.submit(read, item)))
            if not (reading or computing or writing):
                return
            futures: list[Future[Any]] = [*writing]
            if computing:
                futures.append(computing[2])
            elif reading:
                futures.append(reading[0][1])
            wait(futures, 0.1, FIRST_COMPLETED)  # with a limit: on Windows a wait without one cannot be interrupted

            if computing and computing[2].done():
                item, picture, result = computing
                computing = None
                if error := _error(result):
                    yield item, error
                else:
                    writing[writers.submit(write, item, picture, result.result())] = item, pixels(picture)
                del picture, result  # which would keep the memory
            while not computing and reading and reading[0][1].done():
                item, future = reading.popleft()
                if error := _error(future):
                    yield item, error
                else:
                    picture = future.result()
                    computing = item, picture, computer.submit(compute, item, picture)
                    del picture
                del future
            for written in [each for each in writing if each.done()]:
                item, _ = writing.pop(written)
                yield item, _error(written) or written.result()
    finally:
        for executor in (readers, computer, writers):
            executor.shutdown(wait=False, cancel_futures=True)


def _error(future: Future[Result]) -> Exception | None:
    """Return what the work raised, unless it is not for the item alone, such as KeyboardInterrupt."""
    error = future.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error
