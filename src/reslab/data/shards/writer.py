"""Pack images into tar shards with an index; all files appear together or not at all."""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BufferedWriter
from pathlib import Path

import numpy as np
import torch

from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage, load_image
from reslab.data.formats import image_format
from reslab.data.resize import resize_whole, shorter_side
from reslab.data.shards.draft import Draft, drafting
from reslab.data.shards.index import COLUMNS, INDEX, Index, Shard, index_bytes
from reslab.runtime.threads import map_in_order, usable_cores
from reslab.runtime.writing import naming

TAR_BLOCK = tarfile.BLOCKSIZE
MEGABYTE = 1_000_000
SHARD_SIZE = 500  # megabytes; gives 280 shards for ImageNet
JPEG_QUALITY = 95
MAX_JPEG_SIDE = 65_500  # the maximum in libjpeg

OnImage = Callable[[BadImage | None], None]  # called for each image, with its error if skipped


class ShardWriter:
    """Write samples to tar files of at most `limit` bytes; a larger sample gets its own file."""

    def __init__(self, folder: Path, limit: int, draft: Draft) -> None:
        self.folder, self.limit, self.draft = folder, limit, draft
        self._finished: list[Shard] = []
        self._samples = 0
        self._file: BufferedWriter | None = None

    def add(self, suffix: str, data: bytes, label: int) -> tuple[int, int]:
        """Write one sample; return the number of its shard, and the offset of `data` in it."""
        key = f"{self._samples:06d}"  # unique across shards
        sample = member(f"{key}.{suffix}", data) + member(f"{key}.cls", str(label).encode())
        if self._file and self._size + len(sample) + 2 * TAR_BLOCK > self.limit:
            self.finish()
        if self._file is None:
            self._path = self.folder / f"shard-{len(self._finished):06d}.tar"
            self._file = self.draft.create(self._path)
            self._size, self._digest = 0, hashlib.sha256()
        start = self._size
        self._write(sample)
        self._samples += 1
        return len(self._finished), start + TAR_BLOCK

    def finish(self) -> list[Shard]:
        """Finish the current shard, and return all shards so far."""
        assert self._file, "add was called before"
        self._write(bytes(2 * TAR_BLOCK))  # the end of a tar file
        self.draft.finish(self._path)
        self._finished.append(Shard(self._path.name, self._size, self._digest.hexdigest()))
        self._file = None
        return self._finished

    def _write(self, data: bytes) -> None:
        assert self._file
        with naming(self._path):
            self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


def member(name: str, data: bytes) -> bytes:
    """Return a tar member without owner or time, so that equal images give equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % TAR_BLOCK)


@dataclass(frozen=True)
class Packing:
    """Options for packing images."""

    shorter_side: int | None = None  # larger images are reduced to it; None: copy all files
    quality: int = JPEG_QUALITY  # JPEG quality of reduced images
    shard_size: int = SHARD_SIZE  # maximum, in megabytes

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.shorter_side < 1:
            raise ValueError(f"shorter side {self.shorter_side}: it must be at least 1 pixel")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality {self.quality}: it must be from 1 to 100")
        if self.shard_size < 1:
            raise ValueError(f"shard size {self.shard_size}: it must be at least 1 MB")


@dataclass(frozen=True)
class Packed:
    """A summary of packing one set."""

    name: str
    pictures: int  # images packed
    classes: int
    reduced: int  # images that were reduced
    left_out: int  # images that cannot be decoded
    shards: int
    bytes: int  # total size of the shards


def pack_sets(
    parts: Mapping[str, EncodedImages], out: Path, packing: Packing, on_image: OnImage
) -> list[Packed]:
    """Pack each set into the folder `out / name`; the name "." stands for `out` itself.

    Every image is decoded as a test. Images that cannot be decoded are skipped; `on_image` is
    called for every image, with the error if it is skipped. Raise ValueError if `out` is neither
    new nor empty, or if all images of a class are skipped. After a failure, all files are removed;
    those of a killed process are removed by the next one.
    """
    with drafting(out) as draft:
        written = {
            out / name: write_shards(images, out / name, packing, draft, on_image)
            for name, images in parts.items()
        }
        for folder, (index, _) in written.items():
            draft.write(folder / INDEX, index_bytes(index))  # last: it marks complete folders
    return [packed for _, packed in written.values()]


def write_shards(
    images: EncodedImages, folder: Path, packing: Packing, draft: Draft, on_image: OnImage
) -> tuple[Index, Packed]:
    """Write the shards of one set; return its index and a summary.

    Images are written in a fixed random order, so that a sequential reader gets mixed classes; the
    index keeps the order of the set.
    """
    writer = ShardWriter(folder, packing.shard_size * MEGABYTE, draft)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    columns = {name: np.zeros(len(order), dtype) for name, dtype in COLUMNS.items()}
    columns["labels"][:] = images.labels.numpy()
    bad: dict[int, BadImage] = {}
    reduced, threads = 0, usable_cores()
    results = map_in_order(partial(pack_image, images, packing), order, threads, 4 * threads)
    for row, result in zip(order, results, strict=True):
        if isinstance(result, BadImage):
            bad[row] = result
            on_image(result)
            continue
        data, was_reduced = result
        shard, offset = writer.add(file_suffix(data), data, int(columns["labels"][row]))
        columns["shards"][row], columns["offsets"][row] = shard, offset
        columns["lengths"][row], columns["checksums"][row] = len(data), zlib.crc32(data)
        reduced += was_reduced
        on_image(None)
    refuse_lost_classes(images, bad)
    shards = writer.finish()
    index = make_index(images, packing, columns, bad, shards)
    classes = len(np.unique(index.columns["labels"]))
    size = sum(shard.size for shard in shards)
    facts = (len(index.files), classes, reduced, len(bad), len(shards), size)
    return index, Packed(images.name, *facts)


def pack_image(images: EncodedImages, packing: Packing, row: int) -> tuple[bytes, bool] | BadImage:
    """Return (the bytes to pack, whether the image was reduced), or the BadImage if it is bad.

    Reduced images keep the full colour resolution (4:4:4): when a large photograph is reduced, its
    subsampled colour channels become as fine as its brightness. Subsampling them again would about
    double the squared error at quality 95.
    """
    file = images.files[row]
    try:
        data = images.read(file)
        image = load_image(data, file)
    except BadImage as error:
        return error
    side = packing.shorter_side
    height, width = image.shape[:2]
    if (
        side is None
        or min(width, height) <= side
        or max(shorter_side(width, height, side)) > MAX_JPEG_SIDE
    ):
        return data, False
    import simplejpeg

    small = np.ascontiguousarray(resize_whole(image, side))
    return simplejpeg.encode_jpeg(small, packing.quality, "RGB", "444"), True


def file_suffix(data: bytes) -> str:
    """Return the file suffix for a sample, by its signature and not its original name."""
    kind = str(image_format(data))
    return "jpg" if kind == "jpeg" else kind


def refuse_lost_classes(images: EncodedImages, bad: dict[int, BadImage]) -> None:
    """Raise ValueError if all images of a class are bad."""
    labels = images.labels.numpy()
    had = np.bincount(labels, minlength=len(images.classes))
    lost = np.bincount(labels[list(bad)], minlength=len(images.classes))
    for label in np.flatnonzero((had > 0) & (had == lost)):
        example = next(error for row, error in bad.items() if labels[row] == label)
        raise ValueError(
            f"{images.name}: no image of class {images.classes[label]!r} can be decoded (for "
            f"example {example})"
        )


def make_index(
    images: EncodedImages,
    packing: Packing,
    columns: dict[str, np.ndarray],
    bad: dict[int, BadImage],
    shards: list[Shard],
) -> Index:
    """Build the index of all images except the bad ones, in the order of the set."""
    rows = np.delete(np.arange(len(images)), list(bad)).tolist()
    return Index(
        images.name,
        images.classes,
        images.ids,
        packing.shorter_side,
        packing.quality if packing.shorter_side else None,
        tuple(shards),
        [images.files[row] for row in rows],
        {name: column[rows] for name, column in columns.items()},
    )
