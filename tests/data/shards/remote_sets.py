"""Packed images to be served, and options to read them with short pauses."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reslab.data.datasets import EncodedImages
from reslab.data.shards.block_cache import BlockCache
from reslab.data.shards.reader import RemoteOptions
from reslab.data.shards.retry import RetryPolicy
from reslab.data.shards.writer import Packing, pack_sets
from reslab.runtime.events import Log

CLASSES = ("cat", "dog")
BLOCK = 8_192  # small, so that there are many blocks
QUICK = RetryPolicy(attempts=12, first=0.01, longest=0.3)


def images(count: int, name: str = "pictures", start: int = 0) -> dict[str, bytes]:
    """Return images of noise, 7 to 17 kB each, named `cat/...` and `dog/...`."""
    files = {}
    for number in range(start, start + count):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (48, 50 + number % 70, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        files[f"{CLASSES[number % 2]}/{name} {number} é.png"] = out.getvalue()
    return files


def set_of(files: dict[str, bytes], name: str = "pictures") -> EncodedImages:
    labels = torch.tensor([CLASSES.index(file.split("/")[0]) for file in files])
    return EncodedImages(name, list(files), labels, CLASSES, CLASSES, files.__getitem__)


def packed(files: dict[str, bytes], out: Path) -> Path:
    pack_sets({".": set_of(files)}, out, Packing(shard_size=1), lambda bad: None)
    return out


def fail(text: str) -> None:
    raise AssertionError(text)


def options(
    cache: Path,
    *,
    limit: int = 10**9,
    on_trouble: Log = fail,
    policy: RetryPolicy = QUICK,
) -> RemoteOptions:
    """Return options for a test; by default, a warning fails the test."""
    blocks = BlockCache(cache, on_trouble, limit=limit)
    return RemoteOptions(blocks, on_trouble, policy, policy, BLOCK)


def bytes_in(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
