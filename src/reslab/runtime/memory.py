"""Refuse what does not fit into memory, before the system ends the process."""

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def must_fit(size: int, what: str, remedy: str) -> None:
    """Raise ValueError, which ends with `remedy`, if `what` needs more bytes than are free."""
    free = free_memory()
    if free is not None and size > free:
        raise ValueError(
            f"{what} needs {size / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free: "
            f"{remedy}"
        )


def free_memory() -> int | None:
    """Return the free memory in bytes, within a container's limit; None if it is unknown."""
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line]
        limit, used = (int((CGROUP / f"memory.{n}").read_text()) for n in ("max", "current"))
        free.append(limit - used)
    except (OSError, ValueError):  # another system, or no limit
        pass
    return min(free, default=None)
