"""Measure how many cores other programs keep busy."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from reslab.runtime.memory import CGROUP
from reslab.runtime.threads import core_numbers, usable_cores

STAT = Path("/proc/stat")  # Linux: a line per core, with counts of ticks
IDLE = (3, 4)  # columns of a line: idle, and waiting for a disk
COUNTED = 8  # columns; those that follow are part of others


def watch_load() -> Callable[[], float]:
    """Start measuring; return a function for the mean number of cores busy with other work since.

    Only the cores that this process may use are counted. Time that a hypervisor gives to other
    machines counts as other work. On systems other than Linux, the load of the last minute is
    returned.
    """
    if not STAT.exists():
        load = min(os.getloadavg()[0], usable_cores())
        return lambda: load
    ticks, own, begun = busy_ticks(STAT.read_text()), time.process_time(), time.monotonic()

    def busy_elsewhere() -> float:
        seconds = (busy_ticks(STAT.read_text()) - ticks) / os.sysconf("SC_CLK_TCK")
        others = seconds - (time.process_time() - own)
        return min(max(others / (time.monotonic() - begun), 0.0), usable_cores())

    return busy_elsewhere


def busy_ticks(stat: str) -> int:
    """Return the ticks that usable cores have been busy since the system's start."""
    names = {f"cpu{number}" for number in core_numbers()}
    total = 0
    for line in stat.splitlines():
        name, *columns = line.split()
        if name in names:
            counts = [int(column) for column in columns[:COUNTED]]
            total += sum(counts) - sum(counts[column] for column in IDLE)
    return total


def allowed_cores(cgroup: Path = CGROUP) -> float:
    """Return the number of cores whose time this process may use, within a container's limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return min(int(quota) / int(period), usable_cores())
    except (OSError, ValueError):  # another system, or "max": no limit
        return usable_cores()
