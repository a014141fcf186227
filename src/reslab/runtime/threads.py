"""Threads that work on many files, with results in order and bounded memory.

Decoding and resizing release the interpreter's lock, so threads are enough: no process is started,
nothing is pickled.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from reslab.runtime.distributed import Processes

BATCHES_AHEAD = 2  # mini-batches prepared before they are asked for

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """The number of cores this process may use, which may be fewer than the machine has."""
    return len(core_numbers())


def core_numbers() -> set[int]:
    """The numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def cores_for(processes: "Processes") -> int:
    """The number of cores for this process, where others of the run may share them.

    A scheduler binds each process to cores of its own; other launchers do not.
    """
    host, cores = socket.gethostname(), core_numbers()
    everyone = processes.all_gather_objects((host, cores))
    neighbours = [theirs for other, theirs in everyone if other == host]
    users = [sum(core in theirs for theirs in neighbours) for core in cores]
    return max(round(sum(1 / count for count in users)), 1)


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Apply `function` to each item by threads, up to `ahead` items early; results in order.

    An error of `function` is raised in its item's place. The threads end with the iterator: when it
    is exhausted, closed, collected, or left by an exception such as Ctrl-C.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reslab")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Prefetcher:
    """Prepares the mini-batches of coming iterations; `begin` hands one to the threads.

    Iterations may be asked for in any order. Those after the latest one are started meanwhile, up
    to iteration `last`; work that is no longer wanted is cancelled.
    """

    def __init__(
        self, begin: Callable[[Executor, int], list[Future[Any]]], threads: int, last: int | None
    ) -> None:
        import torch

        self.begin, self.last = begin, last
        torch.get_num_threads()  # fixes this thread's number before others set theirs
        self.threads = ThreadPoolExecutor(threads, "reslab-images", initializer=_use_one_thread)
        self.pending: dict[int, list[Future[Any]]] = {}

    def __call__(self, iteration: int) -> list[Future[Any]]:
        """The work on the mini-batch of `iteration`, from 0, done or not."""
        end = iteration + 1 + BATCHES_AHEAD
        if self.last is not None:
            end = max(min(end, self.last), iteration + 1)
        wanted = range(iteration, end)
        for other in self.pending.keys() - set(wanted):
            for future in self.pending.pop(other):
                future.cancel()
        for number in wanted:
            if number not in self.pending:
                self.pending[number] = self.begin(self.threads, number)
        return self.pending.pop(iteration)

    def close(self) -> None:
        """End the threads, each after the image it is at."""
        self.threads.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    """Torch computes on one thread when called from this one; more would wait for each other."""
    import torch

    torch.set_num_threads(1)
