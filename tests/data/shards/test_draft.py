"""A pack that is killed or fails at any call of the disk is packed again with equal bytes."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.data.shards.mixed_sets import encoded, names_in, quiet, set_of

from reslab.data.folder import read_folder
from reslab.data.shards.draft import DRAFT
from reslab.data.shards.index import INDEX
from reslab.data.shards.writer import Packing, pack_sets
from reslab.runtime.writing import LOCK, lock

FILES = {f"{id_}/{n}.jpg": encoded(9, 9, n) for n in range(4) for id_ in ("n01", "n02")}
WHOLE = {".": set_of(FILES)}
PARTS = {
    "train": set_of(FILES).take("train", torch.arange(6)),
    "validation": set_of(FILES).take("validation", torch.arange(2, 8)),
}
CALLS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir")
KILLED, ENDED, FAILED, UNTOUCHED, BROKEN = 9, 0, 1, 2, 3


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names_in(folder) if "." in name[1:]}


def in_a_fork(act: Callable[[], object], inside: Path, number: int, fails: bool) -> int:
    """Run `act` in a fork whose disk call `number` below `inside` fails, or kills it.

    Return KILLED, FAILED, ENDED, or UNTOUCHED if there are fewer calls.
    """
    process = os.fork()
    if not process:
        os._exit(_run(act, inside, number, fails))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _run(act: Callable[[], object], inside: Path, number: int, fails: bool) -> int:
    left = [number]

    def hook(event: str, arguments: tuple) -> None:
        if event not in CALLS or not str(arguments[0]).startswith(str(inside)):
            return
        left[0] -= 1
        if left[0] == -1 and fails:
            raise OSError(errno.EIO, "Input/output error", str(arguments[0]))
        if left[0] == -1:
            os._exit(KILLED)

    try:
        sys.addaudithook(hook)
        act()
    except OSError:
        return FAILED
    except BaseException:
        return BROKEN
    return ENDED if left[0] < 0 else UNTOUCHED


def expected(parts: dict, home: Path) -> dict[str, bytes]:
    pack_sets(parts, home, Packing(), quiet)
    return content(home)


def is_read_or_refused(out: Path) -> None:
    """Assert that a pack is complete, or is refused."""
    try:
        read_folder(out)
    except ValueError as error:
        reason = str(error)
        assert "unfinished pack" in reason or "no class folders" in reason or not out.exists()
    else:
        assert not any(name.startswith(f"{DRAFT}/shard") for name in names_in(out))
        assert (out / INDEX).exists() or (out / "validation" / INDEX).exists()


@pytest.mark.parametrize("parts", [WHOLE, PARTS], ids=["whole", "parts"])
def test_a_killed_pack_is_packed_again(tmp_path: Path, parts: dict) -> None:
    whole = expected(parts, tmp_path / "whole")
    out, ends = tmp_path / "o", []
    for number in range(200):
        shutil.rmtree(out, ignore_errors=True)
        end = in_a_fork(lambda: pack_sets(parts, out, Packing(), quiet), out, number, False)
        ends.append(end)
        if end == UNTOUCHED:
            assert content(out) == whole
            break
        is_read_or_refused(out)
        complete = out.exists() and content(out).items() >= whole.items()
        if complete:
            with pytest.raises(ValueError, match=r"complete pack|not empty"):
                pack_sets(parts, out, Packing(), quiet)
        else:
            pack_sets(parts, out, Packing(), quiet)
        assert content(out) == whole
        assert not (out / DRAFT).exists()
    assert len(ends) > 15
    assert {*ends[:-1]} == {KILLED}
    assert ends[-1] == UNTOUCHED


@pytest.mark.parametrize("parts", [WHOLE, PARTS], ids=["whole", "parts"])
def test_a_failed_call_leaves_no_files(tmp_path: Path, parts: dict) -> None:
    whole = expected(parts, tmp_path / "whole")
    out, ends = tmp_path / "new" / "o", set()
    for number in range(200):
        end = in_a_fork(lambda: pack_sets(parts, out, Packing(), quiet), out, number, True)
        ends.add(end)
        if end != FAILED:
            assert content(out) == whole
            shutil.rmtree(tmp_path / "new")
        assert not (tmp_path / "new").exists()
        if end == UNTOUCHED:
            break
    assert ends == {FAILED, ENDED, UNTOUCHED}
    assert number > 20


def test_unfinished_files_of_earlier_versions_are_removed(tmp_path: Path) -> None:
    whole = expected(PARTS, tmp_path / "whole")
    out = tmp_path / "o"
    (out / "train").mkdir(parents=True)
    for name in ("train/shard-000000.tar.tmp", f"{INDEX}.tmp", "shard-000000.tar.tmp"):
        (out / name).write_bytes(b"part of it")
    pack_sets(PARTS, out, Packing(), quiet)
    assert content(out) == whole


@pytest.mark.parametrize("name", ["notes.txt", "train/shard-000000.tar", "x.tar.tmp", "a/b"])
def test_files_of_a_person_stay(tmp_path: Path, name: str) -> None:
    out = tmp_path / "o"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b"mine")
    (out / "shard-000000.tar.tmp").write_bytes(b"part of it")
    before = names_in(out)
    for _ in range(2):
        with pytest.raises(ValueError, match="is not empty"):
            pack_sets(WHOLE, out, Packing(), quiet)
        assert (out / name).read_bytes() == b"mine"
        assert names_in(out) <= before
        (out / DRAFT).mkdir(exist_ok=True)  # as after a kill
        (out / DRAFT / "shard-000000.tar").write_bytes(b"part of it")


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "o"
    elsewhere.mkdir()
    (elsewhere / "shard-000000.tar").write_bytes(b"mine")
    out.mkdir()
    (out / DRAFT).symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"\.packing is not a folder; choose a new folder"):
        pack_sets(WHOLE, out, Packing(), quiet)
    (out / DRAFT).unlink()
    (out / DRAFT).mkdir()
    (out / DRAFT / "train").symlink_to(elsewhere)
    (out / DRAFT / "shard-000000.tar").symlink_to(elsewhere / "shard-000000.tar")
    pack_sets(WHOLE, out, Packing(), quiet)
    assert (elsewhere / "shard-000000.tar").read_bytes() == b"mine"
    assert not (out / "shard-000000.tar").is_symlink()


def test_two_processes_do_not_pack_into_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "o"
    (out / DRAFT).mkdir(parents=True)
    handle = lock(out / DRAFT)
    assert handle is not None
    (out / DRAFT / "shard-000000.tar").write_bytes(b"another process's")
    with pytest.raises(ValueError, match="another process packs into"):
        pack_sets(WHOLE, out, Packing(), quiet)
    with pytest.raises(ValueError, match=r"has an unfinished pack: wait for `reslab pack`"):
        read_folder(out)
    assert names_in(out) == {DRAFT, f"{DRAFT}/{LOCK}", f"{DRAFT}/shard-000000.tar"}
    os.close(handle)
    pack_sets(WHOLE, out, Packing(), quiet)
    assert names_in(out) == {INDEX, "shard-000000.tar"}


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "o"

    def place(bad: object) -> None:
        (out / INDEX).write_bytes(b"mine")

    with pytest.raises(FileExistsError, match="created by another program") as caught:
        pack_sets(WHOLE, out, Packing(), place)
    assert caught.value.filename == str(out / INDEX)
    assert names_in(out) == {INDEX}
    assert (out / INDEX).read_bytes() == b"mine"
