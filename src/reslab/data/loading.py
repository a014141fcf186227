"""Work on many files by threads, its results in order and its memory bounded.

Decoding and resizing free the interpreter's lock, so threads are enough: no process is started,
nothing is pickled.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # files are checked without torch
    from reslab.world import Processes

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """How many cores this process may use: its share of them, not the machine's."""
    return len(cores_here())


def cores_here() -> set[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def cores_for(processes: "Processes") -> int:
    """This process's part of the cores that it may use, where others of the run may use the same:
    a scheduler binds each to cores of its own, other launchers do not."""
    host, cores = socket.gethostname(), cores_here()
    everyone = processes.gather_objects((host, cores))
    users = [sum(core in theirs for there, theirs in everyone if there == host) for core in cores]
    return max(round(sum(1 / count for count in users)), 1)


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
