"""Images of shards from afar: fetched in blocks, kept, checked, and fetched again if need be."""

import threading
import time
import weakref
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from reslab.data.decode import BadImage
from reslab.data.shards.block_cache import BlockCache, Warn
from reslab.data.shards.index import Index, Member, Members
from reslab.data.shards.source import (
    CorruptData,
    PermanentError,
    RangeReader,
    RetryPolicy,
    TransientError,
    retry,
)

BLOCK_BYTES = (
    256 * 1024
)  # bytes; of images in a random order, larger blocks fetch what is not asked for
READING = RetryPolicy(attempts=10, first=0.2, longest=30)  # a minute or more: a server may restart
NOTED = 3  # failures of one read, of which the next is told of
QUIET = 60.0  # seconds between two such lines
FETCHERS = 16  # threads that read ahead; they wait more than they work
LOCKS = 1024


@dataclass(frozen=True)
class RemoteFile:
    """A file below the URL; equal keys mean equal bytes."""

    name: str
    key: str
    size: int


class Blocks:
    """Ranges of files, by whole blocks that are kept. Any thread may ask."""

    def __init__(self, source: RangeReader, cache: BlockCache, size: int = BLOCK_BYTES) -> None:
        self.source, self.cache, self.size = source, cache, size
        self._locks = [threading.Lock() for _ in range(LOCKS)]  # a block is fetched by one thread

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """One attempt; Passing or Final. What is missing is fetched by one request."""
        numbers = self._numbers(start, stop)
        with self._locks[hash((file.key, numbers[0])) % LOCKS]:
            blocks = {number: self._kept(file, number) for number in numbers}
            missing = [number for number in numbers if blocks[number] is None]
            if missing:
                blocks |= self._fetched(file, range(missing[0], missing[-1] + 1))
        joined = b"".join(block for block in blocks.values() if block is not None)
        skipped = numbers[0] * self.size
        return joined[start - skipped : stop - skipped]

    def _numbers(self, start: int, stop: int) -> range:
        """Of the blocks that a range lies in."""
        return range(start // self.size, (stop - 1) // self.size + 1)

    def _length(self, file: RemoteFile, number: int) -> int:
        return min(self.size, file.size - number * self.size)

    def _kept(self, file: RemoteFile, number: int) -> bytes | None:
        return self.cache.find(file.key, number, self._length(file, number))

    def _fetched(self, file: RemoteFile, numbers: range) -> dict[int, bytes]:
        first = numbers[0] * self.size
        data = self.source.read(file.name, first, min(numbers.stop * self.size, file.size))
        blocks = {
            number: data[number * self.size - first : (number + 1) * self.size - first]
            for number in numbers
        }
        for number, block in blocks.items():
            self.cache.keep(file.key, number, block)
        return blocks

    def drop(self, file: RemoteFile, start: int, stop: int) -> None:
        """Forget the blocks of a range whose bytes are wrong."""
        for number in self._numbers(start, stop):
            self.cache.drop(file.key, number)

    def fetch(self, file: RemoteFile, start: int, stop: int) -> None:
        """Make a range be there when it is read; who reads it is told what goes wrong."""
        numbers = self._numbers(start, stop)
        there = (self.cache.has(file.key, it, self._length(file, it)) for it in numbers)
        if not self.cache.keeps or all(there):
            return
        with suppress(TransientError, PermanentError):
            self.read(file, start, stop)


class RemoteReader:
    """The bytes of an image by its name. Any thread may ask.

    A server that fails is tried again, and so are bytes that are wrong. What stays wrong is a
    BadImage; a server that stays away is a RuntimeError: its images are not bad, and to train
    on others instead would be another run.
    """

    def __init__(
        self,
        blocks: Blocks,
        index: Index,
        warn: Warn,
        *,
        patience: RetryPolicy = READING,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.blocks, self.warn, self.patience = blocks, warn, patience
        self.sleep, self.clock = sleep, clock
        self.members = Members(index)
        self.shards = [RemoteFile(it.name, it.sha256, it.size) for it in index.shards]
        self._told = float("-inf")
        self._errands = Errands(blocks.fetch)

    def __call__(self, file: str) -> bytes:
        member = self.members(file)
        shard = self.shards[member.shard]
        place = f"{self.blocks.source.url}/{shard.name}"
        what = f"{place} {member.offset}"
        try:
            return retry(
                partial(self._attempt, member), what, self.patience,
                failed=partial(self._note, place), sleep=self.sleep,
            )  # fmt: skip
        except CorruptData:
            raise BadImage(
                f"{file}: its bytes in {place} are not those that were packed, "
                f"{self.patience.attempts} times; copy that shard there again"
            ) from None
        except (TransientError, PermanentError) as error:
            tried = f", {self.patience.attempts} times" if isinstance(error, TransientError) else ""
            raise RuntimeError(f"{place} cannot be read: {error}{tried}") from None

    def expect(self, files: Sequence[str]) -> None:
        """Begin to fetch what will be read soon."""
        for member in map(self.members, files):
            stop = member.offset + member.length
            self._errands.send((self.shards[member.shard], member.offset, stop))

    def _attempt(self, member: Member) -> bytes:
        shard, start = self.shards[member.shard], member.offset
        data = self.blocks.read(shard, start, start + member.length)
        if zlib.crc32(data) != member.checksum:
            self.blocks.drop(shard, start, start + member.length)
            raise CorruptData("its bytes are not those that were packed")
        return data

    def _note(self, place: str, attempt: int, failure: TransientError) -> None:
        """Say that there is a reason to wait, but not for each of many threads."""
        now = self.clock()
        if attempt + 1 == NOTED and now - self._told > QUIET:
            self._told = now
            self.warn(f"{place}: {failure}; trying again")


class Errands:
    """Calls of `act` in the background, in order; the process does not wait for them to end.

    The threads begin with the first errand, and end when this is collected.
    """

    def __init__(self, act: Callable[[RemoteFile, int, int], None]) -> None:
        self._act = act
        self._errands: SimpleQueue[tuple[RemoteFile, int, int] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._begun = False

    def send(self, errand: tuple[RemoteFile, int, int]) -> None:
        with self._lock:
            if not self._begun:
                self._begun = True
                weakref.finalize(self, _stop, self._errands)
                for number in range(FETCHERS):
                    name = f"reslab-fetch-{number}"
                    arguments = (self._errands, self._act)
                    threading.Thread(target=_work, args=arguments, name=name, daemon=True).start()
        self._errands.put(errand)


def _work(errands: SimpleQueue, act: Callable[[RemoteFile, int, int], None]) -> None:
    while (errand := errands.get()) is not None:
        act(*errand)


def _stop(errands: SimpleQueue) -> None:
    """End the threads; what is still to be done is wanted no more."""
    while not errands.empty():
        with suppress(Exception):
            errands.get_nowait()
    for _ in range(FETCHERS):
        errands.put(None)
