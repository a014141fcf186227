"""Atomic writes and their temporary files."""

import os
import re
from pathlib import Path

import pytest

from reslab.runtime.writing import atomic_write, remove_leftovers

LEFT = ".reslab-0000000000000000.tmp"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    atomic_write(target, b"before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{re.escape(str(target))}'"):
        atomic_write(target, b"after")
    assert target.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_is_missing_is_reported_for_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"/gone/file'$"):
        atomic_write(tmp_path / "gone" / "file", b"")


def test_no_prepared_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if somebody guesses the random name."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    (tmp_path / LEFT).symlink_to(precious)
    monkeypatch.setattr(os, "urandom", bytes)
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "file", b"other")
    remove_leftovers(tmp_path)
    assert precious.read_bytes() == b"mine"
    assert names(tmp_path) == [LEFT, "precious"]


def test_two_writes_have_two_temporary_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    replace = os.replace

    def observed(source: Path, target: Path) -> None:
        seen.extend(names(tmp_path))
        replace(source, target)

    monkeypatch.setattr(os, "replace", observed)
    for _ in range(2):
        atomic_write(tmp_path / "file", b"data")
        (tmp_path / "file").unlink()
    assert len(set(seen)) == 2


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file but a pipe"):
        atomic_write(tmp_path / "pipe", b"data")
    assert names(tmp_path) == ["pipe"]


def test_only_leftovers_of_dead_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LEFT).write_bytes(b"half")
    (tmp_path / ".reslab-notes.tmp").write_bytes(b"a person's")
    seen: list[str] = []
    replace = os.replace

    def cleaned(source: Path, target: Path) -> None:
        remove_leftovers(tmp_path)  # as by another process, while this one writes
        seen.extend(names(tmp_path))
        replace(source, target)

    monkeypatch.setattr(os, "replace", cleaned)
    atomic_write(tmp_path / "file", b"data")
    assert len(seen) == 2
    assert LEFT not in seen
    assert names(tmp_path) == [".reslab-notes.tmp", "file"]
    assert (tmp_path / "file").read_bytes() == b"data"
