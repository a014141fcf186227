"""Reading of regular files, and files of tensors with JSON facts."""

import errno
import hashlib
import json
import math
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from reslab.errors import os_reason
from reslab.runtime.json_text import parse_json

if TYPE_CHECKING:
    from torch import Tensor

FACTS, DIGEST = "facts", "sha256"
MAX_BYTES = 2**30  # of a file read at once, unless the caller allows more
SURROGATES = re.compile("[\ud800-\udfff]")  # of bytes that are not UTF-8
MAX_LIST_BYTES = 2**33  # of a list that may have an entry for each of millions of images
MOST_IN_PROC = 2**20  # bytes of a file in /proc, whose size is stated as 0


def read_regular(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file whole; never a pipe or device, which could block or never end.

    Raise OSError, with the path as its `filename`, if the file cannot be read, is of another kind
    or has more than `limit` bytes.
    """
    with open_regular(path, limit) as file:
        # memory for all of it is allocated first
        data = file.read(os.fstat(file.fileno()).st_size or min(MOST_IN_PROC, limit) + 1)
    _check_size(len(data), limit, path)
    return data


def read_text(path: str | Path, limit: int = MAX_BYTES) -> str:
    """Read a regular file of UTF-8 text; raise ValueError, naming it, if that fails."""
    try:
        return read_regular(path, limit).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None


def read_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file; raise ValueError, naming the file and the malformed line."""
    try:
        return parse_json(read_regular(path, MAX_LIST_BYTES), object_hook)
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}"
        raise ValueError(f"{place}: malformed JSON: {error.msg}, column {error.colno}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def open_regular(path: str | Path, limit: int | None = None) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Raise OSError if it is of another kind or has more than `limit` bytes.
    """
    try:
        # O_NONBLOCK: opening a pipe would wait for a writer
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENOENT and os.path.exists(path):
            check_regular(path)  # a socket cannot be opened, nor most devices
        raise
    try:
        found = os.fstat(handle)
        _check_mode(found.st_mode, path)
        _check_size(found.st_size, limit, path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def check_regular(path: str | Path) -> None:
    """Raise OSError if a path is not a regular file or a link to one.

    For libraries that open a path themselves; else use `open_regular`, which leaves no time between
    the check and the opening.
    """
    _check_mode(os.stat(path).st_mode, path)


def _check_size(size: int, limit: int | None, path: str | Path) -> None:
    if limit is not None and size > limit:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit:,} bytes", str(path))


def _check_mode(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise OSError(errno.EINVAL, f"not a regular file but a {kind}", str(path))


@dataclass(frozen=True)
class TensorFile:
    """Named tensors and JSON facts in one safetensors file, with a checksum of both.

    Equal tensors and facts give equal bytes: all facts are one entry of the metadata, because
    safetensors does not keep the order of several.
    """

    tensors: "dict[str, Tensor]"
    facts: dict[str, Any]
    has_checksum: bool = True  # some files from the first edition have none

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        from safetensors.torch import save

        tensors, storages = {}, set()
        for name, tensor in self.tensors.items():
            content = tensor.detach().cpu().contiguous()
            storage = content.untyped_storage().data_ptr()
            # safetensors refuses shared memory, such as that of a layer used twice in a network
            tensors[name] = content.clone() if storage in storages else content
            storages.add(storage)
        text = to_json(self.facts)
        facts = json.loads(text) | {DIGEST: sha256_of(tensors, text)}
        return save(tensors, {FACTS: to_json(facts)})

    @staticmethod
    def read(path: Path) -> "TensorFile":
        """Read the file at `path`; raise ValueError if it is damaged or in another format.

        An OSError is passed on, because a later attempt may succeed.
        """
        with open_safetensors(path) as file:
            metadata = file.metadata() or {}
            facts, digest = _facts_and_digest(metadata)
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        if FACTS in metadata and sha256_of(tensors, json.dumps(facts)) != digest:
            raise ValueError("its checksum does not match")
        return TensorFile(tensors, facts, FACTS in metadata)

    @staticmethod
    def read_facts(path: Path) -> dict[str, Any]:
        """Read the facts only, without the checksum test; raise the same errors as `read`."""
        with open_safetensors(path) as file:
            return _facts_and_digest(file.metadata() or {})[0]


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Open a file with safetensors, which itself opens only paths that are UTF-8.

    Raise OSError if the file cannot be read, and ValueError if it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    with open_regular(path) as file:
        is_utf8 = not SURROGATES.search(str(path))
        try:
            with safe_open(path if is_utf8 else f"/dev/fd/{file.fileno()}", "pt") as opened:
                yield opened
        except SafetensorError as error:
            raise ValueError(str(error)) from None


def _facts_and_digest(metadata: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    """Return facts and checksum, also from files in the format of reslab's first edition.

    The first edition stored a checkpoint's checksum beside the facts. Its other files had one entry
    per fact, and no checksum that `sha256_of` can reproduce.
    """
    if FACTS not in metadata:
        return {name: _json_or_text(text) for name, text in metadata.items()}, None
    facts = parse_json(metadata[FACTS])
    if not isinstance(facts, dict):
        raise ValueError(f"its facts are a {type(facts).__name__}, not a dict")
    return facts, facts.pop(DIGEST, None) or metadata.get(DIGEST)


def _json_or_text(text: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError:
        return text


def warn_without_checksum(file: Path) -> None:
    """Warn that a file from the first edition has no checksum."""
    warnings.warn(
        f"{file} is from an earlier version of reslab and has no checksum: damage to its numbers "
        "would go unnoticed",
        stacklevel=1,
    )


def to_json(value: object, indent: int | None = None) -> str:
    """Encode a value as JSON; infinity and NaN, which JSON does not have, become null."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_of(tensors: "Mapping[str, Tensor]", facts: str | None = None) -> str:
    """Return the SHA-256 of all names, types, shapes and values, sorted by name, and of `facts`."""
    import torch

    entries = dict(tensors)
    if facts is not None:
        entries[f"facts {facts}"] = torch.empty(0)
    digest = hashlib.sha256()
    for name in sorted(entries):
        tensor = entries[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.as_strided((tensor.numel(),), (1,))  # one element may have any stride
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
