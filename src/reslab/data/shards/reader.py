"""Packed images: tar shards that webdataset reads too, and an index by which any is one pread.

A packed folder holds `shard-000000.tar` and so on, and `index.safetensors`, which is written last:
a folder without it is no packed folder. A sample is two members of a shard, `000123.jpg` and
`000123.cls`, the label in decimal digits. The index keeps the images in the order and by the
names of the set they were packed from, so that whatever is drawn or split by order or name comes
out the same; where each lies in the shards is another matter.
"""

import os
import threading
import time
import warnings
import weakref
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError

from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage
from reslab.data.location import Url
from reslab.data.shards.block_cache import BlockCache, Warn, cache_folder
from reslab.data.shards.index import (
    INDEX,
    Index,
    Members,
    Shard,
    checked_facts,
    header_size,
    parse_header,
    parse_index,
)
from reslab.data.shards.remote import (
    BLOCK_BYTES,
    FETCHERS,
    READING,
    Blocks,
    RemoteFile,
    RemoteReader,
)
from reslab.data.shards.source import (
    CorruptData,
    NoHost,
    NotFound,
    PermanentError,
    RangeReader,
    RetryPolicy,
    TransientError,
    retry,
)
from reslab.errors import os_reason
from reslab.runtime.threads import map_in_order

KEPT_OPEN = 512  # shards; a process may usually have 1,024 files open


def is_packed(folder: Path) -> bool:
    """Whether `folder` holds shards with their index."""
    return (folder / INDEX).is_file()


def open_part(folder: Path) -> EncodedImages:
    """The set whose shards lie in `folder`; each read is one pread, checked by its checksum.

    ValueError names the index or the shard that is missing, truncated or damaged.
    """
    index = read_index(folder)
    for shard in index.shards:
        path = folder / shard.name
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise ValueError(f"{path} is missing; copy the whole folder again")
        if size != shard.size:
            raise ValueError(
                f"{path} has {size:,} bytes instead of {shard.size:,}: it is truncated or another "
                "file; copy it again"
            )
    labels = torch.from_numpy(index.columns["labels"])
    reader = ShardReader(folder, index)
    return EncodedImages(index.name, index.files, labels, index.classes, index.ids, reader)


class ShardReader:
    """The bytes of an image by its name. Any thread may ask; none waits for another's read.

    A shard is opened when it is first needed and closed when the reader is collected.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.paths = [folder / shard.name for shard in index.shards]
        self.members = Members(index)
        self._descriptors: dict[int, int] = {}  # shard to open file
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._descriptors)

    def __call__(self, file: str) -> bytes:
        shard, offset, length, checksum = self.members(file)
        try:
            data = self._pread(shard, length, offset)
        except OSError as error:
            reason = os_reason(error)
            raise BadImage(f"{file}: {self.paths[shard]} cannot be read ({reason})") from None
        if zlib.crc32(data) != checksum:
            raise BadImage(
                f"{file}: its bytes in {self.paths[shard]} are not those that were packed; "
                "copy that shard again"
            )
        return data

    def _pread(self, shard: int, length: int, offset: int) -> bytes:
        if shard >= KEPT_OPEN:
            descriptor = os.open(self.paths[shard], os.O_RDONLY)
            try:
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            with self._lock:
                if shard not in self._descriptors:
                    self._descriptors[shard] = os.open(self.paths[shard], os.O_RDONLY)
                descriptor = self._descriptors[shard]
        return os.pread(descriptor, length, offset)


def _close_all(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def read_index(folder: Path) -> Index:
    """The index of a packed folder, checked against its own checksum."""
    return parse_index((folder / INDEX).read_bytes(), str(folder / INDEX))


DOOR = RetryPolicy(attempts=6, first=0.2, longest=5)  # some seconds, while somebody waits
PACKED_PARTS = ("train", "validation")  # as `reslab pack` calls them
MAX_HEADER_BYTES = 100_000_000  # bytes of a header; more is no index
END = 1024  # zeros at the end of a tar file
Result = TypeVar("Result")


def warned(text: str) -> None:
    """Said by the command as one line."""
    warnings.warn(text, stacklevel=2)


@dataclass(frozen=True)
class Reach:
    """How places afar are reached, the same for all their parts."""

    cache: BlockCache
    warn: Warn = warned
    door: RetryPolicy = DOOR
    reading: RetryPolicy = READING
    block: int = BLOCK_BYTES
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def persist(self, url: Url, act: Callable[[], Result]) -> Result:
        """What `act` returns; ValueError or RuntimeError names the URL and the reason."""
        try:
            return retry(partial(_known_host, act), str(url), self.door, sleep=self.sleep)
        except PermanentError as error:
            raise ValueError(f"{url}: {error}") from None
        except CorruptData as error:
            raise ValueError(f"{url}: {error}, {self.door.attempts} times") from None
        except TransientError as error:
            raise RuntimeError(f"{url}: {error}, {self.door.attempts} times") from None


def usual_reach() -> Reach:
    return Reach(BlockCache(cache_folder(), warned))


def _known_host(act: Callable[[], Result]) -> Result:
    """A name that is not known at the beginning is mistyped."""
    try:
        return act()
    except NoHost as error:
        raise PermanentError(str(error)) from None


def remote_parts(url: Url, reach: Reach | None = None) -> tuple[Url | None, Url | None]:
    """Where the train and the validation part are; both None if the shards lie at `url` itself."""
    reach = reach or usual_reach()
    source = RangeReader(url)
    missed: list[NotFound] = []

    def there(name: str) -> bool:
        try:
            source.read(name, 0, 8)
        except NotFound as error:
            missed.append(error)
            return False
        return True

    if reach.persist(url, partial(there, INDEX)):
        return None, None
    found = [url / part if reach.persist(url, partial(there, f"{part}/{INDEX}")) else None
             for part in PACKED_PARTS]  # fmt: skip
    if not any(found):
        raise ValueError(
            f"{url} holds no packed images: {INDEX}, there or in {' or '.join(PACKED_PARTS)}: "
            f"{missed[0]}; `reslab pack` makes them"
        )
    return found[0], found[1]


def open_remote_part(url: Url, reach: Reach | None = None) -> EncodedImages:
    """The set whose shards lie at `url`; each image is checked by its checksum.

    ValueError names the index or the shard that is missing, cut short or damaged.
    """
    reach = reach or usual_reach()
    blocks = Blocks(RangeReader(url), reach.cache, reach.block)
    index = reach.persist(url / INDEX, partial(fetch_index, blocks, reach))
    first, *others = index.shards
    check = partial(_must_be_whole, blocks.source, reach)
    check(first)  # alone: a server that knows no ranges sends all of it
    for _ in map_in_order(check, others, FETCHERS, FETCHERS):
        pass
    reader = RemoteReader(
        blocks, index, reach.warn, patience=reach.reading, sleep=reach.sleep, clock=reach.clock
    )
    labels = torch.from_numpy(index.columns["labels"])
    return EncodedImages(
        index.name, index.files, labels, index.classes, index.ids, reader, reader.expect
    )


def fetch_index(blocks: Blocks, reach: Reach) -> Index:
    """The index, in one attempt. Its header says which it is, so that all of it may be kept."""
    path = str(blocks.source.url / INDEX)
    size = header_size(blocks.source.read(INDEX, 0, 8))
    if size > MAX_HEADER_BYTES:
        raise CorruptData("this is no index of packed images, or it is damaged")
    try:
        header = parse_header(blocks.source.read(INDEX, 8, 8 + size))
        key = bytes.fromhex(
            checked_facts(header)["sha256"]
        ).hex()  # a name of a folder, and no path
        arrays = [entry["data_offsets"] for name, entry in header.items() if name[:2] != "__"]
        length = 8 + size + max(stop for _, stop in arrays)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CorruptData("this is no index of packed images, or it is damaged") from None
    file = RemoteFile(INDEX, f"index-{key}", length)
    pieces = [(at, min(at + blocks.size, length)) for at in range(0, length, blocks.size)]

    def piece(ends: tuple[int, int]) -> bytes:
        what = f"{path} {ends[0]}"
        return retry(partial(blocks.read, file, *ends), what, reach.door, sleep=reach.sleep)

    data = b"".join(map_in_order(piece, pieces, FETCHERS, FETCHERS))
    try:
        index = parse_index(data, path)
        for shard in index.shards:
            bytes.fromhex(shard.sha256)
        return index
    except (SafetensorError, ValueError, KeyError) as error:
        blocks.drop(file, 0, length)
        raise CorruptData(str(error).removeprefix(f"{path} ")) from None


def _must_be_whole(source: RangeReader, reach: Reach, shard: Shard) -> None:
    """ValueError unless the shard ends where the index says."""

    def end() -> None:
        if any(source.read(shard.name, shard.size - END, shard.size)):
            raise CorruptData("it does not end as the shard that was packed; copy it there again")

    reach.persist(source.url / shard.name, end)
