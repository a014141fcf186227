"""List the samples of many shards once, and keep the lists of large sets in the user's cache."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path

from reslab.data.shards.block_cache import BlockCache, cache_folder
from reslab.data.shards.reader import warn
from reslab.data.shards.samples import Listing, Sample, list_samples
from reslab.runtime.threads import map_in_order, usable_cores

LARGE = 1_000_000_000  # bytes of shards; smaller sets are listed again in seconds
RULES = 1  # number of the rules by which samples are found: to be increased when they change
DIGEST_BYTES = 16


def list_all(paths: Sequence[Path], cache: BlockCache | None = None) -> list[Listing]:
    """List the samples of shards in threads; raise ValueError, naming a shard that is damaged.

    The lists of large sets are kept in `cache`, or in the user's: listing ImageNet takes minutes.
    """
    if cache is None and sum(path.stat().st_size for path in paths) >= LARGE:
        cache = BlockCache(cache_folder(), warn)
    list_one = partial(_cached_listing, cache) if cache else list_samples
    threads = usable_cores()
    return list(map_in_order(list_one, paths, threads, 2 * threads))


def _cached_listing(cache: BlockCache, path: Path) -> Listing:
    """Return the listing of a shard from the cache if the file is still the same."""
    status = path.stat()
    facts = [RULES, str(path.resolve()), status.st_size, status.st_mtime_ns]
    key = sha256(json.dumps(facts).encode()).hexdigest()
    data = cache.find(key, 0)
    if data is not None and _digest(data[DIGEST_BYTES:]) == data[:DIGEST_BYTES]:
        return _decode(data[DIGEST_BYTES:])
    listing = list_samples(path)
    data = _encode(listing)
    cache.keep(key, 0, _digest(data) + data)
    return listing


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def _encode(listing: Listing) -> bytes:
    fields = {key: value for key, value in vars(listing).items() if key != "samples"}
    samples = [astuple(sample) for sample in listing.samples]
    return json.dumps({**fields, "samples": samples}).encode()


def _decode(data: bytes) -> Listing:
    fields = json.loads(data)
    samples = [Sample(*values) for values in fields.pop("samples")]
    return Listing(**fields | {"samples": samples, "others": Counter(fields["others"])})
