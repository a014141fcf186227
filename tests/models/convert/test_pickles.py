"""Nothing that a pickle names is ever called, whatever the pickle says."""

import argparse
import builtins
import os
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reslab.models.convert import wrapping
from reslab.models.convert.tensor_files import read_tensors


class Run:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.reduced = function, args

    def __reduce__(self) -> Any:
        return self.reduced


class Options(argparse.Namespace):
    """A subclass could define anything, so it is not a Namespace."""


HOSTILE = {
    "posix.system": lambda mark: Run(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Run(eval, f"open({mark!r}, 'w')"),
    "builtins.exec": lambda mark: Run(exec, f"open({mark!r}, 'w')"),
    "builtins.open": lambda mark: Run(open, mark, "w"),
    "builtins.__import__": lambda mark: Run(builtins.__import__, "antigravity"),
    "subprocess.Popen": lambda mark: Run(subprocess.Popen, ["touch", mark]),
    "shutil.rmtree": lambda mark: Run(shutil.rmtree, mark),
    "torch.serialization.load": lambda mark: Run(torch.load, mark),
    "numpy.load": lambda mark: Run(np.load, mark),
    "builtins.getattr": lambda mark: Run(getattr, mark, "touch"),
    "Options": lambda mark: Options(lr=0.1),
}


def refusal(file: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_tensors(file)
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("how", ["archive", "before 1.6", "protocol 4"])
def test_a_call_is_refused_by_name_and_not_made(tmp_path: Path, name: str, how: str) -> None:
    mark, file = tmp_path / "mark", tmp_path / "w.pth"
    content = {"fc.weight": np.zeros(3), "args": HOSTILE[name](str(mark))}
    if how == "protocol 4":
        file.write_bytes(pickle.dumps(content, 4))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "archive")
    reported = refusal(file)
    assert "is refused: opening it needs" in reported
    assert "could run code" in reported
    assert name.rpartition(".")[2] in reported
    assert not mark.exists()


def raw(file: Path, operations: bytes) -> str:
    """Return why a pickle of the given operations is refused."""
    file.write_bytes(b"\x80\x02" + operations)
    return refusal(file)


NAMESPACE, DTYPE = b"cargparse\nNamespace\n", b"cnumpy\ndtype\n"
CRAFTED = {
    # the state of a class, which in pickle would replace its attributes
    "state of a class": NAMESPACE + b"}X\1\0\0\0aK\1sb.",
    "call of a result": NAMESPACE + b")R)R.",
    "call of a text": b"X\6\0\0\0system)R.",
    "state of a list": b"]}b.",
    "persistent storage without a file": b"X\1\0\0\0aQ.",
    "name with a line break": b"\x93.",
    "memo that was not set": b"h\7.",
    "no mark": b"t.",
    "empty stack": b"R.",
    "extension": b"\x82\1.",
    "class with arguments": b"(cos\nsystem\no.",
    "instance": b"(ios\nsystem\n.",
    "text longer than the file": b"X\xff\xff\xff\xff.",
    "bytes longer than the file": b"\x96" + b"\xff" * 6 + b"\0\0.",
    "key that is a list": b"}]K\1s.",
    "item of a list": b"]K\0K\1s.",
    "end": b"}",
}


@pytest.mark.parametrize("what", CRAFTED)
def test_crafted_operations_are_one_line(tmp_path: Path, what: str) -> None:
    reported = raw(tmp_path / "w.pth", CRAFTED[what])
    assert reported.startswith(f"{tmp_path / 'w.pth'} is ")
    assert "\n" not in reported
    assert "is cut short or damaged" in reported or "could run code" in reported


def test_nested_tuples_as_keys_do_not_take_for_ever(tmp_path: Path) -> None:
    doubled = b"".join(b"\x86q" + bytes([n]) + b"h" + bytes([n]) for n in range(60))
    assert "neither text nor numbers" in raw(
        tmp_path / "w.pth", b"}K\0K\0" + doubled + b"\x86K\1s."
    )


def test_nested_references_are_not_followed_for_ever(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(wrapping, "MOST_VALUES", 10_000)
    inner: list[Any] = [1]
    for _ in range(30):
        inner = [inner, inner]
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": inner}, 4))
    assert "holds over" in refusal(tmp_path / "w.pth")
    cycle: dict[str, Any] = {}
    cycle["a"] = cycle
    (tmp_path / "w.pth").write_bytes(pickle.dumps(cycle, 4))
    assert "is nested over 32 deep" in refusal(tmp_path / "w.pth")


def test_a_made_up_type_of_numpy_gives_no_memory_away(tmp_path: Path) -> None:
    """A dtype whose fields claim to be objects would make numpy follow numbers as addresses."""
    number = b"cnumpy._core.multiarray\nscalar\n"
    flags = (
        b"(K\3X\1\0\0\0|NX\1\0\0\0a\x85}X\1\0\0\0a"
        + DTYPE
        + b"X\2\0\0\0O8\x85RK\0\x86sK\10K\1K\0tb"
    )
    made_up = DTYPE + b"X\2\0\0\0V8\x85R" + flags
    data = b"c_codecs\nencode\nX\10\0\0\0AAAAAAAAX\6\0\0\0latin1\x86R"
    (tmp_path / "w.pth").write_bytes(
        b"\x80\x02}X\4\0\0\0best" + number + made_up + data + b"\x86Rs."
    )
    assert read_tensors(tmp_path / "w.pth").facts == {}


def edited(file: Path, old: bytes, new: bytes) -> None:
    """Replace bytes in the pickle of an archive."""
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            assert not name.endswith("data.pkl") or old in data
            archive.writestr(name, data.replace(old, new))


def test_a_tensor_past_its_storage_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save({"a": torch.arange(4.0)}, file)
    edited(file, b"K\x04\x85", b"K\x05\x85")
    assert "a tensor extends past its storage" in refusal(file)
    torch.save({"a": torch.arange(4.0)}, file)
    edited(file, b"QK\x00K\x04\x85", b"QK\x01K\x04\x85")
    assert "a tensor extends past its storage" in refusal(file)
    torch.save({"a": torch.arange(4.0)}, file)
    edited(file, b"K\x04tq", b"K\x05tq")
    assert "its storage 0 has 16 bytes instead of 20" in refusal(file)
