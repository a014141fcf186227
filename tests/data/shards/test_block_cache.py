"""The block cache: what it keeps, and what it evicts first."""

import os
from pathlib import Path

from tests.data.shards.remote_sets import fail

from reslab.data.shards.block_cache import STALE, BlockCache, cache_folder


def test_the_least_recently_used_block_is_evicted_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache", fail, limit=1000)
    for number in range(9):
        cache.keep("key", number, bytes([number]) * 100)
        os.utime(tmp_path / "cache" / "key" / f"{number:06d}", (number, number))
    assert cache.find("key", 0, 100) == bytes(100)
    cache.keep("key", 9, bytes(100))
    kept = [number for number in range(10) if cache.has("key", number, 100)]
    assert kept == [0, 2, 3, 4, 5, 6, 7, 8, 9]


def test_only_a_complete_block_is_returned(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, fail)
    assert cache.find("key", 3, 100) is None
    cache.keep("key", 3, bytes(99))
    assert cache.find("key", 3, 100) is None
    assert not cache.has("key", 3, 100)
    assert cache.find("key", 3, 99) == bytes(99)
    cache.drop("key", 3)
    cache.drop("key", 3)
    assert cache.find("key", 3, 99) is None


def test_abandoned_temporary_files_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "key" / "000001.1-2.tmp"
    left.parent.mkdir()
    left.write_bytes(bytes(5))
    now = left.stat().st_mtime
    BlockCache(tmp_path, fail, limit=1000, clock=lambda: now + STALE - 1).keep("key", 2, b"x")
    assert left.exists()
    BlockCache(tmp_path, fail, limit=1000, clock=lambda: now + STALE + 1).keep("key", 2, b"x")
    assert not left.exists()


def test_the_location_of_the_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RESLAB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RESLAB_CACHE")
    assert cache_folder().parts[-2:] == ("reslab", "shards")
