"""Run a study on a Ray cluster, in a folder shared by its machines."""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslab.runtime.writing import is_locked
from reslab.studies.execute import Launcher, start, train_arguments

if TYPE_CHECKING:
    from reslab.studies.experiments import PlannedRun

RETRIES = 20  # restarts of a run whose machine was lost, each from the last checkpoint
LOCK_POLL_SECONDS = 0.2
SAVING_SECONDS = 60.0  # for a run to save and end after its worker is gone
ANSWER_SECONDS = 10.0


@contextmanager
def launch_on_ray(data: Path | None, jobs: int) -> Iterator[Launcher]:
    """Yield a launcher that starts runs on the machines of a cluster.

    `jobs` runs share the processors and GPUs of a machine. The cluster is the one at RAY_ADDRESS,
    otherwise the one that this machine belongs to, otherwise this machine alone.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ValueError("`cluster` ray needs Ray: pip install 'reslab[cluster]'") from None
    check_address(os.environ.get("RAY_ADDRESS", ""))
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        threads, gpus = resources_per_run(machines, jobs)
        task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)(run_on_worker)

        def launch(run: "PlannedRun", log: Path) -> ClusterRun:
            # absolute but not resolved: a symbolic link may point elsewhere on each machine
            weights = run.weights.absolute() if run.weights else None
            run = replace(run, folder=run.folder.absolute(), weights=weights)
            arguments = train_arguments(run, data.absolute() if data else None)
            reference = task.remote(arguments, str(run.folder), str(log.absolute()), threads)
            return ClusterRun(ray, reference, run.folder, log)

        yield launch
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise ValueError if nothing answers at `address`; Ray would retry for five minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():  # empty, or one of Ray's keywords
        return
    try:
        socket.create_connection((host.removeprefix("ray://"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster answers at RAY_ADDRESS {address}: {error}") from None


def resources_per_run(machines: Sequence[dict[str, float]], jobs: int) -> tuple[int, float]:
    """Return the processors and GPUs per run such that the smallest machine takes `jobs` runs.

    If any machine has a GPU, runs are placed only on machines with GPUs.
    """
    usable = [machine for machine in machines if machine.get("CPU", 0) >= 1]
    if not usable:
        raise ValueError("no machine in the Ray cluster offers a CPU")
    usable = [machine for machine in usable if machine.get("GPU", 0) >= 1] or usable
    gpus = min(machine.get("GPU", 0) for machine in usable) / jobs
    return max(int(min(machine["CPU"] for machine in usable)) // jobs, 1), min(gpus, 1)


def run_on_worker(arguments: Sequence[str], folder: str, log: str, threads: int) -> int:
    """Run `reslab` in a cluster worker and return its exit status.

    If the cluster loses contact with a machine that is still training, it restarts the run
    elsewhere, so a run first waits for the lock on its folder. A cancelled run saves a checkpoint
    before it ends.
    """
    with interrupted_by_signals():
        while is_locked(Path(folder)):
            time.sleep(LOCK_POLL_SECONDS)
        # a worker that is killed has no time to ask the run to save: the system does
        process = start(arguments, Path(log), threads, signal.SIGTERM)
        cancelled = False
        while True:
            try:
                return process.wait(LOCK_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            except KeyboardInterrupt:  # a second signal would keep the run from saving
                if not cancelled:
                    process.terminate()
                cancelled = True


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """In this context, raise KeyboardInterrupt at SIGINT, by which Ray cancels, and at SIGTERM.

    A worker may ignore SIGINT: the background jobs of a shell script do, and all they start.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class ClusterRun:
    """A run started on a machine in the cluster."""

    def __init__(self, ray: Any, reference: Any, folder: Path, log: Path) -> None:
        self.ray, self.reference, self.folder, self.log = ray, reference, folder, log

    def poll(self) -> int | None:
        ended, _ = self.ray.wait([self.reference], timeout=0)
        return self.wait() if ended else None

    def terminate(self) -> None:
        self.ray.cancel(self.reference)

    def wait(self) -> int:
        """Return the run's exit status, or 1 if the cluster lost it, once it has ended."""
        try:
            return self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:
            # the previous lines are a traceback; some errors have no text
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        limit = time.monotonic() + SAVING_SECONDS
        while is_locked(self.folder) and time.monotonic() < limit:
            time.sleep(LOCK_POLL_SECONDS)
        with open(self.log, "a") as file:
            file.write(f"reslab: {reason}\n")
        return 1
