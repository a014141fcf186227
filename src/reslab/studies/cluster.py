"""Run a study on a Ray cluster, in a folder shared by its machines."""

import logging
import os
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
            return ClusterRun(ray, reference, log)

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
    while is_locked(Path(folder)):
        time.sleep(LOCK_POLL_SECONDS)
    process = start(arguments, Path(log), threads)
    cancelled = False
    while True:
        try:
            return process.wait(LOCK_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # how Ray cancels; a second signal would keep the run from saving
            if not cancelled:
                process.terminate()
            cancelled = True


class ClusterRun:
    """A run started on a machine in the cluster."""

    def __init__(self, ray: Any, reference: Any, log: Path) -> None:
        self.ray, self.reference, self.log = ray, reference, log

    def poll(self) -> int | None:
        ended, _ = self.ray.wait([self.reference], timeout=0)
        return self.wait() if ended else None

    def terminate(self) -> None:
        self.ray.cancel(self.reference)

    def wait(self) -> int:
        try:
            return self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]  # the previous lines are a traceback
            with open(self.log, "a") as file:
                file.write(f"reslab: {reason}\n")
            return 1
