"""Mutate files by their containers: safetensors, .npy, zip and tar archives."""

import io
import json
import random
import re
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load, save
from tests.faults.mutations import (
    BYTES,
    LARGEST,
    TEXT,
    Mutation,
    as_bytes,
    as_text,
    change_document,
    change_json,
    change_xml,
    change_yaml,
    flip_bit,
)

from reslab.runtime.files import TensorFile


def change_header(data: bytes, rng: random.Random) -> bytes:
    """Change the JSON header of a safetensors file: types, shapes, offsets, facts as text."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError:
        return flip_bit(data, rng)
    tensor = rng.choice([*header])
    if rng.random() < 0.5 and "dtype" in header[tensor]:
        header[tensor]["dtype"] = rng.choice(["F16", "I32", "U8", "BF16", "F64", "BOOL", "F8_E4M3"])
        if rng.random() < 0.5:
            header[tensor]["shape"] = rng.choice([[], [0], [1, 2**40], [-1], [3, 1, 1], [2**62, 4]])
    else:
        header = change_document(header, rng)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def change_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """Change the numbers, the type or the shape of an array."""
    match rng.randrange(5):
        case 0:
            return array.astype(rng.choice(["float16", "float64", "int64", "uint8", "bool"]))
        case 1:
            return array.reshape(-1)[: rng.randrange(array.size + 1)]
        case 2:
            return array[None] if rng.random() < 0.5 else array.T.copy()
        case 3 if array.size:
            changed = array.copy().reshape(-1)
            extreme = [np.nan, np.inf, -1e30] if array.dtype.kind == "f" else [0, 1, 127]
            changed[rng.randrange(array.size)] = rng.choice(extreme)
            return changed.reshape(array.shape)
        case _:
            return np.zeros(rng.choice([(0,), (1,), (3, 1, 1), (2, 3, 4, 5)]), array.dtype)


def change_tensors(data: bytes, rng: random.Random) -> bytes:
    """Remove, rename or change one tensor of a safetensors file, without renewing its checksum."""
    try:
        size = int.from_bytes(data[:8], "little")
        facts = json.loads(data[8 : 8 + size]).get("__metadata__")
        arrays = load(data)
    except Exception:
        return flip_bit(data, rng)
    name = rng.choice([*arrays])
    array = arrays.pop(name)
    match rng.randrange(4):
        case 0:
            pass
        case 1:
            arrays[f"{name}x"] = array
        case _:
            arrays[name] = change_array(array, rng)
    return save(arrays, facts)


HEADERS = (
    "'descr': '|O'", "'descr': '<M8[s]'", "'descr': []", "'fortran_order': True",
    "'shape': (99999999999, 3)", "'shape': (-1,)", "'shape': " + "(" * 200,
)  # fmt: skip


def change_npy(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a .npy file."""
    header = as_text(data[10:128])
    at = rng.choice(HEADERS)
    key = at.split(":")[0]
    changed = re.sub(rf"{key}: (\([^)]*\)|'[^']*'|\w+)", lambda _: at, header)
    return data[:10] + as_bytes(changed)[:118].ljust(118) + data[128:]


def change_zip(data: bytes, rng: random.Random) -> bytes:
    """Remove, rename, repeat or mutate one member of a zip archive: .npz, .pth."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            members = [(info.filename, old.read(info)) for info in old.infolist()]
    except Exception:
        return flip_bit(data, rng)
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(6):
        case 0:
            del members[at]
        case 1:
            members[at] = (rng.choice(["x", f"../{name}", name.upper()]), content)
        case 2 if content.startswith(b"\x93NUMPY"):
            members[at] = (name, change_npy(content, rng))
        case _:
            members[at] = (name, rng.choice(BYTES)(content, rng))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as new:
        for name, content in members:
            new.writestr(name, content)
    return out.getvalue()


def change_tar(data: bytes, rng: random.Random) -> bytes:
    """Change the header of one member of a tar archive, or mutate the content of one."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as old:
            members = [(info, f.read() if (f := old.extractfile(info)) else b"") for info in old]
    except Exception:
        return flip_bit(data, rng)
    if not members:
        return flip_bit(data, rng)
    at = rng.randrange(len(members))
    info, content = members[at]
    match rng.randrange(5):
        case 0:
            del members[at]
        case 1:
            info.name = rng.choice(["../x.jpg", "/etc/x", "x", "é.jpg", "a/b/c.cls"])
        case 2:
            info.type, info.linkname = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE]), "/dev/zero"
        case 3:
            members.append((info, content))
        case 4:
            members[at] = (info, rng.choice(BYTES)(content, rng))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as new:
        for info, content in members:
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    return out.getvalue()


def forge(data: bytes, rng: random.Random) -> bytes:
    """Change facts or tensors of a file of reslab's, and renew its checksum."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(data)
        content = TensorFile.read(Path(file.name))
    facts, tensors = content.facts, dict(content.tensors)
    if rng.random() < 0.7 or not tensors:
        changed = change_document(facts, rng)
        return TensorFile(tensors, changed if isinstance(changed, dict) else {}).to_bytes()
    name = rng.choice([*tensors])
    array = tensors.pop(name)
    if rng.random() < 0.8:
        tensors[name] = torch.tensor(change_array(array.numpy(), rng))
    return TensorFile(tensors, facts).to_bytes()


def structural(data: bytes, suffix: str) -> tuple[Mutation, ...]:
    """Return the mutations for the structure of a file; none if its format has none of ours."""
    if suffix in (".json", ".jsonl"):
        return (change_json, change_json, change_json, *TEXT)
    if suffix == ".xml":
        return (change_xml, change_xml, *TEXT)
    if suffix == ".yaml":
        return (change_yaml, *TEXT)
    if suffix in (".csv", ".tsv", ".txt"):
        return TEXT
    if suffix == ".safetensors":
        return (change_header, change_tensors)
    if suffix == ".npy":
        return (change_npy,)
    if data.startswith(b"PK\x03\x04"):
        return (change_zip,)
    if suffix == ".tar" and data[257:262] == b"ustar":
        return (change_tar,)
    return ()


def mutate(data: bytes, suffix: str, rng: random.Random, forged: bool = False) -> tuple[str, bytes]:
    """Return the names of one or more random mutations, and the mutant, which differs from `data`.

    A `forged` file has a valid checksum.
    """
    own = structural(data, suffix)
    names, mutant = [], data
    while mutant == data or (rng.random() < 0.2 and not forged):
        mutation = forge if forged else rng.choice(own if own and rng.random() < 0.6 else BYTES)
        try:
            mutant = mutation(mutant, rng)[:LARGEST]
        except (LookupError, TypeError, ValueError):  # an earlier one left no such structure
            mutation = flip_bit
            mutant = flip_bit(mutant, rng)
        names.append(mutation.__name__)
    return "+".join(names), mutant
