"""A disk whose calls are recorded, and one of which can be made to fail.

`Disk.patched()` replaces the functions of `os`, `open` and `safe_open` through which the package
reads and writes. A call is named by what it does, the file, and how often that was done before:
"write run/metrics.jsonl 2". So it has the same name in every run, whichever thread makes it.
"""

import builtins
import errno
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any
from unittest.mock import patch

import safetensors

TEMPORARY = re.compile(r"\.reslab-[0-9a-f]+")  # random names of temporary files
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# what a disk may answer to a call
ERRORS = {
    "create": (errno.ENOSPC, errno.EACCES, errno.EROFS),
    "write": (errno.ENOSPC, errno.EIO),
    "truncate": (errno.EIO,),
    "sync": (errno.EIO, errno.ENOSPC),
    "close": (errno.EIO,),
    "rename": (errno.EIO, errno.EACCES),
    "make": (errno.ENOSPC, errno.EACCES),
    "remove": (errno.EACCES, errno.EIO),
    "open": (errno.EACCES, errno.EIO, errno.ENOENT),
    "read": (errno.EIO,),
    "map": (errno.EIO,),
    "list": (errno.EIO, errno.EACCES),
}
CHANGING = ("create", "write", "truncate", "sync", "rename", "make", "remove")


class Disk:
    """The files in the folder `home`: records the calls, and fails the one named `fails`.

    If it is `read_only`, every call that would change it fails.
    """

    def __init__(
        self, home: Path, fails: str | None = None, number: int = 0, *, read_only: bool = False
    ) -> None:
        self.home, self.fails, self.number, self.read_only = home, fails, number, read_only
        self.calls: list[str] = []
        self.seen: Counter[str] = Counter()
        self.handles: dict[int, str] = {}  # open files, by handle
        self.lock = RLock()

    def name(self, file: Any) -> str | None:
        """Return the name of a file in `home`, given its path or handle; None for other files."""
        if isinstance(file, int):
            return self.handles.get(file)
        path = os.path.abspath(os.fsdecode(file))
        if not f"{path}/".startswith(f"{self.home}/"):
            return None
        return TEMPORARY.sub(".reslab-", os.path.relpath(path, self.home))

    def call(self, kind: str, name: str | None) -> None:
        """Record a call; raise OSError if it is the one that fails."""
        if name is None:
            return
        with self.lock:
            self.seen[f"{kind} {name}"] += 1
            call = f"{kind} {name} {self.seen[f'{kind} {name}']}"
            self.calls.append(call)
        if self.read_only and kind in CHANGING:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)
        if call == self.fails:
            code = ERRORS[kind][self.number % len(ERRORS[kind])]
            raise OSError(code, os.strerror(code))

    @contextmanager
    def patched(self) -> Iterator[None]:
        """In this context, calls go through this disk."""
        kinds = {
            "fsync": "sync", "truncate": "truncate", "ftruncate": "truncate", "mkdir": "make",
            "replace": "rename", "rename": "rename", "unlink": "remove", "remove": "remove",
            "rmdir": "remove", "scandir": "list", "listdir": "list",
        }  # fmt: skip
        with ExitStack() as stack:
            for function, kind in kinds.items():
                replaced = self.counting(getattr(os, function), kind)
                stack.enter_context(patch.object(os, function, replaced))
            self.patch_handles(stack)
            opening = self.opening(io.open)
            stack.enter_context(patch.object(io, "open", opening))
            stack.enter_context(patch.object(builtins, "open", opening))
            mapping = self.counting(safetensors.safe_open, "map")
            stack.enter_context(patch.object(safetensors, "safe_open", mapping))
            yield

    def counting(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """Return a function whose calls are recorded; its first argument is the file."""

        def counted(file: Any = ".", *rest: Any, **more: Any) -> Any:
            self.call(kind, self.name(file))
            return function(file, *rest, **more)

        return counted

    def patch_handles(self, stack: ExitStack) -> None:
        """Replace the functions of `os` that open, read, write and close handles."""
        real_open, real_write, real_close = os.open, os.write, os.close

        def open_handle(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            name = self.name(path)
            self.call("create" if flags & WRITING else "open", name)
            handle = real_open(path, flags, *rest, **more)
            if name is not None:
                self.handles[handle] = name
            return handle

        def write(handle: int, data: Any) -> int:
            try:
                self.call("write", self.name(handle))
            except OSError:
                real_write(handle, bytes(data)[: len(data) // 2])  # a full disk takes some of it
                raise
            return real_write(handle, data)

        def close(handle: int) -> None:
            name = self.handles.pop(handle, None)
            real_close(handle)
            self.call("close", name)

        stack.enter_context(patch.object(os, "open", open_handle))
        stack.enter_context(patch.object(os, "write", write))
        stack.enter_context(patch.object(os, "close", close))

    def opening(self, real_open: Callable[..., Any]) -> Callable[..., Any]:
        """Return `open`, for files whose reads and writes are recorded."""

        def open_file(
            file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
            errors: str | None = None, newline: str | None = None, closefd: bool = True,
            opener: Any = None,
        ) -> Any:  # fmt: skip
            name = self.name(file)
            if name is None:
                return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
            writes = any(letter in mode for letter in "wxa+")
            if not isinstance(file, int):
                self.call("create" if writes else "open", name)
            self.handles.pop(file, None) if isinstance(file, int) else None
            raw = CountedFile(self, name, file, mode.replace("b", "").replace("t", ""), closefd)
            if buffering == 0:
                return raw
            kind = io.BufferedRandom if "+" in mode else io.BufferedReader
            buffered = io.BufferedWriter(raw) if writes and "+" not in mode else kind(raw)
            if "b" in mode:
                return buffered
            return io.TextIOWrapper(buffered, encoding, errors, newline)

        return open_file


class CountedFile(io.FileIO):
    """A file whose calls are recorded by a disk."""

    def __init__(self, disk: Disk, name: str, file: Any, mode: str, closefd: bool) -> None:
        super().__init__(file, mode, closefd)
        self.disk, self.label = disk, name
        disk.handles[self.fileno()] = name  # for os.fsync

    def write(self, data: Any) -> int:
        try:
            self.disk.call("write", self.label)
        except OSError:
            super().write(bytes(data)[: len(data) // 2])
            raise
        return super().write(data) or 0

    def readinto(self, buffer: Any) -> int | None:
        self.disk.call("read", self.label)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self.disk.call("read", self.label)
        return super().readall()

    def truncate(self, size: int | None = None) -> int:
        self.disk.call("truncate", self.label)
        return super().truncate(size)

    def close(self) -> None:
        if not self.closed:
            self.disk.handles.pop(self.fileno(), None)
            writes = self.writable()
            super().close()
            if writes:  # only delayed writes can fail when a file is closed
                self.disk.call("close", self.label)
