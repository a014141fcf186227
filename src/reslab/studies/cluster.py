"""The runs of a study as tasks of a Ray cluster, in a folder that its machines share."""

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

from reslab.runtime.files import is_locked
from reslab.studies.execute import Launcher, start, words_of

if TYPE_CHECKING:
    from reslab.studies.experiments import PlannedRun


RETRIES = 20  # of a run whose machine was lost; it goes on from its last checkpoint
POLL_SECONDS = 0.2
ANSWER_SECONDS = 10.0


@contextmanager
def launch_on_ray(data: Path | None, jobs: int) -> Iterator[Launcher]:
    """Runs on the machines of a cluster, `jobs` on each, which share its processors and GPUs.

    The cluster is that of RAY_ADDRESS, else the one that this machine belongs to, else it is this
    machine alone.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ValueError("--cluster ray needs Ray: pip install 'reslab[cluster]'") from None
    must_answer(os.environ.get("RAY_ADDRESS", ""))
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        threads, gpus = share_of([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs)
        task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)(carry)

        def launch(run: "PlannedRun", log: Path) -> Task:
            # not resolved: where a link leads is each machine's own
            weights = run.weights.absolute() if run.weights else None
            there = replace(run, folder=run.folder.absolute(), weights=weights)
            words = words_of(there, data.absolute() if data else None)
            reference = task.remote(words, str(there.folder), str(log.absolute()), threads)
            return Task(ray, reference, log)

        yield launch
    finally:
        ray.shutdown()


def must_answer(address: str) -> None:
    """ValueError if nothing does; Ray itself would try for five minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():  # none, or Ray's own words
        return
    try:
        socket.create_connection((host.removeprefix("ray://"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster answers at RAY_ADDRESS {address}: {error}") from None


def share_of(machines: Sequence[dict[str, float]], jobs: int) -> tuple[int, float]:
    """Processors and GPUs of a run, such that the smallest machine takes `jobs` at a time.

    Where machines have GPUs, runs go to those alone.
    """
    able = [machine for machine in machines if machine.get("CPU", 0) >= 1]
    if not able:
        raise ValueError("the Ray cluster has no machine with a processor")
    able = [machine for machine in able if machine.get("GPU", 0) >= 1] or able
    gpus = min(machine.get("GPU", 0) for machine in able) / jobs
    return max(int(min(machine["CPU"] for machine in able)) // jobs, 1), min(gpus, 1)


def carry(words: Sequence[str], folder: str, log: str, threads: int) -> int:
    """A run in a worker of the cluster; asked to cancel, it saves first.

    A machine that was cut off may still be training what the cluster has lost sight of.
    """
    while is_locked(Path(folder)):
        time.sleep(POLL_SECONDS)
    process = start(words, Path(log), threads)
    asked = False
    while True:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # how Ray cancels; a second one would not let it save
            if not asked:
                process.terminate()
            asked = True


class Task:
    """A run on the cluster, wherever it is."""

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
            with open(self.log, "a") as file:
                file.write(f"reslab: {last_line_of(error)}\n")
            return 1


def last_line_of(error: Exception) -> str:
    """Of a failure far away: the lines before say where."""
    return str(error).strip().splitlines()[-1]
