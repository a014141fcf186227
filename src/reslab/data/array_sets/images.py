"""Images in arrays: their layout, their scale, and a reader that encodes one at a time."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reslab.data.array_sets.files import StoredArray, reading
from reslab.data.decode import BadImage
from reslab.errors import os_reason

Scale = Literal["bytes", "unit", "bool"]  # 0 to 255, 0 to 1, or false and true
CHANNELS = (1, 3)  # grey or RGB
DARKEST = 32  # a set whose brightest value is lower has another scale: digits go from 0 to 16
TOLERANCE = 1e-3  # of floats beyond 0 and 1, from resizing
CHUNK = 2**26  # bytes examined at a time
MOST_SUMMED = 2**32  # bytes of arrays whose images get checksums: a few seconds
EXAMINED = 4096  # images of a uint8 array whose brightness is examined
SQUARE = "save them as images.reshape(-1, {side}, {side})"


@dataclass(frozen=True)
class ImageArray:
    """Images of one size in an array, in memory or in a file."""

    stored: StoredArray
    rows: np.ndarray | None  # None: read from the file when they are needed
    axis: int | None  # of the channels; None for grey [N, H, W]
    scale: Scale = "bytes"

    def __len__(self) -> int:
        return self.stored.shape[0]

    def raw(self, first: int, last: int) -> np.ndarray:
        """Return stored values; raise OSError if they cannot be read."""
        if self.rows is None:
            return self.stored.read_rows(first, last)
        return self.rows[first:last]

    def image(self, index: int) -> np.ndarray:
        """Return one image, uint8 [H, W] or [H, W, 3]."""
        pixels = self.raw(index, index + 1)
        if self.axis is not None:
            pixels = np.moveaxis(pixels, self.axis, -1)
        if self.scale == "unit":
            pixels = pixels.astype(np.float64) * 255
        elif self.scale == "bool":
            pixels = pixels * np.uint8(255)
        pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)[0]
        return pixels[..., 0] if pixels.shape[2:] == (1,) else pixels

    def blocks(self, step: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first index, stored values) in pieces of limited size; of every `step`th image."""
        count = max(CHUNK // max(self.stored.row_bytes, 1), 1) if step == 1 else 1
        for first in range(0, len(self), max(count, step)):
            yield first, self.raw(first, min(first + count, len(self)))


@dataclass(frozen=True)
class ArrayReader:
    """Read an image of arrays by its name, `x_train[12]`, as bytes in PGM or PPM format."""

    arrays: Mapping[str, ImageArray]

    def __call__(self, file: str) -> bytes:
        name, _, index = file.rpartition("[")
        try:
            pixels = self.arrays[name].image(int(index.rstrip("]")))
        except OSError as error:
            raise BadImage(f"{file}: cannot be read ({os_reason(error)})") from None
        kind = b"P5" if pixels.ndim == 2 else b"P6"
        return b"%s\n%d %d\n255\n%s" % (kind, *pixels.shape[1::-1], pixels.tobytes())


def image_names(array: StoredArray) -> list[str]:
    """Return the names of an array's images, which `ArrayReader` understands."""
    return [f"{array.name}[{index}]" for index in range(array.shape[0])]


def checksums(read: ArrayReader, files: Sequence[str]) -> np.ndarray:
    """Return a checksum of each image, int64 [N], or -1 if it cannot be read or takes too long."""
    if sum(array.stored.row_bytes * len(array) for array in read.arrays.values()) > MOST_SUMMED:
        return np.full(len(files), -1, np.int64)

    def checksum(file: str) -> int:
        try:
            return zlib.crc32(read(file))
        except BadImage:
            return -1

    return np.fromiter(map(checksum, files), np.int64, len(files))


def open_images(stored: StoredArray) -> tuple[ImageArray, str]:
    """Open an array of images; return it with a note on how its values are read, or "".

    Raise ValueError if its layout, type or range of values is not certain.
    """
    axis = channel_axis(stored)
    in_place = not stored.member and not stored.fortran
    images = ImageArray(stored, None if in_place else stored.load(), axis)
    with reading(stored.file):
        if stored.dtype.kind == "b":
            return ImageArray(stored, images.rows, axis, "bool"), f"{stored}: read as black, white"
        low, high = value_range(images)
        if stored.dtype.kind == "f" and low >= -TOLERANCE and 0 < high <= 1 + TOLERANCE:
            return ImageArray(stored, images.rows, axis, "unit"), f"{stored}: read as 0 to 1"
    if low < 0 or high > 255 or high <= DARKEST:
        raise ValueError(
            f"{stored} has values from {low:g} to {high:g}: images must be uint8 from 0 to 255, or "
            f"floats from 0 to 1{_remedy(low, high)}"
        )
    if stored.dtype == np.uint8:
        return images, ""
    return images, f"{stored}: {stored.dtype} read as 0 to 255"


def _remedy(low: float, high: float) -> str:
    """Return how to scale values that are out of range."""
    if low == high == 0:
        return "; these are all black"
    if low < 0:
        if low >= -1 and high <= 1:
            return "; save (images + 1) / 2"
        return "; undo the normalisation before you save them"
    return f"; save images / {high:g}, if {high:g} is white"


def channel_axis(stored: StoredArray) -> int | None:
    """Return the axis of the channels, 1 or 3; None for grey images [N, H, W].

    Raise ValueError if the array is not of images, or if its layout is ambiguous.
    """
    stored.must_be_readable()
    shape, kind = stored.shape, stored.dtype.kind
    said = f"{stored} has the shape {list(shape)}"
    wanted = "images are [N, H, W, 3], [N, 3, H, W], [N, H, W, 1], [N, 1, H, W] or grey [N, H, W]"
    if kind not in "buif":
        raise ValueError(f"{stored} has the type {stored.dtype}: images are numbers")
    if 0 in shape:
        raise ValueError(f"{said}: it is empty")
    if len(shape) == 2:
        side = round(shape[1] ** 0.5)
        remedy = f": {SQUARE.format(side=side)}" if side > 1 and side * side == shape[1] else ""
        raise ValueError(f"{said}, flattened images or features; {wanted}{remedy}")
    if len(shape) == 3 and min(shape[1:]) > 4:
        return None
    if len(shape) == 4:
        axes = [axis for axis in (1, 3) if shape[axis] in CHANNELS]
        if len(axes) == 1:
            return axes[0]
        if axes:
            raise ValueError(f"{said}: its channels may be first or last; {wanted}")
        if 4 in (shape[1], shape[3]):
            raise ValueError(f"{said}: an alpha channel is not read, keep three; {wanted}")
    raise ValueError(f"{said}; {wanted}")


def value_range(images: ImageArray) -> tuple[float, float]:
    """Return the lowest and the highest value; raise ValueError for infinite ones and NaN.

    Of uint8 images, which need no other check, a sample is enough.
    """
    step = max(len(images) // EXAMINED, 1) if images.stored.dtype == np.uint8 else 1
    low, high = float("inf"), float("-inf")
    for first, block in images.blocks(step):
        least, most = float(block.min()), float(block.max())
        if not (np.isfinite(least) and np.isfinite(most)):
            bad = ~np.isfinite(block).reshape(len(block), -1).all(1)
            raise ValueError(f"{images.stored.name}[{first + int(bad.argmax())}] has NaN or inf")
        low, high = min(low, least), max(high, most)
    return low, high
