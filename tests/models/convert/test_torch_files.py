"""Files of torch and pickles are read as torch and pickle read them, where nothing is wrong."""

import argparse
import io
import pathlib
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reslab.models.convert.tensor_files import read_tensors


def a_rich_checkpoint() -> dict[str, Any]:
    base = torch.arange(24.0)
    return {
        "plain": base,
        "view": base[3:15].view(3, 4).t(),
        "half": base.half(),
        "brain": base.bfloat16(),
        "double": base.double(),
        "parameter": nn.Parameter(base.view(2, 12)),
        "scalar": torch.tensor(2.5),
        "nothing": torch.empty(0, 3),
        "bn.num_batches_tracked": torch.tensor(7),
        "more": OrderedDict(a=torch.ones(1, 1), b=[torch.zeros(2)]),
    }


@pytest.mark.parametrize("archive", [True, False])
def test_tensors_are_torchs(tmp_path: Path, archive: bool) -> None:
    content = a_rich_checkpoint()
    if archive:  # torch rebuilds 8-bit floats by another function, and only from archives
        content["tiny"] = content["plain"].to(torch.float8_e4m3fn)
    torch.save(content, tmp_path / "w", _use_new_zipfile_serialization=archive)
    expected = torch.load(tmp_path / "w", weights_only=True)
    expected |= {"more.a": expected["more"]["a"], "more.b.0": expected.pop("more")["b"][0]}
    read = read_tensors(tmp_path / "w").tensors
    assert read.keys() == expected.keys()
    for name, tensor in read.items():
        counts = name.endswith("tracked")
        assert torch.equal(tensor, expected[name].to(torch.int64 if counts else torch.float32))
        assert tensor.is_contiguous()


class Numbers:
    """A storage, of which a pickler writes an identifier."""


class Part:
    """A tensor on part of a storage, as old versions of torch wrote it."""

    def __reduce__(self) -> Any:
        place = (Numbers(), 0, (2, 2), (2, 1), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, place


class OldPickler(pickle.Pickler):
    """A pickler that names four numbers, from the third on, of a storage of ten."""

    def persistent_id(self, obj: object) -> Any:
        view = ("8", 3, 4)
        named = ("storage", torch.FloatStorage, "7", "cpu", 10, view)
        return named if isinstance(obj, Numbers) else None


def test_parts_of_storages_in_old_files(tmp_path: Path) -> None:
    file, numbers = io.BytesIO(), torch.arange(10.0)
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(value, file, 2)
    OldPickler(file, 2).dump({"fc.weight": Part()})
    pickle.dump(["7"], file, 2)
    file.write((10).to_bytes(8, "little") + numbers.numpy().tobytes())
    (tmp_path / "w").write_bytes(file.getvalue())
    expected = torch.load(tmp_path / "w", weights_only=True)["fc.weight"]
    assert torch.equal(expected, numbers[3:7].view(2, 2))
    assert torch.equal(read_tensors(tmp_path / "w").tensors["fc.weight"], expected)


def test_facts_of_the_standard_library_and_numpy(tmp_path: Path) -> None:
    facts = {
        "args": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("a/b"), sizes=(3, 4)),
        "best": np.float64(71.25),
        "count": np.int64(3),
        "names": np.array(["ant", "bee"]),
        "objects": np.array(["ant", None], dtype=object),
        "device": torch.device("cpu"),
        "shape": torch.Size([2, 3]),
        "kind": torch.float16,
        "seen": {"ant"},
        "flag": True,
        "nothing": None,
    }
    torch.save(facts | {"fc.weight": torch.ones(2)}, tmp_path / "w")
    weights = read_tensors(tmp_path / "w")
    assert weights.facts == {
        "args": {"lr": 0.1, "data": "a/b", "sizes": [3, 4]},
        "best": 71.25,
        "count": 3,
        "names": ["ant", "bee"],
        "objects": ["ant"],
        "shape": [2, 3],
        "seen": ["ant"],
        "flag": True,
    }
    assert list(weights.tensors) == ["fc.weight"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_arrays_are_pickles(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "a": np.arange(6.0, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f8"),
        "counts.num_batches_tracked": np.array(5),
    }
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays, "author": "x"}, protocol))
    weights = read_tensors(tmp_path / "w.pkl")
    assert weights.facts["author"] == "x"
    for name, array in arrays.items():
        assert np.array_equal(weights.tensors[f"model.{name}"].numpy(), array)


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """Its texts and the bytes of its arrays are one type, str."""
    data = np.array([1.0, -2.5], "<f4").tobytes()
    (tmp_path / "w.pkl").write_bytes(
        b"\x80\x02}U\x06fc1000cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
        b"(K\1K\2\x85cnumpy\ndtype\nU\2f4K\0K\1\x87R(K\3U\1<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\0tb\x89U\x08" + data + b"tbs."
    )
    assert read_tensors(tmp_path / "w.pkl").tensors["fc1000"].tolist() == [1.0, -2.5]


@pytest.mark.parametrize("archive", [True, False])
def test_bits_that_changed_on_the_way(tmp_path: Path, archive: bool) -> None:
    """An archive has checksums; where torch.load takes the changed number, it is refused."""
    torch.save(
        {"a": torch.tensor([1.0, 2.0])}, tmp_path / "w", _use_new_zipfile_serialization=archive
    )
    data = bytearray((tmp_path / "w").read_bytes())
    data[data.index(np.array([1.0, 2.0], np.float32).tobytes()) + 2] ^= 64
    (tmp_path / "w").write_bytes(data)
    assert torch.load(tmp_path / "w", weights_only=True)["a"][0] != 1
    if archive:
        with pytest.raises(ValueError, match="Bad CRC-32 for file 'w/data/0'"):
            read_tensors(tmp_path / "w")


def test_an_archive_that_was_written_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"fc.weight": torch.arange(3.0)}, tmp_path / "w")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_tensors(tmp_path / "w").tensors["fc.weight"].tolist() == [0, 1, 2]


class Quantised:
    """An object that is pickled as torch pickles a quantised tensor."""

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_qtensor, (torch.ones(3),)


def test_tensors_without_plain_numbers_are_named(tmp_path: Path) -> None:
    for tensor, kind in [
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.empty(3, device="meta"), "meta"),
        (Quantised(), "quantised"),
    ]:
        torch.save({"fc.weight": tensor}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=f"holds 'fc.weight' as a {kind} tensor"):
            read_tensors(tmp_path / "w.pth")


def test_counters_are_left_out_by_name(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "queue_ptr": torch.zeros(1, dtype=torch.int64)}, tmp_path / "w")
    weights = read_tensors(tmp_path / "w")
    assert (list(weights.tensors), weights.left_out) == (["a"], ("queue_ptr",))
