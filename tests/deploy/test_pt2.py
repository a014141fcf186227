"""Opening exported torch programs: whatever would run code is refused before torch loads it."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reslab.deploy.pt2 import (
    PROGRAM,
    Records,
    archive_bytes,
    is_arithmetic,
    is_known_operator,
    read_archive,
    split_archive,
    without_traces,
)

SAMPLE, WEIGHTS = "data/sample_inputs/model.pt", "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Halves(nn.Module):
    """A program with a size that depends on its input's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.narrow(0, 0, x.shape[0] // 2 + 1) * self.weight[0]


@pytest.fixture(scope="module")
def records() -> Records:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Halves(), (torch.ones(8),), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return without_traces(split_archive(buffer.getvalue()))


class Trap:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def changed(records: Records, name: str, change: Callable[[Any], None]) -> Records:
    content = json.loads(records[name])
    change(content)
    return records | {name: json.dumps(content).encode()}


def pickled_input(records: Records, folder: Path) -> Records:
    return records | {SAMPLE: saved((Trap(folder),))}


def pickled_weight(records: Records, folder: Path) -> Records:
    def pickles(config: Any) -> None:
        config["config"]["weight"]["use_pickle"] = True

    return changed(records, WEIGHTS, pickles) | {"data/weights/weight_0": saved(Trap(folder))}


def pickled_constant(records: Records, folder: Path) -> Records:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    config = {"config": {"trap": entry | {"tensor_meta": None}}}
    content = {CONSTANTS: json.dumps(config).encode()}
    return records | content | {"data/constants/opaque_obj_0": pickle.dumps(Trap(folder))}


def size_is_code(records: Records, folder: Path) -> Records:
    def evaluates(program: Any) -> None:
        sizes = program["graph_module"]["graph"]["sym_int_values"].values()
        next(size for size in sizes if "as_expr" in size)["as_expr"]["expr_str"] = code_for(folder)

    return changed(records, PROGRAM, evaluates)


def guard_is_code(records: Records, folder: Path) -> Records:
    return changed(
        records, PROGRAM, lambda program: program["guards_code"].append(code_for(folder))
    )


def code_for(folder: Path) -> str:
    return f"__import__('os').mkdir({str(folder)!r})"


ATTACKS = [pickled_input, pickled_weight, pickled_constant, size_is_code, guard_is_code]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.filterwarnings("ignore")
def test_code_in_a_file_never_runs(
    records: Records,
    attack: Callable[[Records, Path], Records],
    tmp_path: Path,
) -> None:
    made, file = tmp_path / "made", tmp_path / "program.pt2"
    file.write_bytes(archive_bytes(attack(records, made)))
    with pytest.raises(ValueError, match=r"is not opened: .*which could run code"):
        read_archive(file)
    assert not made.exists()
    with suppress(Exception):  # the attack is real: torch's own loader falls for it
        torch.export.load(file).module()(torch.arange(5.0))
    assert made.exists()


def test_an_honest_file_opens(records: Records, tmp_path: Path) -> None:
    file = tmp_path / "program.pt2"
    file.write_bytes(archive_bytes(records))
    opened = read_archive(file)
    assert opened == records
    program = torch.export.load(io.BytesIO(archive_bytes(opened))).module()
    assert torch.equal(program(torch.arange(5.0)), torch.arange(3.0))
    assert archive_bytes(opened) == file.read_bytes()


@pytest.mark.parametrize(
    "name", ["data/aotinductor/model/a.so", "data/weights/model.pt", "version", "extra/../a"]
)
def test_unknown_records_are_refused(records: Records, name: str, tmp_path: Path) -> None:
    file = tmp_path / "program.pt2"
    file.write_bytes(archive_bytes(records | {name: b"1"}))
    with pytest.raises(ValueError, match="it contains"):
        read_archive(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_record_given_twice_is_refused(records: Records, tmp_path: Path) -> None:
    file = tmp_path / "program.pt2"
    file.write_bytes(archive_bytes(records))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(f"model/{PROGRAM}", b"{}")
    with pytest.raises(ValueError, match="two of its records have one name"):
        read_archive(file)


def test_a_compressed_file_is_refused(records: Records, tmp_path: Path) -> None:
    file = tmp_path / "program.pt2"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(f"model/{name}", content)
    with pytest.raises(ValueError, match="it is compressed"):
        read_archive(file)


@pytest.mark.parametrize("content", [b"", b"PK", b"not an archive"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "program.pt2"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not an exported program"):
        read_archive(file)


def test_a_damaged_file_is_refused(records: Records, tmp_path: Path) -> None:
    file, content = tmp_path / "program.pt2", bytearray(archive_bytes(records))
    content[content.index(b'"graph_module"')] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_archive(file)


@pytest.mark.parametrize(
    ("target", "known"),
    [
        ("torch.ops.aten.conv2d.default", True),
        ("_operator.floordiv", True),
        ("torch.sym_min", True),
        ("torch.ops.aten.from_file.default", False),
        ("torch.ops.aten.save.default", False),
        ("torch.ops.higher_order.cond", False),
        ("torch.ops.mylib.run.default", False),
        ("torch.os.system", False),
        ("_operator.methodcaller", False),
        ("#custom:run", False),
    ],
)
def test_operators(target: str, known: bool) -> None:
    assert is_known_operator(target) == known


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("Symbol('s1', positive=True, integer=True)", True),
        ("Add(FloorDiv(Mul(Integer(36), Symbol('s90')), Integer(2)), Integer(-16))", True),
        ("Mul(Rational(1, 2), oo)", True),
        ("__import__('os').system('ls')", False),
        ("FloorDiv('exit()', Integer(1))", False),
        ("Symbol('a').func", False),
        ("[x for x in Integer(1)]", False),
        ("lambdify(Integer(1))", False),
        ("(" * 1000, False),
        ("", False),
    ],
)
def test_expressions(text: str, fine: bool) -> None:
    assert is_arithmetic(text) == fine
