"""Work on many files by threads, its results in order and its memory bounded.

Decoding and resizing free the interpreter's lock, so threads are enough: no process is started,
nothing is pickled.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """How many cores this process may use: its share of them, not the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result, None, None]:
    """`function` of each item, in the items' order, computed by threads up to `ahead` items early.

    What `function` raises is raised in its place. The threads end with the iterator: when it is
    exhausted, closed, collected, or left by an exception such as Ctrl-C.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reslab")
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
