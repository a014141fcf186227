"""Process many files in threads, with results in order and bounded memory.

Decoding and resizing release the GIL, so threads suffice: no worker processes, no pickling.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from reslab.runtime.distributed import Processes

BATCHES_AHEAD = 2  # mini-batches prepared before they are requested

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Return the number of cores that this process may use, which may not be all of them."""
    return len(core_numbers())


def core_numbers() -> set[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def cores_for(processes: "Processes") -> int:
    """Return the number of cores for this process, given the run's other processes on this host.

    Some schedulers bind each process to its own cores; other launchers do not.
    """
    host, cores = socket.gethostname(), core_numbers()
    gathered = processes.all_gather_objects((host, cores))
    on_this_host = [other_cores for other, other_cores in gathered if other == host]
    users = [sum(core in other_cores for other_cores in on_this_host) for core in cores]
    return max(round(sum(1 / count for count in users)), 1)


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Apply `function` to each item in threads, up to `ahead` items early; yield results in order.

    An error in `function` is raised when its item's turn comes. The threads end with the iterator:
    when it is exhausted, closed, garbage-collected, or left by an exception such as Ctrl-C.
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
    """Prepare upcoming mini-batches in threads; `begin` submits the work for one mini-batch.

    Iterations may be requested in any order. Each request also starts the iterations that follow,
    as long as they come before `last`, and cancels work that is no longer needed.
    """

    def __init__(
        self, begin: Callable[[Executor, int], list[Future[Any]]], threads: int, last: int | None
    ) -> None:
        import torch

        self.begin, self.last = begin, last
        torch.get_num_threads()  # fixes the main thread's setting before the workers set theirs
        self.threads = ThreadPoolExecutor(threads, "reslab-images", initializer=_use_one_thread)
        self.pending: dict[int, list[Future[Any]]] = {}

    def __call__(self, iteration: int) -> list[Future[Any]]:
        """Return the futures for the mini-batch of `iteration`, counted from 0, finished or not."""
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
        """End the threads, each after its current image."""
        self.threads.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    """Limit torch to one thread in this worker; more would only compete for the cores."""
    import torch

    torch.set_num_threads(1)
