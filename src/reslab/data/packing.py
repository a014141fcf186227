"""Packing a set into shards: equal pictures give equal bytes, and nothing half-made is left."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import torch

from reslab.data.decode import BadPicture, decode, format_of
from reslab.data.loading import in_order, usable_cores
from reslab.data.pictures import PictureSet
from reslab.data.resize import resize_whole, shorter_side
from reslab.data.shard_index import COLUMNS, INDEX, Index, Shard, index_bytes
from reslab.data.shard_writer import Draft, ShardWriter

MEGABYTE = 1_000_000
SHARD_SIZE = 500  # megabytes: 280 shards for ImageNet
QUALITY = 95
LONGEST = 65_500  # side of a JPEG that libjpeg writes

Tell = Callable[[BadPicture | None], None]  # one more picture is packed, or is bad and left out


@dataclass(frozen=True)
class Packing:
    """How pictures are kept."""

    shorter_side: int | None = None  # larger pictures are reduced to it; None: bytes as they are
    quality: int = QUALITY  # of the JPEGs so made
    shard_size: int = SHARD_SIZE  # megabytes; a shard ends before it would be exceeded

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.shorter_side < 1:
            raise ValueError(f"a shorter side of {self.shorter_side} pixels: at least 1")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality {self.quality}: from 1 to 100")
        if self.shard_size < 1:
            raise ValueError(f"shards of {self.shard_size} MB: at least 1")


@dataclass(frozen=True)
class Packed:
    """What became of a set."""

    name: str
    pictures: int  # packed
    classes: int
    reduced: int  # of the pictures, those made smaller
    left_out: int  # do not decode
    shards: int
    bytes: int  # of the shards


def pack(parts: Mapping[str, PictureSet], out: Path, packing: Packing, tell: Tell) -> list[Packed]:
    """Write each set into the folder of that name under `out`; "." is `out` itself.

    Every picture is decoded, so that what is packed can be read; one that cannot is told of and
    left out. `out` must not exist or be empty, and unless the work ends well all that was written
    is removed.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; name a new folder, or empty it first")
    draft = Draft()
    try:
        written = {
            out / place: write_shards(pictures, out / place, packing, draft, tell)
            for place, pictures in parts.items()
        }
        for place, (index, _) in written.items():
            draft.write(place / INDEX, index_bytes(index))  # last: what has one is whole
        draft.publish()
        return [packed for _, packed in written.values()]
    except BaseException:  # Ctrl-C too
        draft.remove()
        raise


def write_shards(
    pictures: PictureSet, place: Path, packing: Packing, draft: Draft, tell: Tell
) -> tuple[Index, Packed]:
    """The shards of one set.

    Pictures lie in one fixed random order, so that who reads a shard from end to end meets every
    class; the index keeps the order of the set.
    """
    draft.make_folder(place)
    writer = ShardWriter(place, packing.shard_size * MEGABYTE, draft)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0)).tolist()
    columns = {name: np.zeros(len(order), dtype) for name, dtype in COLUMNS.items()}
    columns["labels"][:] = pictures.labels.numpy()
    bad: dict[int, BadPicture] = {}
    reduced, threads = 0, usable_cores()
    results = in_order(partial(keep, pictures, packing), order, threads, 4 * threads)
    for row, result in zip(order, results, strict=True):
        if isinstance(result, BadPicture):
            bad[row] = result
            tell(result)
            continue
        shard, offset = writer.add(result.suffix, result.data, int(columns["labels"][row]))
        columns["shards"][row], columns["offsets"][row] = shard, offset
        columns["lengths"][row] = len(result.data)
        columns["checksums"][row] = zlib.crc32(result.data)
        reduced += result.reduced
        tell(None)
    refuse_lost_classes(pictures, bad)
    shards = writer.finish()
    index = make_index(pictures, packing, columns, bad, shards)
    classes = len(np.unique(index.columns["labels"]))
    size = sum(shard.size for shard in shards)
    facts = (len(index.files), classes, reduced, len(bad), len(shards), size)
    return index, Packed(pictures.name, *facts)


@dataclass(frozen=True)
class Kept:
    """A picture as it goes into a shard."""

    data: bytes
    suffix: str
    reduced: bool


def keep(pictures: PictureSet, packing: Packing, row: int) -> Kept | BadPicture:
    """The bytes of a picture, as they are or reduced; the reason if they do not decode.

    Reduced pictures keep colour at full resolution (4:4:4): the halved colour channels of a large
    photograph are, once reduced, as fine as its brightness. Halving them again about doubles the
    squared error of quality 95.
    """
    file = pictures.files[row]
    try:
        data = pictures.read(file)
        picture = decode(data, file)
    except BadPicture as error:
        return error
    side = packing.shorter_side
    height, width = picture.shape[:2]
    if (
        side is None
        or min(width, height) <= side
        or max(shorter_side(width, height, side)) > LONGEST
    ):
        kind = str(format_of(data))  # whatever it is called
        return Kept(data, "jpg" if kind == "jpeg" else kind, reduced=False)
    small = np.ascontiguousarray(resize_whole(picture, side))
    made = simplejpeg.encode_jpeg(small, packing.quality, "RGB", "444")
    return Kept(made, "jpg", reduced=True)


def refuse_lost_classes(pictures: PictureSet, bad: dict[int, BadPicture]) -> None:
    """ValueError when a class had pictures and every one is bad."""
    labels = pictures.labels.numpy()
    had = np.bincount(labels, minlength=len(pictures.classes))
    lost = np.bincount(labels[list(bad)], minlength=len(pictures.classes))
    for label in np.flatnonzero((had > 0) & (had == lost)):
        example = next(error for row, error in bad.items() if labels[row] == label)
        raise ValueError(
            f"{pictures.name}: no picture of class {pictures.classes[label]} can be read; {example}"
        )


def make_index(
    pictures: PictureSet,
    packing: Packing,
    columns: dict[str, np.ndarray],
    bad: dict[int, BadPicture],
    shards: list[Shard],
) -> Index:
    """The index of all but the bad pictures, in the set's order."""
    rows = np.delete(np.arange(len(pictures)), list(bad)).tolist()
    return Index(
        pictures.name,
        pictures.classes,
        pictures.ids,
        packing.shorter_side,
        packing.quality if packing.shorter_side else None,
        tuple(shards),
        [pictures.files[row] for row in rows],
        {name: column[rows] for name, column in columns.items()},
    )
