"""Lists of shards are kept in a cache while the shards are the same."""

import os
import tarfile
from pathlib import Path

import pytest
from tests.data.shards.foreign_tars import samples, write_tar

from reslab.data.shards import listings
from reslab.data.shards.block_cache import BlockCache
from reslab.data.shards.listings import list_all
from reslab.data.shards.samples import list_samples


def test_lists_are_kept_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "é" * 60  # not ASCII, and longer than a header has room for
    members = samples(0, 4) | {"x.wav": b"", f"{name}.jpg": b"", "5.cls": b"1", "6.json": b"{}"}
    paths = [
        write_tar(tmp_path / f"{k}.tar", members | samples(6, k), form=tarfile.GNU_FORMAT)
        for k in range(3)
    ]
    listed: list[Path] = []

    def counted(path: Path) -> listings.Listing:
        listed.append(path)
        return list_samples(path)

    monkeypatch.setattr(listings, "list_samples", counted)
    cache = BlockCache(tmp_path / "cache", print, limit=10**6)
    first = list_all(paths, cache)
    assert first == [list_samples(path) for path in paths]
    assert sorted(listed) == paths
    assert list_all(paths, cache) == first
    assert len(listed) == 3
    os.utime(paths[1], ns=(0, 0))
    assert list_all(paths, cache) == first
    assert listed[3:] == [paths[1]]
    for kept in (tmp_path / "cache").rglob("*"):
        if kept.is_file():
            kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    assert list_all(paths, cache) == first
    assert len(listed) == 7


def test_small_sets_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLAB_CACHE", str(tmp_path / "cache"))
    path = write_tar(tmp_path / "a.tar", samples(0, 4))
    (small,) = list_all([path])
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(listings, "LARGE", 1)
    assert list_all([path]) == list_all([path]) == [small]
    assert (tmp_path / "cache").exists()
