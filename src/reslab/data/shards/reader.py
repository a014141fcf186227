"""Read packed images: tar shards, compatible with webdataset, and an index for random access.

A packed folder has `shard-000000.tar` and so on, and `index.safetensors`, which is written last: a
folder without an index is not a packed folder. A sample is two members of a shard, `000123.jpg` and
`000123.cls`, the label in decimal. The index keeps the order and names of the original set, so
sampling and splitting by order or name give the same result, whatever the order in the shards.
"""

import os
import threading
import time
import warnings
import weakref
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage
from reslab.data.location import Url
from reslab.data.shards.block_cache import BlockCache, cache_folder
from reslab.data.shards.foreign import is_foreign
from reslab.data.shards.index import INDEX, Index, Shard, parse_index
from reslab.data.shards.remote import BLOCK_BYTES, FETCHERS, RemoteShards, fetch_index
from reslab.data.shards.retry import (
    AccessDenied,
    CorruptData,
    NotFound,
    PermanentError,
    RetryPolicy,
    TransientError,
    retry,
)
from reslab.data.shards.tar_files import open_plain
from reslab.errors import os_reason
from reslab.runtime.events import Log
from reslab.runtime.files import MAX_LIST_BYTES, read_regular
from reslab.runtime.threads import Result, map_in_order

MAX_OPEN = 512  # shards; the usual limit is 1,024 open files per process
ONCE = RetryPolicy(attempts=1, first=0, longest=0)  # retrying a local disk would not help
OPENING = RetryPolicy(attempts=6, first=0.2, longest=5)  # a few seconds, while the user waits
READING = RetryPolicy(attempts=10, first=0.2, longest=30)  # a minute or more: a server may restart
REPORTED_FAILURES = 3  # failed attempts of one read before a message explains the delay
QUIET = 60.0  # seconds between two such messages
PACKED_PARTS = ("train", "validation")  # names of the folders from `reslab pack`
TAR_END = 1024  # zeros at the end of a tar file
FILE_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".safetensors")  # not of folders


def warn(text: str) -> None:
    """Issue a warning, which the command line shows as one line."""
    warnings.warn(text, stacklevel=2)


class LocalShards:
    """Read byte ranges of the shards in a folder with pread; thread-safe.

    A shard is opened at its first use, under a lock, and closed when this object is deleted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptors: dict[str, int] = {}  # by shard name
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._descriptors)

    def place(self, shard: Shard) -> str:
        """Return the path of a shard."""
        return f"{self.folder / shard.name}"

    def read_range(self, shard: Shard, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, or fewer at the end of the file."""
        descriptor = self._descriptors.get(shard.name)
        if descriptor is None:
            with self._lock:
                descriptor = self._descriptors.get(shard.name)
                if descriptor is None and len(self._descriptors) < MAX_OPEN:
                    descriptor = self._open(shard)
                    self._descriptors[shard.name] = descriptor
        if descriptor is not None:
            return os.pread(descriptor, stop - start, start)
        descriptor = self._open(shard)
        try:
            return os.pread(descriptor, stop - start, start)
        finally:
            os.close(descriptor)

    def _open(self, shard: Shard) -> int:
        try:
            with open_plain(self.folder / shard.name) as file:
                return os.dup(file.fileno())
        except ValueError as error:  # it was replaced by another file
            raise OSError(str(error)) from None

    def drop(self, shard: Shard, start: int, stop: int) -> None:
        """Do nothing: local bytes are not cached."""

    def prefetch(self, shard: Shard, start: int, stop: int) -> None:
        """Do nothing: local disks need no prefetching."""


def _close_all(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


class ShardReader:
    """Read the bytes of an image by name, and verify their checksum; thread-safe.

    Failed requests and wrong bytes are retried. Raise BadImage if the bytes stay wrong or a local
    file cannot be read. Raise RuntimeError if a server stays unreachable: its images are not bad,
    and training with replacements for them would be a different run.
    """

    def __init__(
        self,
        index: Index,
        shards: LocalShards | RemoteShards,
        policy: RetryPolicy = ONCE,
        on_trouble: Log = warn,
    ) -> None:
        self.index, self.shards, self.policy, self.on_trouble = index, shards, policy, on_trouble
        self._reported = float("-inf")  # time.monotonic() at the last report

    def __call__(self, file: str) -> bytes:
        shard, start, stop, checksum = self.index.locate(file)
        place = self.shards.place(shard)

        def attempt() -> bytes:
            data = self.shards.read_range(shard, start, stop)
            if checksum is None and len(data) < stop - start:
                raise OSError("it has become shorter")
            if checksum is not None and zlib.crc32(data) != checksum:
                self.shards.drop(shard, start, stop)
                raise CorruptData("its bytes differ from those that were packed")
            return data

        attempts = f" ({self.policy.attempts} attempts)" if self.policy.attempts > 1 else ""
        try:
            return retry(attempt, f"{place} {start}", self.policy, partial(self._report, place))
        except OSError as error:
            raise BadImage(f"{file}: {place} cannot be read ({os_reason(error)})") from None
        except CorruptData:
            raise BadImage(
                f"{file}: its bytes in {place} differ from those that were packed{attempts}; "
                "copy the shard again"
            ) from None
        except TransientError as error:
            raise RuntimeError(f"{place} cannot be read: {error}{attempts}") from None
        except PermanentError as error:
            raise RuntimeError(f"{place} cannot be read: {error}") from None

    def prefetch(self, files: Sequence[str]) -> None:
        """Start fetching images that will be read soon."""
        for file in files:
            shard, start, stop, _ = self.index.locate(file)
            self.shards.prefetch(shard, start, stop)

    def _report(self, place: str, attempt: int, failure: TransientError) -> None:
        """Report why reads are slow, with one message for all waiting threads."""
        now = time.monotonic()
        if attempt + 1 == REPORTED_FAILURES and now - self._reported > QUIET:
            self._reported = now
            self.on_trouble(f"{place}: {failure}; retrying")


def is_packed(folder: Path) -> bool:
    """Return whether `folder` has images in shards, of `reslab pack` or of another program."""
    return is_indexed(folder) or is_foreign(folder)


def is_indexed(folder: Path) -> bool:
    """Return whether `folder` has an index of `reslab pack`."""
    return (folder / INDEX).is_file()


def read_index(folder: Path) -> Index:
    """Read the index of a packed folder; raise ValueError if it is damaged."""
    return parse_index(read_regular(folder / INDEX, MAX_LIST_BYTES), str(folder / INDEX))


def open_part(folder: Path) -> EncodedImages:
    """Open the packed set in `folder`.

    Raise ValueError, naming the damaged index, or the missing or truncated shard.
    """
    index = read_index(folder)
    for shard in index.shards:
        path = folder / shard.name
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise ValueError(f"{path} is missing; copy the whole folder again")
        if size != shard.size:
            raise ValueError(
                f"{path} has {size:,} bytes instead of {shard.size:,}: it is truncated or a "
                "different file; copy it again"
            )
    return make_set(index, ShardReader(index, LocalShards(folder)))


def make_set(index: Index, reader: ShardReader) -> EncodedImages:
    """Build the set described by an index; only remote shards are prefetched."""
    return EncodedImages(
        index.name,
        index.files,
        torch.from_numpy(index.columns["labels"]),
        index.classes,
        index.ids,
        reader,
        reader.prefetch if isinstance(reader.shards, RemoteShards) else None,
    )


@dataclass(frozen=True)
class RemoteOptions:
    """Options for reading from servers: the cache, retries, and a callback for warnings."""

    cache: BlockCache
    on_trouble: Log = warn
    opening: RetryPolicy = OPENING
    reading: RetryPolicy = READING
    block: int = BLOCK_BYTES

    def open_shards(self, url: Url) -> RemoteShards:
        """Return a reader for the files below `url`, with the cache."""
        return RemoteShards(url, self.cache, self.block)

    def retry_opening(self, url: Url, act: Callable[[], Result]) -> Result:
        """Call `act` with retries, and return its value.

        Raise ValueError, or RuntimeError if a later attempt might succeed; both name the URL.
        """
        try:
            return retry(act, str(url), self.opening)
        except PermanentError as error:
            raise ValueError(f"{url}: {error}") from None
        except CorruptData as error:
            raise ValueError(f"{url}: {error} ({self.opening.attempts} attempts)") from None
        except TransientError as error:
            raise RuntimeError(f"{url}: {error} ({self.opening.attempts} attempts)") from None


def default_options() -> RemoteOptions:
    """Return options that use the user's cache folder and report trouble as warnings."""
    return RemoteOptions(BlockCache(cache_folder(), warn))


def remote_parts(url: Url, options: RemoteOptions | None = None) -> tuple[Url | None, Url | None]:
    """Find the training and validation splits; both are None if `url` itself is packed."""
    options = options or default_options()
    shards = options.open_shards(url)
    missing: list[NotFound] = []

    def exists(name: str) -> bool:
        try:
            shards.request(name, 0, 8)
        except NotFound as error:
            missing.append(error)
            return False
        return True

    if options.retry_opening(url, partial(exists, INDEX)):
        return None, None
    train, validation = (
        url / part if options.retry_opening(url, partial(exists, f"{part}/{INDEX}")) else None
        for part in PACKED_PARTS
    )
    if train is None and validation is None:
        raise ValueError(_nothing_at(url, missing))
    return train, validation


def _nothing_at(url: Url, missing: Sequence[NotFound]) -> str:
    """Return why there are no packed images at a URL, and what to do."""
    if any(isinstance(error, AccessDenied) for error in missing):
        way = "check the name and the credentials"
        if str(url).startswith("http"):
            way = "put the user name and password into ~/.netrc, or give a URL that is still signed"
        return f"{url}: access denied; {way}"
    if url.name.lower().endswith(FILE_SUFFIXES):
        return f"{url} is not a folder of packed images: give the URL of the folder, {url.parent}"
    return (
        f"{url} has no packed images: no {INDEX} there or in {' or '.join(PACKED_PARTS)} "
        f"({missing[0]}); create them with `reslab pack`"
    )


def open_remote_part(url: Url, options: RemoteOptions | None = None) -> EncodedImages:
    """Open the packed set at `url`.

    Raise ValueError, naming the index or shard that is missing, truncated or damaged.
    """
    options = options or default_options()
    shards = options.open_shards(url)
    index = options.retry_opening(url / INDEX, partial(fetch_index, shards, options.opening))

    def check_end(shard: Shard) -> None:
        def end() -> None:
            if any(shards.request(shard.name, shard.size - TAR_END, shard.size)):
                raise CorruptData("its end differs from the shard that was packed; upload it again")

        options.retry_opening(url / shard.name, end)

    first, *others = index.shards
    check_end(first)  # alone: a server without range requests would send the whole shard
    for _ in map_in_order(check_end, others, FETCHERS, FETCHERS):
        pass
    return make_set(index, ShardReader(index, shards, options.reading, options.on_trouble))
