"""Read the classes in the meta.mat of ImageNet's development kit, a MATLAB 5 file."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from reslab.errors import os_reason
from reslab.runtime.files import read_regular

# exceptions from parsing a damaged file
DAMAGE = (
    struct.error, zlib.error, LookupError, StopIteration, ValueError, TypeError, OverflowError,
    RecursionError,
)  # fmt: skip
HEADER = 128  # bytes
LARGEST = 2**26  # bytes; the original has 21,000
COMPRESSED, MATRIX = 15, 14  # types of elements
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
STRUCT, CHARACTERS = 2, 4  # classes of matrices


def read_meta(path: Path) -> dict[str, str]:
    """Return the wnid of each class number; raise ValueError if the file is something else."""
    try:
        content = read_regular(path)
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    try:
        for kind, data in _elements(content[HEADER:]):
            inner = next(_elements(_decompress(data))) if kind == COMPRESSED else (kind, data)
            synsets = _matrix(inner[1])
            if isinstance(synsets, list):
                return {f"{s['ILSVRC2012_ID']:.0f}": str(s["WNID"]) for s in synsets}
    except DAMAGE:
        pass
    raise ValueError(f"{path} is not the meta.mat of ImageNet's development kit")


def _decompress(data: bytes) -> bytes:
    """Decompress an element; raise ValueError if it is truncated or grows too large."""
    stream = zlib.decompressobj()
    content = stream.decompress(data, LARGEST)
    if not stream.eof:
        raise ValueError("truncated, or too large")
    return content


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of each element."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # a small element: size, type and content in 8 bytes
            yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
            at += 8
        else:
            yield kind, data[at + 8 : at + 8 + size]
            at += 8 + size + (0 if kind == COMPRESSED else -size % 8)


def _matrix(data: bytes) -> list[dict[str, object]] | str | float | None:
    """Return a struct array as a list, a text, or the first number of a matrix."""
    parts = _elements(data)
    class_ = next(parts)[1][0]
    next(parts)  # the dimensions
    next(parts)  # the name
    if class_ != STRUCT:
        kind, content = next(parts, (0, b""))
        if class_ == CHARACTERS:
            return content.decode(TEXTS[kind])
        number = NUMBERS.get(kind)
        return float(struct.unpack_from(f"<{number}", content)[0]) if number and content else None
    width = struct.unpack("<i", next(parts)[1])[0]
    names = next(parts)[1]
    fields = [names[at : at + width].rstrip(b"\0").decode() for at in range(0, len(names), width)]
    values = [_matrix(content) for _, content in parts]
    starts = range(0, len(values), len(fields))
    return [dict(zip(fields, values[at : at + len(fields)], strict=True)) for at in starts]
