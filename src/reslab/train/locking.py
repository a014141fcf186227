"""One process at a time in a run folder, on every machine that shares it."""

import fcntl
import os
from pathlib import Path

LOCK = ".lock"  # a file in the folder, for shared disks know no lock of the folder itself


def lock(folder: Path) -> int | None:
    """Keep other processes out until this one ends, however it ends: the lock's handle, which may
    be closed before; None if another process has the lock. A disk without locks keeps nobody out.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        pass
    return handle


def is_locked(folder: Path) -> bool:
    """Whether a process has the lock."""
    if not (folder / LOCK).exists():
        return False
    handle = lock(folder)
    if handle is not None:
        os.close(handle)
    return handle is None
