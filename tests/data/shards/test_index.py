"""The index: positions of images, and detected damage."""

import hashlib
import os
from pathlib import Path

import pytest
from tests.data.shards.mixed_sets import changed, encoded, quiet, set_of

from reslab.data.shards.index import FORMAT, INDEX, index_bytes
from reslab.data.shards.reader import open_part, read_index
from reslab.data.shards.writer import Packing, pack_sets


def test_the_index_locates_each_image(packed: Path, files: dict) -> None:
    index = read_index(packed)
    columns = index.columns
    for row, name in enumerate(index.files):
        shard = (packed / index.shards[columns["shards"][row]].name).read_bytes()
        start, length = columns["offsets"][row], columns["lengths"][row]
        assert shard[start : start + length] == files[name]
    for shard in index.shards:
        data = (packed / shard.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.size, shard.sha256)


@pytest.mark.parametrize("part", ["length", "facts", "columns", "names", "end", "nothing"])
def test_a_damaged_index_gives_a_one_line_error(packed: Path, part: str) -> None:
    path = packed / INDEX
    data = path.read_bytes()
    position = {
        "length": 1,
        "facts": data.index(b"grey fox"),
        "columns": len(data) // 2,
        "names": data.index(b"a.b-3"),
    }.get(part)
    if position is not None:
        changed(path, lambda content: content.__setitem__(position, content[position] ^ 4))
    else:
        path.write_bytes(data[:-1] if part == "end" else b"")
    with pytest.raises(ValueError, match="damaged") as caught:
        open_part(packed)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_index_with_a_newer_format_is_refused(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = read_index(packed)
    with monkeypatch.context() as newer:
        newer.setattr("reslab.data.shards.index.FORMAT", FORMAT + 1)
        (packed / INDEX).write_bytes(index_bytes(index))
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}.*update reslab"):
        open_part(packed)


def test_names_that_are_not_unicode_are_restored(tmp_path: Path) -> None:
    name = os.fsdecode(b"n01/caf\xe9\n.jpg")
    pack_sets({".": set_of({name: encoded(8, 8, 0)})}, tmp_path / "o", Packing(), quiet)
    assert list(open_part(tmp_path / "o").files) == [name]
