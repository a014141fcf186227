"""Atomic writes, their temporary files, and folder locks."""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reslab.runtime.files import check_regular

LOCK = ".lock"  # a file in the folder: shared disks cannot lock the folder itself
TEMPORARY = re.compile(r"\.reslab-[0-9a-f]{16}\.tmp")  # names of files being written


def atomic_write(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace the file at `path` completely, or leave it unchanged if anything fails.

    The data are first written to a new file in the same folder. If `durable`, they have reached the
    disk when this returns. Raise OSError, which names `path`, also if it is a pipe or a device.
    """
    with naming(path):
        if path.exists():
            check_regular(path)
        temporary, handle = _create_temporary(path.parent)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            if durable:
                os.fsync(handle)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            with suppress(OSError):
                os.close(handle)
    if durable:
        sync_folder(path.parent)


def _create_temporary(folder: Path) -> tuple[Path, int]:
    """Create a file whose name nobody can have given to a link; return its path and handle.

    It is locked until it is closed, so that `remove_leftovers` sees that it is in use.
    """
    while True:
        path = folder / f".reslab-{os.urandom(8).hex()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        handle = os.open(path, flags, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return path, handle
        os.close(handle)  # taken for a leftover before it was locked


def prepare_folder(folder: Path) -> None:
    """Create a folder to write into, if it is missing, and remove leftovers of dead processes."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote into `folder`.

    Files that another process is writing are locked and stay; on a file system without locks, all
    of them stay. Errors are ignored.
    """
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if TEMPORARY.fullmatch(name)]
        for path in (folder / name for name in names):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                with suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            finally:
                os.close(handle)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError name this file; operations on open files and temporary files do not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's directory entries to disk, so that a rename survives a power failure.

    File systems that do not support this are left to flush them by themselves.
    """
    with naming(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(handle)


def lock(folder: Path) -> int | None:
    """Lock a folder against other processes until this one ends, however it ends.

    Returns the lock's file descriptor, which may be closed earlier, or None if another process
    holds the lock. On a file system without locks this has no effect.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        pass
    return handle


def unlock(handle: int) -> None:
    """Release a lock; nothing can be lost, so errors are ignored."""
    with suppress(OSError):
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Return whether any process holds the folder's lock."""
    if not (folder / LOCK).exists():
        return False
    handle = lock(folder)
    if handle is not None:
        unlock(handle)
    return handle is None
