"""Packed pictures at a URL, opened as those of a folder are."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from safetensors import SafetensorError

from reslab.data.block_cache import BlockCache, Warn, cache_folder
from reslab.data.loading import in_order
from reslab.data.patience import Passing, Patience, WrongBytes, persist
from reslab.data.pictures import PictureSet
from reslab.data.place import Url
from reslab.data.remote_reader import BLOCK, FETCHERS, READING, Blocks, RemoteFile, RemoteReader
from reslab.data.shard_index import INDEX, Index, Shard, facts_of, header_of, header_size, index_of
from reslab.data.source import Absent, Final, NoHost, Source

DOOR = Patience(attempts=6, first=0.2, longest=5)  # some seconds, while somebody waits
PARTS = ("train", "validation")  # as `reslab pack` calls them
LARGEST = 100_000_000  # bytes of a header; more is no index
END = 1024  # zeros at the end of a tar file
Got = TypeVar("Got")


def warned(text: str) -> None:
    """Said by the command as one line."""
    warnings.warn(text, stacklevel=2)


@dataclass(frozen=True)
class Reach:
    """How places afar are reached, the same for all their parts."""

    cache: BlockCache
    warn: Warn = warned
    door: Patience = DOOR
    reading: Patience = READING
    block: int = BLOCK
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def persist(self, url: Url, act: Callable[[], Got]) -> Got:
        """What `act` returns; ValueError or RuntimeError names the URL and the reason."""
        try:
            return persist(partial(_known_host, act), str(url), self.door, sleep=self.sleep)
        except Final as error:
            raise ValueError(f"{url}: {error}") from None
        except WrongBytes as error:
            raise ValueError(f"{url}: {error}, {self.door.attempts} times") from None
        except Passing as error:
            raise RuntimeError(f"{url}: {error}, {self.door.attempts} times") from None


def usual_reach() -> Reach:
    return Reach(BlockCache(cache_folder(), warned))


def _known_host(act: Callable[[], Got]) -> Got:
    """A name that is not known at the beginning is mistyped."""
    try:
        return act()
    except NoHost as error:
        raise Final(str(error)) from None


def remote_parts(url: Url, reach: Reach | None = None) -> tuple[Url | None, Url | None]:
    """Where the train and the validation part are; both None if the shards lie at `url` itself."""
    reach = reach or usual_reach()
    source = Source(url)
    missed: list[Absent] = []

    def there(name: str) -> bool:
        try:
            source.read(name, 0, 8)
        except Absent as error:
            missed.append(error)
            return False
        return True

    if reach.persist(url, partial(there, INDEX)):
        return None, None
    found = [url / part if reach.persist(url, partial(there, f"{part}/{INDEX}")) else None
             for part in PARTS]  # fmt: skip
    if not any(found):
        raise ValueError(
            f"{url} holds no packed pictures: {INDEX}, there or in {' or '.join(PARTS)}: "
            f"{missed[0]}; `reslab pack` makes them"
        )
    return found[0], found[1]


def open_remote_part(url: Url, reach: Reach | None = None) -> PictureSet:
    """The set whose shards lie at `url`; each picture is checked by its checksum.

    ValueError names the index or the shard that is missing, cut short or damaged.
    """
    reach = reach or usual_reach()
    blocks = Blocks(Source(url), reach.cache, reach.block)
    index = reach.persist(url / INDEX, partial(fetch_index, blocks, reach))
    first, *others = index.shards
    check = partial(_must_be_whole, blocks.source, reach)
    check(first)  # alone: a server that knows no ranges sends all of it
    for _ in in_order(check, others, FETCHERS, FETCHERS):
        pass
    reader = RemoteReader(
        blocks, index, reach.warn, patience=reach.reading, sleep=reach.sleep, clock=reach.clock
    )
    labels = torch.from_numpy(index.columns["labels"])
    return PictureSet(
        index.name, index.files, labels, index.classes, index.ids, reader, reader.expect
    )


def fetch_index(blocks: Blocks, reach: Reach) -> Index:
    """The index, in one attempt. Its header says which it is, so that all of it may be kept."""
    path = str(blocks.source.url / INDEX)
    size = header_size(blocks.source.read(INDEX, 0, 8))
    if size > LARGEST:
        raise WrongBytes("this is no index of packed pictures, or it is damaged")
    try:
        header = header_of(blocks.source.read(INDEX, 8, 8 + size))
        key = bytes.fromhex(facts_of(header)["sha256"]).hex()  # a name of a folder, and no path
        arrays = [entry["data_offsets"] for name, entry in header.items() if name[:2] != "__"]
        length = 8 + size + max(stop for _, stop in arrays)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise WrongBytes("this is no index of packed pictures, or it is damaged") from None
    file = RemoteFile(INDEX, f"index-{key}", length)
    pieces = [(at, min(at + blocks.size, length)) for at in range(0, length, blocks.size)]

    def piece(ends: tuple[int, int]) -> bytes:
        what = f"{path} {ends[0]}"
        return persist(partial(blocks.read, file, *ends), what, reach.door, sleep=reach.sleep)

    data = b"".join(in_order(piece, pieces, FETCHERS, FETCHERS))
    try:
        index = index_of(data, path)
        for shard in index.shards:
            bytes.fromhex(shard.sha256)
        return index
    except (SafetensorError, ValueError, KeyError) as error:
        blocks.drop(file, 0, length)
        raise WrongBytes(str(error).removeprefix(f"{path} ")) from None


def _must_be_whole(source: Source, reach: Reach, shard: Shard) -> None:
    """ValueError unless the shard ends where the index says."""

    def end() -> None:
        if any(source.read(shard.name, shard.size - END, shard.size)):
            raise WrongBytes("it does not end as the shard that was packed; copy it there again")

    reach.persist(source.url / shard.name, end)
