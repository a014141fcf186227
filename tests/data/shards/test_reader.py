"""Reading packed images, intact and damaged."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.shards.mixed_sets import CLASSES, IDS, changed, set_of

from reslab.data.decode import BadImage, load_image
from reslab.data.shards.reader import is_packed, open_part, read_index


def test_a_set_is_read_back_byte_for_byte_in_its_order(packed: Path, files: dict) -> None:
    original, opened = set_of(files), open_part(packed)
    assert is_packed(packed)
    assert not is_packed(packed.parent)
    assert list(opened.files) == list(original.files)
    assert torch.equal(opened.labels, original.labels)
    assert (opened.name, opened.classes, opened.ids) == ("pictures", CLASSES, IDS)
    for row, (name, data) in enumerate(files.items()):
        assert opened.read(name) == data
        assert np.array_equal(opened.image(row), load_image(data, name))


def test_many_threads_read_any_image(packed: Path, files: dict) -> None:
    opened = open_part(packed)
    chosen = torch.randint(60, (400,), generator=torch.Generator().manual_seed(0))
    part = opened.take("part", chosen)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(part.read, part.files))
    names = list(files)
    assert read == [files[names[row]] for row in chosen.tolist()]


def test_descriptors_are_closed_with_the_reader(packed: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list a process's open files")
    gc.collect()
    before = open_files()
    opened = open_part(packed)
    opened.read(opened.files[0])
    opened.read(opened.files[1])
    assert open_files() == before + 1
    del opened
    gc.collect()
    assert open_files() == before


def test_more_shards_than_may_be_open(
    packed: Path, files: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reslab.data.shards.reader.MAX_OPEN", 0)
    opened = open_part(packed)
    assert all(opened.read(name) == data for name, data in files.items())


def test_a_truncated_or_missing_shard_is_named(packed: Path) -> None:
    path = packed / "shard-000000.tar"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ValueError, match=r"shard-000000\.tar has .* truncated"):
        open_part(packed)
    path.unlink()
    with pytest.raises(ValueError, match=r"shard-000000\.tar is missing"):
        open_part(packed)


def test_a_damaged_sample_is_named_and_the_others_are_read(packed: Path, files: dict) -> None:
    index = read_index(packed)
    position = int(index.columns["offsets"][7]) + 50

    def flip(data: bytearray) -> None:
        data[position] ^= 1

    changed(packed / "shard-000000.tar", flip)
    opened = open_part(packed)
    with pytest.raises(BadImage) as caught:
        opened.image(7)
    assert str(caught.value).startswith(f"{index.files[7]}: ")
    assert str(packed / "shard-000000.tar") in str(caught.value)
    assert all(opened.read(n) == d for n, d in files.items() if n != index.files[7])


def test_a_shard_that_shrinks_while_it_is_read(packed: Path) -> None:
    opened = open_part(packed)
    os.truncate(packed / "shard-000000.tar", 1000)
    last = int(np.argmax(read_index(packed).columns["offsets"]))
    with pytest.raises(BadImage, match="differ from those that were packed"):
        opened.image(last)
