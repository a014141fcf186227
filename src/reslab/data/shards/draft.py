"""Write the files of a pack into a hidden folder, and move them to their places together.

A killed process leaves the hidden folder behind. While it has files, the pack counts as unfinished:
it is not read, and the next pack into the same folder removes it.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from reslab.runtime.files import read_text
from reslab.runtime.json_text import parse_json
from reslab.runtime.writing import LOCK, atomic_write, lock, naming, sync_folder, unlock

DRAFT = ".packing"  # the hidden folder
FILES = "files.json"  # in it, once all files are complete: those to move, in order
_OWN = r"((train|validation)/)?(shard-\d{6,}\.tar|index\.safetensors)"
OWN = re.compile(_OWN)  # paths of the files of a pack
OLD = re.compile(rf"{_OWN}\.tmp")  # of unfinished ones, as earlier versions left them


class Draft:
    """Files to be published in the folder `out`, all or none."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / DRAFT
        self._created: list[Path] = []  # folders, which may not exist yet
        self._files: dict[Path, BufferedWriter] = {}  # by final path, in order
        self._moved: list[Path] = []  # final paths; the last may not be reached
        self._lock: int | None = None

    def begin(self) -> None:
        """Create the hidden folder and lock it; then remove what a killed process left.

        Raise ValueError if `out` is not a new or empty folder, or if another process packs into it.
        """
        if os.path.lexists(self.out) and not self.out.is_dir():
            raise ValueError(f"{self.out} is a file; choose a new folder")
        if not os.path.lexists(self.folder):
            self._must_be_empty()  # before anything is written
        self._make_folder(self.out)
        if self.folder.is_symlink() or self.folder.is_file():
            raise ValueError(f"{self.folder} is not a folder; choose a new folder")
        with suppress(FileExistsError):
            self.folder.mkdir()
        self._lock = lock(self.folder)
        if self._lock is None or not _is_current(self._lock, self.folder / LOCK):
            self.unlock()
            raise ValueError(f"another process packs into {self.out}; choose a new folder")
        self._remove_remains()
        self._must_be_empty()

    def create(self, path: Path) -> BufferedWriter:
        """Open a new file with the final path `path`, in `out`."""
        hidden = self._hidden(path)
        hidden.parent.mkdir(exist_ok=True)
        self._files[path] = file = open(hidden, "xb")  # noqa: SIM115
        return file

    def finish(self, path: Path) -> None:
        """Close a file whose content is complete, once it is on the disk."""
        file = self._files[path]
        with naming(path):
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def write(self, path: Path, data: bytes) -> None:
        """Write a whole file with the final path `path`."""
        with naming(path):
            self.create(path).write(data)
        self.finish(path)

    def publish(self) -> None:
        """Move every file to its final path, in the order of creation, and remove the draft."""
        names = [path.relative_to(self.out).as_posix() for path in self._files]
        atomic_write(self.folder / FILES, json.dumps(names).encode())
        for path in self._files:
            self._make_folder(path.parent)
            with naming(path):
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, "created by another program")
                self._moved.append(path)
                os.rename(self._hidden(path), path)
        for folder in {path.parent for path in self._files}:
            sync_folder(folder)
        self._remove_draft()

    def remove(self) -> None:
        """Remove all files and folders created so far; errors are ignored."""
        for file in self._files.values():
            with suppress(OSError):  # if the disk is full, buffered bytes cannot be written
                file.close()
        for path in reversed(self._moved):
            if not os.path.lexists(self._hidden(path)):
                with suppress(OSError):
                    path.unlink()
        self._remove_draft()
        for folder in reversed(self._created):
            with suppress(OSError):
                folder.rmdir()

    def _hidden(self, path: Path) -> Path:
        return self.folder / path.relative_to(self.out)

    def _make_folder(self, path: Path) -> None:
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                self._created.append(folder)
                folder.mkdir()

    def _must_be_empty(self) -> None:
        """Raise ValueError if `out` has other files than the remains of an earlier version."""
        if self.out.is_dir() and not all(OLD.fullmatch(name) for name in _files_in(self.out)):
            raise ValueError(f"{self.out} is not empty; choose a new folder, or empty it first")

    def _remove_remains(self) -> None:
        """Remove what a killed process left; raise ValueError if it had finished its work."""
        left = [name for name in _files_in(self.folder) if name not in (LOCK, FILES)]
        listed = [name for name in _read_names(self.folder / FILES) if OWN.fullmatch(name)]
        if listed and not left and all((self.out / name).exists() for name in listed):
            self._remove_draft()
            raise ValueError(
                f"{self.out} has a complete pack, whose process was stopped just after it: use it, "
                "or choose a new folder"
            )
        moved = [name for name in listed if name not in left]
        old = [name for name in _files_in(self.out) if OLD.fullmatch(name)]
        for path in (self.out / name for name in (*moved, *old)):
            path.unlink(missing_ok=True)
        for name in ("train", "validation"):
            with suppress(OSError):  # it is not there, or not empty
                (self.out / name).rmdir()
        _remove_content(self.folder)

    def _remove_draft(self) -> None:
        """Remove the hidden folder, the lock last; this is tried twice, and errors are ignored.

        Without the lock, the files are of another process, and only an empty folder is removed.
        """
        for _ in range(2):
            with suppress(OSError):
                if self._lock is not None:
                    _remove_content(self.folder)
                    (self.folder / LOCK).unlink(missing_ok=True)
                self.folder.rmdir()
                return

    def unlock(self) -> None:
        """Release the lock, if it is held."""
        if self._lock is not None:
            unlock(self._lock)
        self._lock = None


@contextmanager
def drafting(out: Path) -> Iterator[Draft]:
    """Yield a draft for the folder `out`; if the block fails, remove what has been written."""
    draft = Draft(out)
    try:
        draft.begin()
        yield draft
        draft.publish()
    except BaseException:  # Ctrl-C too
        draft.remove()
        raise
    finally:
        draft.unlock()


def is_unfinished(folder: Path) -> bool:
    """Return whether a pack into `folder` was stopped, or is in progress."""
    draft = folder / DRAFT
    return draft.is_dir() and any(name not in (LOCK, FILES) for name in _files_in(draft))


def _files_in(folder: Path) -> Iterator[str]:
    """Yield the paths of the files below a folder, relative to it, except those of a draft."""
    for place, folders, files in os.walk(folder):
        inner = os.path.relpath(place, folder)
        if inner == ".":
            folders[:] = [name for name in folders if name != DRAFT]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield name if inner == "." else f"{inner}/{name}"


def _read_names(file: Path) -> list[str]:
    """Return the names in a list; [] if it is not there or cannot be read."""
    try:
        names = parse_json(read_text(file))
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _is_current(handle: int, path: Path) -> bool:
    """Return whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _remove_content(folder: Path) -> None:
    """Remove everything in a folder except its lock."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name != LOCK:
                os.unlink(entry.path)
