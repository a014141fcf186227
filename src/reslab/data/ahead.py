"""Mini-batches that threads work on a little before they are asked for."""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import torch

AHEAD = 2  # batches that the threads work on before they are asked for


class Begun(Protocol):
    """What threads do for one mini-batch."""

    def cancel(self) -> object: ...


Work = TypeVar("Work", bound=Begun)


class Ahead(Generic[Work]):
    """The work on the mini-batch of each iteration; `begin` gives it to the threads.

    Iterations may be asked for in any order. Those after the last one asked for are begun
    meanwhile, but no more than `last` in all; what is no longer wanted is cancelled.
    """

    def __init__(
        self, begin: Callable[[Executor, int], Work], threads: int, last: int | None
    ) -> None:
        self.begin, self.last = begin, last
        torch.get_num_threads()  # settles this thread's number, before others set theirs
        self.threads = ThreadPoolExecutor(threads, "reslab-pictures", initializer=_alone)
        self.begun: dict[int, Work] = {}

    def __call__(self, iteration: int) -> Work:
        """The work on the mini-batch of `iteration`, from 0; it may not be done yet."""
        end = iteration + 1 + AHEAD
        if self.last is not None:
            end = max(min(end, self.last), iteration + 1)
        wanted = range(iteration, end)
        for other in self.begun.keys() - set(wanted):
            self.begun.pop(other).cancel()
        for number in wanted:
            if number not in self.begun:
                self.begun[number] = self.begin(self.threads, number)
        return self.begun.pop(iteration)

    def close(self) -> None:
        """End the threads, each as soon as it is done with its picture."""
        self.threads.shutdown(cancel_futures=True)


def _alone() -> None:
    """Torch uses one thread where this thread calls it; others would wait for each other."""
    torch.set_num_threads(1)
