"""Reading, atomic writes, locks, and files of tensors with facts."""

import hashlib
import json
import math
import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from reslab.runtime.files import (
    TensorFile,
    check_regular,
    open_regular,
    read_regular,
    sha256_of,
    to_json,
)

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2]), "": torch.zeros(0)}
FACTS = {"name": "caf\u00e9", "values": [1.5, None, True], "nested": {"iteration": 20}}


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "endless", "terminal"])
def test_only_regular_files_are_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even through a link; nothing blocks and nothing endless is read."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    target = Path(kind)
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(kind)
    else:
        names = {"device": "/dev/null", "endless": "/dev/zero", "terminal": "/dev/ptmx"}
        target.symlink_to(names[kind])
    Path("link").symlink_to(target)
    word = kind if kind in ("pipe", "socket") else "device"
    for read in (read_regular, open_regular, check_regular):
        with pytest.raises(OSError, match=f"not a regular file but a {word}") as caught:
            read("link")
        assert caught.value.filename == "link"


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == read_regular(str(path)) == b"12345"
    with pytest.raises(OSError, match="larger than the limit of 4 bytes"):
        read_regular(path, 4)
    os.truncate(path, 2**40)  # a sparse file, of which nothing is read
    with pytest.raises(OSError, match="larger than the limit of 1,073,741,824 bytes"):
        read_regular(path)
    with pytest.raises(OSError, match="larger than the limit"):  # its size is stated as 0
        read_regular("/proc/self/environ", 1)


def test_missing_files_and_folders_keep_their_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tensors"


def test_tensors_and_facts_are_read_back(path: Path) -> None:
    path.write_bytes(TensorFile(TENSORS, FACTS).to_bytes())
    content = TensorFile.read(path)
    assert content.facts == TensorFile.read_facts(path) == FACTS
    assert content.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(content.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_a_path_need_not_be_utf_8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    path.write_bytes(TensorFile(TENSORS, FACTS).to_bytes())
    content = TensorFile.read(path)
    assert content.facts == TensorFile.read_facts(path) == FACTS
    assert all(torch.equal(content.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_equal_content_gives_equal_bytes() -> None:
    strided = {"a": torch.arange(6).view(2, 3).t()}
    contiguous = {"a": strided["a"].contiguous()}
    facts = {f"key{number}": number for number in range(20)}
    assert TensorFile(strided, facts).to_bytes() == TensorFile(contiguous, facts).to_bytes()


@pytest.mark.parametrize("damage", ["a bit of a tensor", "a fact", "cut", "empty", "no checksum"])
def test_damage_is_refused(path: Path, damage: str) -> None:
    data = bytearray(TensorFile({"a": torch.ones(3)}, {"iteration": 20}).to_bytes())
    if damage == "a bit of a tensor":
        data[-1] ^= 1
    elif damage == "a fact":
        changed = data.replace(b"20", b"99")
        assert changed != data
        data = changed
    elif damage == "no checksum":
        data = bytearray(save({"a": torch.ones(3)}, {"facts": json.dumps({"iteration": 20})}))
    else:
        data = data[:-1] if damage == "cut" else bytearray()
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"checksum|[Hh]eader|invalid|incomplete"):
        TensorFile.read(path)


def test_files_of_the_first_edition_open(path: Path) -> None:
    """Its checkpoints had the checksum beside the facts, its models one entry per fact."""
    text = json.dumps(FACTS)
    digest = sha256_of(TENSORS | {f"facts {text}": torch.empty(0)})
    path.write_bytes(save(TENSORS, {"facts": text, "sha256": digest}))
    assert TensorFile.read(path).facts == FACTS
    path.write_bytes(save(TENSORS, {"facts": text, "sha256": digest[::-1]}))
    with pytest.raises(ValueError, match="checksum"):
        TensorFile.read(path)
    entries = {"reslab": "0.1.0", "classes": json.dumps(["ant", "bee"]), "folded": "false"}
    path.write_bytes(save(TENSORS, entries))
    facts = {"reslab": "0.1.0", "classes": ["ant", "bee"], "folded": False}
    assert TensorFile.read(path).facts == TensorFile.read_facts(path) == facts


def test_the_digest_of_names_types_shapes_and_values_has_not_changed() -> None:
    """Digests are stored in recipes and results, so they must never change."""
    digest = hashlib.sha256()
    for name in ("", "a", "b"):
        tensor = TENSORS[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    assert sha256_of(TENSORS) == digest.hexdigest()


def test_the_digest_depends_on_names_shapes_and_values() -> None:
    one = {"a": torch.zeros(2, 3)}
    digests = [
        sha256_of(one),
        sha256_of({"b": torch.zeros(2, 3)}),
        sha256_of({"a": torch.zeros(3, 2)}),
        sha256_of({"a": torch.zeros(2, 3, dtype=torch.int32)}),
        sha256_of({"a": torch.eye(2, 3)}),
    ]
    assert len(set(digests)) == len(digests)
    strided = torch.zeros(3, 2).t()
    assert sha256_of({"a": strided}) == sha256_of(one)  # the memory layout does not matter


@pytest.mark.parametrize("indent", [None, 2])
def test_json_holds_null_for_numbers_it_does_not_have(indent: int | None) -> None:
    value = {"a": [1.5, math.nan, (math.inf, "NaN")], "b": {"c": -math.inf, "d": None}, "e": 3}
    text = to_json(value, indent)
    expected = {"a": [1.5, None, [None, "NaN"]], "b": {"c": None, "d": None}, "e": 3}
    assert json.loads(text, parse_constant=pytest.fail) == expected
    assert to_json(expected, indent) == json.dumps(expected, indent=indent)
