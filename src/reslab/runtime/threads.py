"""Work on many files by threads, its results in order and its memory bounded.

Decoding and resizing free the interpreter's lock, so threads are enough: no process is started,
nothing is pickled.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # files are checked without torch
    from reslab.runtime.device import Processes
from concurrent.futures import Executor

import torch

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
    everyone = processes.all_gather_objects((host, cores))
    users = [sum(core in theirs for there, theirs in everyone if there == host) for core in cores]
    return max(round(sum(1 / count for count in users)), 1)


def map_in_order(
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


BATCHES_AHEAD = 2  # batches that the threads work on before they are asked for


class Prefetcher:
    """Work on the mini-batch of each iteration by threads; `begin` gives it to them.

    Iterations may be asked for in any order. Those after the last one asked for are begun
    meanwhile, but no more than `last` in all; what is no longer wanted is cancelled.
    """

    def __init__(
        self, begin: Callable[[Executor, int], list[Future[Any]]], threads: int, last: int | None
    ) -> None:
        self.begin, self.last = begin, last
        torch.get_num_threads()  # settles this thread's number, before others set theirs
        self.threads = ThreadPoolExecutor(threads, "reslab-images", initializer=_alone)
        self.begun: dict[int, list[Future[Any]]] = {}

    def __call__(self, iteration: int) -> list[Future[Any]]:
        """Return the work on the mini-batch of `iteration`, from 0, done or not."""
        end = iteration + 1 + BATCHES_AHEAD
        if self.last is not None:
            end = max(min(end, self.last), iteration + 1)
        wanted = range(iteration, end)
        for other in self.begun.keys() - set(wanted):
            for future in self.begun.pop(other):
                future.cancel()
        for number in wanted:
            if number not in self.begun:
                self.begun[number] = self.begin(self.threads, number)
        return self.begun.pop(iteration)

    def close(self) -> None:
        """End the threads, each as soon as it is done with its image."""
        self.threads.shutdown(cancel_futures=True)


def _alone() -> None:
    """Torch uses one thread where this thread calls it; others would wait for each other."""
    torch.set_num_threads(1)
