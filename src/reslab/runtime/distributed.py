"""The processes of one run: what each of them has, taken together in the order of the processes.

`Alone` is one process, for which everything together is what it has: the identity. `Group` is the
same for several, which torchrun or `--processes` started, by torch.distributed. All of them make
the same calls in the same order; a process that fails ends the others (see `fail_together`).
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, final
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reslab.runtime.gradients import InPlace, OrderedReduce

Value = TypeVar("Value")
STARTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what a launcher tells a process
AGENT = "TORCHELASTIC_USE_AGENT_STORE"  # whether the store is the launcher's
PATIENCE_VARIABLE = "RESLAB_PATIENCE"  # seconds that a process waits for another
SECONDS = 600.0
POLL = 0.05  # seconds between two looks for the others
FAILURE_GRACE = 2.0  # seconds in which a process that failed can say so before it is called lost


class PeerFailed(Exception):
    """Another process has failed, and said why."""

    def __init__(self, status: int) -> None:
        super().__init__("another process has said why")
        self.status = status


@final
@dataclass(frozen=True)
class SingleProcess:
    """One process."""

    rank = 0
    count = 1
    local = 1  # processes on this machine
    first = True  # whether this is the one that writes and speaks

    def rank_slice(self, size: int) -> slice:
        """What this process has of `size` things that are dealt out in a row."""
        return slice(0, size)

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, of each as many, [m, ...] -> [m * count, ...]"""
        return rows

    def all_gather_objects(self, value: Value) -> list[Value]:
        """What each process has, a small thing."""
        return [value]

    def join(self, table: Tensor) -> Tensor:
        """One table on the CPU of which each process filled rows of its own, the rest -0."""
        return table

    def run_on_first(self, make: Callable[[], Value]) -> Value:
        """What the first process makes; the others wait for it."""
        return make()

    def all_reduce_max(self, number: int) -> int:
        """The highest number that a process gives."""
        return number

    def gradients(self, weights: Sequence[nn.Parameter]) -> InPlace:
        """Where the gradients of the shares of one mini-batch are added."""
        return InPlace()

    def close(self) -> None: ...


@final
class ProcessGroup:
    """Several processes, each with equally many of the shares of a mini-batch."""

    first: bool

    def __init__(self, store: dist.Store, rank: int, count: int, patience: float) -> None:
        self.rank, self.count, self.patience = rank, count, patience
        self.local = int(os.environ.get("LOCAL_WORLD_SIZE", count))
        self.first = rank == 0
        self.host = None if os.environ.get(AGENT) == "True" else 0  # the process with the store
        self.store = dist.PrefixStore("reslab", store)
        self.met = 0  # collectives that this process has come to
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        group = dist.PrefixStore("group", store)

        def begin() -> None:
            dist.init_process_group(
                backend, store=group, rank=rank, world_size=count,
                timeout=timedelta(seconds=patience),
            )  # fmt: skip

        self.collective(begin)

    def rank_slice(self, size: int) -> slice:
        assert size % self.count == 0
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def all_gather(self, rows: Tensor) -> Tensor:
        found = rows.new_empty(self.count * len(rows), *rows.shape[1:])
        self.collective(lambda: dist.all_gather(list(found.chunk(self.count)), rows.contiguous()))
        return found

    def all_gather_objects(self, value: Value) -> list[Value]:
        found: list[Any] = [None] * self.count
        self.collective(lambda: dist.all_gather_object(found, value))
        return found

    def join(self, table: Tensor) -> Tensor:
        # every row is one number and otherwise -0, which changes nothing in any order
        self.collective(lambda: dist.all_reduce(table))
        return table

    def run_on_first(self, make: Callable[[], Value]) -> Value:
        box: list[Any] = [make() if self.first else None]
        self.collective(lambda: dist.broadcast_object_list(box, src=0))
        return box[0]

    def all_reduce_max(self, number: int) -> int:
        box = torch.tensor(number)
        self.collective(lambda: dist.all_reduce(box, dist.ReduceOp.MAX))
        return int(box)

    def gradients(self, weights: Sequence[nn.Parameter]) -> OrderedReduce:
        return OrderedReduce(weights, self.count, self.collective)

    def collective(self, collective: Callable[[], object]) -> None:
        """One collective; if it fails, the reason is a process that has failed or is missing."""
        self.met += 1
        begun = time.monotonic()
        try:
            self.store.set(f"met/{self.rank}", str(self.met))
            collective()
        except RuntimeError as error:
            raise self._lost(time.monotonic() - begun) from error

    def _lost(self, waited: float) -> Exception:
        """What to say of a collective that did not come about."""
        missing: list[int] = []
        try:
            for _ in range(round(FAILURE_GRACE / 0.1)):
                if self.store.check(["failed"]):
                    return PeerFailed(int(self.store.get("failed")))
                time.sleep(0.1)
            missing = [rank for rank in range(self.count) if self._met(rank) < self.met]
        except RuntimeError:
            gone = "the launcher" if self.host is None else f"process {self.host} of {self.count}"
            return RuntimeError(f"{gone} is gone, and with it the way to the others")
        who = " and ".join(map(str, missing)) or "another"
        if waited >= self.patience:
            return RuntimeError(
                f"process {who} of {self.count} did not come within {self.patience:g} s "
                f"({PATIENCE_VARIABLE} allows more): it was stopped, or it is slow"
            )
        return RuntimeError(f"process {who} of {self.count} is gone: it was killed, or ran out "
                            "of memory")  # fmt: skip

    def _met(self, rank: int) -> int:
        key = f"met/{rank}"
        return int(self.store.get(key)) if self.store.check([key]) else 0

    def report_first_failure(self, status: int) -> bool:
        """Whether this process is the first that fails, with an exit status; it may speak."""
        try:
            mine = f"{status}/{self.rank}"
            found = self.store.compare_set("failed by", "", mine).decode()
            self.store.set("failed", found.split("/")[0])
        except RuntimeError:  # the store is gone: the first of those that are left speaks
            return self.rank == (1 if self.host == 0 else 0)
        return found == mine

    def close(self) -> None:
        """Leave the others, who notice if they still wait for this one."""
        with suppress(RuntimeError):
            dist.destroy_process_group()


Processes = SingleProcess | ProcessGroup


@cache
def join_processes() -> Processes:
    """The processes of this run, from what torchrun or `--processes` told this one."""
    if not all(os.environ.get(name) for name in STARTED) or os.environ["WORLD_SIZE"] == "1":
        return SingleProcess()
    patience = float(os.environ.get(PATIENCE_VARIABLE, SECONDS))
    try:
        store, rank, count = next(dist.rendezvous("env://", timeout=timedelta(seconds=patience)))
        name = rendezvous(store, rank, count, patience)
    except RuntimeError:  # the store's
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RuntimeError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} did not meet the others "
            f"at {place} within {patience:g} s"
        ) from None
    return ProcessGroup(dist.PrefixStore(name, store), rank, count, patience)


def rendezvous(store: dist.Store, rank: int, count: int, patience: float) -> str:
    """A name for this start of the processes, which no other has.

    torchrun's store outlives the processes that it starts again, and so does what they wrote; how
    often it started them again is not the same number on each machine. So every process says that
    it is here under a name of its own, the first proposes the names that it finds, and begins when
    the processes of just these names have agreed. TimeoutError names those who do not come.
    """

    def read(key: str) -> str:
        return store.get(key).decode() if store.check([key]) else ""

    own = uuid4().hex
    store.set(f"here/{rank}", own)
    limit = time.monotonic() + patience
    missing: list[int] = [0]
    while time.monotonic() < limit:
        if rank == 0:
            names = [read(f"here/{other}") for other in range(count)]
            proposed = " ".join(names)
            store.set("proposed", proposed)
            missing = [other for other in range(1, count) if read(f"agreed/{other}") != proposed]
            if not missing:
                store.set("begun", proposed)
                return own
        elif own in (proposed := read("proposed")).split():
            store.set(f"agreed/{rank}", proposed)
            if read("begun") == proposed:
                return proposed.split()[0]
        time.sleep(POLL)
    who = " and ".join(map(str, missing))
    raise TimeoutError(f"process {who} of {count} did not come within {patience:g} s "
                       f"({PATIENCE_VARIABLE} allows more)")  # fmt: skip


@contextmanager
def fail_together(status_of: Callable[[BaseException], int]) -> Iterator[Processes]:
    """Inside, what ends one process ends all, and the first to fail alone raises why: the others
    raise PeerFailed with the exit status that it has."""
    processes = join_processes()
    try:
        yield processes
    except PeerFailed:
        raise
    except BaseException as error:
        status = status_of(error)
        if isinstance(processes, ProcessGroup) and not processes.report_first_failure(status):
            raise PeerFailed(status) from error
        raise
    finally:
        processes.close()
        join_processes.cache_clear()
