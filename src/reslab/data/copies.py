"""Sizes of a set's image files, and byte-identical files in two parts or two classes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np

from reslab.data.array_sets.images import ArrayReader, checksums
from reslab.data.boxes.sets import DetectionSet
from reslab.data.class_folders import FolderReader
from reslab.data.datasets import EncodedImages
from reslab.data.shards.reader import ShardReader
from reslab.runtime.files import MAX_BYTES, open_regular
from reslab.runtime.threads import map_in_order, usable_cores

AnyFiles = EncodedImages | DetectionSet
UNKNOWN = -1  # the size of a file that cannot be read
CHUNK = 4096  # files that a thread measures in one go
HEAD = 16_384  # bytes that are compared first, of files of equal size


@dataclass(frozen=True)
class Copies:
    """Byte-identical files that spoil a result, as (path, path of a copy)."""

    in_both: tuple[tuple[str, str], ...]  # a validation and a training image, one label
    two_labels: tuple[tuple[str, str], ...]  # an image and a copy with another label


def file_sizes(images: AnyFiles) -> np.ndarray:
    """Return the size of each encoded image in bytes, int64 [N].

    The size is UNKNOWN if a local file is missing, and if only the set's reader knows the files.
    Images in arrays have equal sizes, and checksums are returned instead.
    """
    read = images.read
    if isinstance(read, ArrayReader):
        return checksums(read, images.files)
    if isinstance(read, ShardReader):
        lengths = [stop - start for _, start, stop, _ in map(read.index.locate, images.files)]
        return np.array(lengths, np.int64)
    if not isinstance(read, FolderReader):
        return np.full(len(images), UNKNOWN, np.int64)
    chunks = (images.files[at : at + CHUNK] for at in range(0, len(images), CHUNK))
    threads = usable_cores()
    measured = map_in_order(partial(_sizes, read.root), chunks, threads, 2 * threads)
    return np.concatenate([np.empty(0, np.int64), *measured])


def _sizes(root: str, files: Sequence[str]) -> np.ndarray:
    def size(file: str) -> int:
        try:
            return os.stat(f"{root}/{file}").st_size
        except (OSError, ValueError):
            return UNKNOWN

    return np.fromiter(map(size, files), np.int64, len(files))


def find_copies(train: AnyFiles, test: AnyFiles, sizes: np.ndarray) -> Copies:
    """Find copies in the local files of both parts; `sizes` are those of `train`, then `test`.

    Only files of equal size are read. Images with boxes have no label of their own.
    """
    if not isinstance(train.read, FolderReader) or not isinstance(test.read, FolderReader):
        return Copies((), ())
    paths = [f"{train.read.root}/{file}" for file in train.files]
    paths += [f"{test.read.root}/{file}" for file in test.files]
    labels = np.zeros(len(paths), np.int64)
    if isinstance(train, EncodedImages) and isinstance(test, EncodedImages):
        labels = np.concatenate([train.labels.numpy(), test.labels.numpy()])
    in_both, two_labels = [], []
    for rows in _equal_files(paths, sizes):
        first, last = paths[rows[0]], rows[-1]
        others = [row for row in rows if labels[row] != labels[rows[0]]]
        if others:
            another = paths[others[0]]
            two_labels += [
                (paths[row], first if labels[row] != labels[rows[0]] else another) for row in rows
            ]
        elif rows[0] < len(train) <= last:
            in_both += [(paths[row], first) for row in rows if row >= len(train)]
    return Copies(tuple(in_both), tuple(two_labels))


def _equal_files(paths: Sequence[str], sizes: np.ndarray) -> list[list[int]]:
    """Return groups of byte-identical files as ascending rows, in the order of the first rows."""
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((counts[inverse] > 1) & (sizes > 0)).tolist()
    for most in (HEAD, None):
        threads = usable_cores()
        digests = map_in_order(
            partial(_digest, most=most), (paths[row] for row in rows), threads, 4 * threads
        )
        groups: dict[tuple[int, bytes], list[int]] = {}
        for row, digest in zip(rows, digests, strict=True):
            if digest is not None:
                groups.setdefault((int(sizes[row]), digest), []).append(row)
        equal = [group for group in groups.values() if len(group) > 1]
        rows = sorted(row for group in equal for row in group)
    return equal


def _digest(path: str, most: int | None) -> bytes | None:
    """Return a digest of the first `most` bytes of a file, or of all; None if it is unreadable."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            return blake2b(file.read(-1 if most is None else most), digest_size=16).digest()
    except OSError:
        return None
