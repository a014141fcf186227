"""The processes of one run and their collectives, with results in rank order.

In a `SingleProcess` every collective is the identity. A `ProcessGroup` implements the same methods
with torch.distributed, for processes started by torchrun or `--processes`. All processes make the
same calls in the same order; if one fails, the others end too (see `fail_together`).

A share is the part of a mini-batch for one virtual GPU.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import import_module
from typing import Any, TypeVar, final
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reslab.runtime.gradients import InPlace, OrderedReduce

Value = TypeVar("Value")
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by a launcher
AGENT_STORE_VARIABLE = "TORCHELASTIC_USE_AGENT_STORE"  # "True" if the launcher hosts the store
PATIENCE_VARIABLE = "RESLAB_PATIENCE"  # seconds to wait for another process
DEFAULT_PATIENCE = 600.0
POLL_INTERVAL = 0.05  # seconds
FAILURE_GRACE = 2.0  # seconds for a failed process to report before it counts as lost


class PeerFailed(Exception):
    """Raised if another process has failed and reported its error."""

    def __init__(self, status: int) -> None:
        super().__init__("another process failed and has reported its error")
        self.status = status


@final
@dataclass(frozen=True)
class SingleProcess:
    """A run with a single process."""

    rank = 0
    count = 1
    local = 1  # processes on this machine
    first = True  # whether this process writes files and messages

    def rank_slice(self, size: int) -> slice:
        """Return the contiguous part of `size` items that belongs to this process."""
        return slice(0, size)

    def all_gather(self, rows: Tensor) -> Tensor:
        """Concatenate the rows of all processes, m from each: [m, ...] -> [m * count, ...]."""
        return rows

    def all_gather_objects(self, value: Value) -> list[Value]:
        """Collect one small object from each process."""
        return [value]

    def all_reduce_rows(self, table: Tensor) -> Tensor:
        """Merge a CPU table in which each process has filled its rows and left -0 elsewhere."""
        return table

    def run_on_first(self, make: Callable[[], Value]) -> Value:
        """Call `make` on the first process only, and return its value on every process."""
        return make()

    def all_reduce_max(self, number: int) -> int:
        """Return the maximum of `number` over all processes."""
        return number

    def gradients(self, weights: Sequence[nn.Parameter]) -> InPlace:
        """Return an object that sums gradients over the shares of a mini-batch."""
        return InPlace()

    def close(self) -> None: ...


@final
class ProcessGroup:
    """Several processes, each with the same number of shares of a mini-batch."""

    first: bool

    def __init__(self, store: dist.Store, rank: int, count: int, patience: float) -> None:
        self.rank, self.count, self.patience = rank, count, patience
        self.local = int(os.environ.get("LOCAL_WORLD_SIZE", count))
        self.first = rank == 0
        # rank of the process that hosts the store; None if the launcher does
        self.host = None if os.environ.get(AGENT_STORE_VARIABLE) == "True" else 0
        self.store = dist.PrefixStore("reslab", store)
        self.entered = 0  # collectives entered by this process
        # Imported later, its functions would keep the group as a default argument. Then the group's
        # threads would outlive `close`, and could abort the process while Python ends.
        import_module("torch.distributed.nn.functional")
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
        length = size // self.count
        return slice(self.rank * length, (self.rank + 1) * length)

    def all_gather(self, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(self.count * len(rows), *rows.shape[1:])
        parts = list(gathered.chunk(self.count))
        self.collective(lambda: dist.all_gather(parts, rows.contiguous()))
        return gathered

    def all_gather_objects(self, value: Value) -> list[Value]:
        gathered: list[Any] = [None] * self.count
        self.collective(lambda: dist.all_gather_object(gathered, value))
        return gathered

    def all_reduce_rows(self, table: Tensor) -> Tensor:
        # one process has the value and the others have -0, so the sum is exact in any order
        self.collective(lambda: dist.all_reduce(table))
        return table

    def run_on_first(self, make: Callable[[], Value]) -> Value:
        objects: list[Any] = [make() if self.first else None]
        self.collective(lambda: dist.broadcast_object_list(objects, src=0))
        return objects[0]

    def all_reduce_max(self, number: int) -> int:
        maximum = torch.tensor(number)
        self.collective(lambda: dist.all_reduce(maximum, dist.ReduceOp.MAX))
        return int(maximum)

    def gradients(self, weights: Sequence[nn.Parameter]) -> OrderedReduce:
        return OrderedReduce(weights, self.count, self.collective)

    def collective(self, operation: Callable[[], object]) -> None:
        """Run one collective; if it fails, raise an error that names the missing processes."""
        self.entered += 1
        start = time.monotonic()
        try:
            self.store.set(f"met/{self.rank}", str(self.entered))
            operation()
        except RuntimeError as error:
            raise self._lost(time.monotonic() - start) from error

    def _lost(self, waited: float) -> Exception:
        """Return the error for a collective that failed after `waited` seconds."""
        missing: list[int] = []
        try:
            for _ in range(round(FAILURE_GRACE / 0.1)):
                if self.store.check(["failed"]):
                    return PeerFailed(int(self.store.get("failed")))
                time.sleep(0.1)
            missing = [rank for rank in range(self.count) if self._entered_by(rank) < self.entered]
        except RuntimeError:
            host = "the launcher" if self.host is None else name_ranks([self.host], self.count)
            return RuntimeError(f"{host} has ended, and the connection to the others is lost")
        names = name_ranks(missing, self.count) if missing else "another process"
        if waited >= self.patience:
            return RuntimeError(
                f"{names} did not respond within {self.patience:g} s: stopped or slow (set "
                f"{PATIENCE_VARIABLE} to wait longer)"
            )
        return RuntimeError(f"{names} ended without an error message: killed, or out of memory")

    def _entered_by(self, rank: int) -> int:
        key = f"met/{rank}"
        return int(self.store.get(key)) if self.store.check([key]) else 0

    def report_first_failure(self, status: int) -> bool:
        """Register a failure; return True only to the first process to fail, which reports it."""
        try:
            failure = f"{status}/{self.rank}"
            first = self.store.compare_set("failed by", "", failure).decode()
            self.store.set("failed", first.split("/")[0])
        except RuntimeError:  # the store is gone: the lowest remaining rank reports
            return self.rank == (1 if self.host == 0 else 0)
        return first == failure

    def close(self) -> None:
        """Leave the group; processes still waiting for this one get an error."""
        with suppress(RuntimeError):
            dist.destroy_process_group()


Processes = SingleProcess | ProcessGroup


def name_ranks(ranks: Sequence[int], count: int) -> str:
    """Return the ranks as text for messages: "process 1 of 4", "processes 1 and 2 of 4"."""
    noun = "process" if len(ranks) == 1 else "processes"
    return f"{noun} {' and '.join(map(str, ranks))} of {count}"


@cache
def join_processes() -> Processes:
    """Join the processes of this run, as described by the environment variables of the launcher.

    Return a SingleProcess if there is no launcher, or only one process.
    """
    if (
        not all(os.environ.get(name) for name in LAUNCHER_VARIABLES)
        or os.environ["WORLD_SIZE"] == "1"
    ):
        return SingleProcess()
    patience = float(os.environ.get(PATIENCE_VARIABLE, DEFAULT_PATIENCE))
    try:
        store, rank, count = next(dist.rendezvous("env://", timeout=timedelta(seconds=patience)))
        name = rendezvous(store, rank, count, patience)
    except RuntimeError:  # from the store
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RuntimeError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} could not connect to the "
            f"others at {address} within {patience:g} s"
        ) from None
    return ProcessGroup(dist.PrefixStore(name, store), rank, count, patience)


def rendezvous(store: dist.Store, rank: int, count: int, patience: float) -> str:
    """Agree with the other processes on a name that is unique to this launch, and return it.

    torchrun's store, with all its entries, outlives the processes that torchrun restarts, and
    machines may count restarts differently. So each process announces a random name; the first
    process proposes the names that it finds, and starts as soon as exactly these processes have
    agreed. Raise TimeoutError with the ranks of missing processes.
    """

    def read(key: str) -> str:
        return store.get(key).decode() if store.check([key]) else ""

    name = uuid4().hex
    store.set(f"here/{rank}", name)
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
                return name
        elif name in (proposed := read("proposed")).split():
            store.set(f"agreed/{rank}", proposed)
            if read("begun") == proposed:
                return proposed.split()[0]
        time.sleep(POLL_INTERVAL)
    raise TimeoutError(
        f"{name_ranks(missing, count)} did not start within {patience:g} s "
        f"(set {PATIENCE_VARIABLE} to wait longer)"
    )


@contextmanager
def fail_together(status_of: Callable[[BaseException], int]) -> Iterator[Processes]:
    """Return a context in which the failure of one process ends all of them.

    Only the first process to fail raises its own error; the others raise PeerFailed with the exit
    status of the first.
    """
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
