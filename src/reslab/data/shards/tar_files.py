"""Open tar files of other programs, compressed or not, and read their members."""

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from reslab.runtime.files import open_regular

SHARD_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # by first bytes
ZSTANDARD = b"\x28\xb5\x2f\xfd"
EXPANSION = 100  # images hardly shrink: a shard that grows by more than this is a trap
LEAST_PLAIN = 64 << 20  # bytes that any shard may have once it is decompressed


def is_shard(name: str) -> bool:
    """Return whether a file's name is that of a shard, which may be compressed."""
    return name.lower().endswith(SHARD_SUFFIXES)


def stem_of(shard: str) -> str:
    """Return a shard's name without its suffix."""
    suffixes = [suffix for suffix in SHARD_SUFFIXES if shard.lower().endswith(suffix)]
    return shard[: -max(map(len, suffixes), default=0) or None]


def open_plain(path: Path) -> BinaryIO:
    """Open a shard for reading at any position.

    A compressed one is decompressed into a temporary file, which has no name and is gone when it is
    closed. Raise ValueError if that fails, and OSError if the shard cannot be opened.
    """
    file = open_regular(path)
    head = file.read(len(ZSTANDARD) + 2)
    file.seek(0)
    opener = next((opener for mark, opener in OPENERS.items() if head.startswith(mark)), None)
    if head.startswith(ZSTANDARD):
        file.close()
        raise ValueError(f"{path} is compressed with zstd: decompress it with `unzstd`")
    if opener is None:
        return file
    most = max(EXPANSION * os.fstat(file.fileno()).st_size, LEAST_PLAIN)
    plain = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with file, opener(file) as stream:
            shutil.copyfileobj(_Limited(stream, most), plain, 1 << 20)
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        plain.close()
        raise ValueError(f"{path} cannot be decompressed ({error})") from None
    except BaseException:
        plain.close()
        raise
    plain.seek(0)
    return plain


@dataclass
class _Limited:
    """A stream that raises OSError once more than `left` bytes have been read."""

    stream: Any
    left: int

    def read(self, size: int = -1, /) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise OSError(f"it grows to more than {EXPANSION} times its size")
        return data


def read_members(path: Path, file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file; raise ValueError if it is damaged or truncated."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > size and member.isfile():
                    raise ValueError(f"{path} is truncated in {member.name!r}; copy it again")
                yield member
            end = tar.offset
    except tarfile.TarError as error:
        raise ValueError(f"{path} is not a tar file, or damaged ({error})") from None
    if end + tarfile.BLOCKSIZE > size:
        raise ValueError(f"{path} is truncated: it has no end; copy it again")
    file.seek(end)
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise ValueError(
                f"{path} is damaged, or two tar files joined: it goes on after its end at byte "
                f"{end:,}"
            )
