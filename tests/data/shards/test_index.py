"""The index: positions of images, and detected damage."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from tests.data.shards.mixed_sets import changed, encoded, quiet, set_of

from reslab.data.shards.index import (
    FORMAT,
    INDEX,
    checked_facts,
    header_size,
    index_bytes,
    parse_header,
)
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


def forged(packed: Path, change: Callable[[dict, dict], object]) -> str:
    """Change the facts and the columns of an index and give it a valid checksum."""
    path = packed / INDEX
    header = parse_header(path.read_bytes()[8 : 8 + header_size(path.read_bytes())])
    facts, arrays = checked_facts(header), load(path.read_bytes())
    facts.pop("sha256")
    change(facts, arrays)
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    path.write_bytes(save(arrays, {"facts": json.dumps({**facts, "sha256": digest.hexdigest()})}))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} ") as caught:
        open_part(packed)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path} ")


FORGERIES: dict[str, tuple[Callable[[dict, dict], object], str]] = {
    "outside": (lambda f, a: f["shards"][0].update(name="../../other/shard.tar"), "in the folder"),
    "absolute": (lambda f, a: f["shards"][0].update(name="/etc/passwd"), "in the folder"),
    "nameless": (lambda f, a: f["shards"][0].update(name=""), "in the folder"),
    "zero byte": (lambda f, a: f["shards"][0].update(name="a\0.tar"), "in the folder"),
    "number as a name": (lambda f, a: f["shards"][0].update(name=3), "shards.0.name"),
    "no size": (lambda f, a: f["shards"][0].pop("size"), "shards.0.size"),
    "size": (lambda f, a: f["shards"][0].update(size=-1), "shards.0.size"),
    "cache key": (lambda f, a: f["shards"][0].update(sha256="../" * 22), "shards.0.sha256"),
    "twice": (lambda f, a: f["shards"].append(f["shards"][0]), "the same name"),
    "no shards": (lambda f, a: f.update(shards=[]), "shards"),
    "classes": (lambda f, a: f["classes"].append("cow"), "equally many"),
    "equal ids": (lambda f, a: f.update(ids=["a", "a", "b"]), "all ids different"),
    "class of another type": (lambda f, a: f.update(classes=[1, 2, 3]), "classes.0"),
    "classes are text": (lambda f, a: f.update(classes="abc"), "classes"),
    "no name": (lambda f, a: f.pop("name"), "name"),
    "format is text": (lambda f, a: f.update(format="1"), "is not an index"),
    "format is true": (lambda f, a: f.update(format=True), "is not an index"),
    "no format": (lambda f, a: f.pop("format"), "is not an index"),
    "label": (lambda f, a: a["labels"].__setitem__(3, 99), "column 'labels' has 99 in row 3"),
    "negative label": (lambda f, a: a["labels"].__setitem__(0, -1), "'labels' has -1 in row 0"),
    "shard": (lambda f, a: a["shards"].__setitem__(5, 1), "'shards' has 1 in row 5"),
    "offset": (lambda f, a: a["offsets"].__setitem__(2, 2**62), "'offsets' has"),
    "negative offset": (lambda f, a: a["offsets"].__setitem__(2, -512), "'offsets' has -512"),
    "length": (lambda f, a: a["lengths"].__setitem__(1, 2**40), "'lengths' has 1099511627776"),
    "empty": (lambda f, a: a["lengths"].__setitem__(1, 0), "'lengths' has 0"),
    "no column": (lambda f, a: a.pop("offsets"), "its columns are checksums, files, labels"),
    "one column more": (lambda f, a: a.update(more=a["labels"]), "its columns are"),
    "type": (lambda f, a: a.update(labels=a["labels"].astype(np.float64)), "type float64"),
    "sign": (lambda f, a: a.update(labels=a["labels"].view(np.uint64)), "type uint64"),
    "shape": (lambda f, a: a.update(labels=a["labels"].reshape(-1, 1)), "shape [60, 1]"),
    "shorter": (lambda f, a: a.update(labels=a["labels"][:9]), "has 9 rows for 60 files"),
    "one file": (lambda f, a: a.update(files=a["files"][:3]), "rows for 1 files"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_index_gives_a_one_line_error(packed: Path, name: str) -> None:
    change, reason = FORGERIES[name]
    assert reason in forged(packed, change)


def test_a_large_shard_that_is_not_there(packed: Path) -> None:
    """With a forged size, an image could be as long as the memory of the machine."""

    def enlarge(facts: dict, arrays: dict) -> None:
        facts["shards"][0]["size"] = 2**50
        arrays["lengths"][0] = 2**40

    assert "'lengths' has 1099511627776 in row 0" in forged(packed, enlarge)


def test_types_and_shapes_in_the_header_cannot_change(packed: Path) -> None:
    """The checksum is of bytes: only one type and shape of each column is accepted."""
    path = packed / INDEX
    data = path.read_bytes()
    for old, new in ((b'"I64"', b'"U64"'), (b'"I64"', b'"F64"'), (b'"U32"', b'"F32"')):
        path.write_bytes(data.replace(old, new))
        with pytest.raises(ValueError, match=r"column .* has type"):
            open_part(packed)
    header = json.loads(data[8 : 8 + header_size(data)])
    header["labels"]["shape"] = [60, 1]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + header_size(data) :])
    with pytest.raises(ValueError, match=r"column 'labels' has type int64 and shape \[60, 1\]"):
        open_part(packed)


@pytest.mark.parametrize(
    "facts", ["[" * 100_000, "3", "", '{"format": 1' + "0" * 5000 + "}", '{"a": NaN}', "\ud800"]
)
def test_facts_that_are_not_facts(packed: Path, facts: str) -> None:
    arrays = load((packed / INDEX).read_bytes())
    (packed / INDEX).write_bytes(save(arrays, {"facts": facts.encode("utf-8", "replace").decode()}))
    with pytest.raises(ValueError, match=INDEX) as caught:
        open_part(packed)
    assert "\n" not in str(caught.value)


def test_names_that_are_not_unicode_are_restored(tmp_path: Path) -> None:
    name = os.fsdecode(b"n01/caf\xe9\n.jpg")
    pack_sets({".": set_of({name: encoded(8, 8, 0)})}, tmp_path / "o", Packing(), quiet)
    assert list(open_part(tmp_path / "o").files) == [name]
