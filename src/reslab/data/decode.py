"""Decode images to RGB; the header is checked before any pixel is decoded."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from reslab.data.exif import orientation, rotate, upright
from reslab.data.formats import (
    READ_HEIC,
    READERS,
    heic_reader,
    image_format,
    is_read,
    other_kind,
)
from reslab.data.jpeg import (
    MAX_PIXELS,
    MAX_PROGRESSIVE_PIXELS,
    RGB_OR_GREY,
    decode_jpeg,
    jpeg_exif,
    jpeg_header,
    scale,
)
from reslab.data.libtiff import quiet_libtiff
from reslab.data.png_sums import has_wrong_checksum
from reslab.errors import os_reason
from reslab.runtime.files import read_regular

END_OF_JP2 = b"\xff\xd9"  # the last marker; no two bytes of pixels are equal to it

_one_at_a_time = threading.Lock()

# a path, the bytes of a file, RGB uint8 [H, W, 3], or a Pillow image
ImageInput = str | Path | bytes | np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | Image.Image
IMAGE_TYPES = (str, Path, bytes, np.ndarray, Image.Image)  # the same, for isinstance
UNNAMED = "the image"  # the name in messages for an image without a file


class BadImage(ValueError):
    """Raised if an image cannot be decoded; the message is `FILE: reason`."""


class TooLarge(BadImage):
    """Raised if the header states too many pixels, before anything is decoded."""


@dataclass(frozen=True)
class ScaledImage:
    """A decoded image: upright, and smaller than its file states if that is very large."""

    pixels: np.ndarray  # RGB uint8 [H, W, 3]
    width: int  # of the image at its full size; boxes are in its pixels
    height: int

    @property
    def ratio(self) -> tuple[float, float]:
        """The pixels of the full size per decoded pixel, across and down."""
        return self.width / self.pixels.shape[1], self.height / self.pixels.shape[0]


def load_image(
    image: ImageInput, file: str | None = None, *, as_stored: bool = False
) -> np.ndarray:
    """Load an image from a path, encoded bytes, an array or Pillow: upright RGB uint8 [H, W, 3].

    An array is uint8, RGB [H, W, 3] or grey [H, W]. A JPEG of more than MAX_PIXELS is reduced.
    With `as_stored`, an orientation in the EXIF block of encoded bytes is ignored.
    `file` is the name for error messages; by default the path, or "the image". Raise BadImage if
    the image cannot be decoded, and ValueError if an array has another type or shape.
    """
    if as_stored and isinstance(image, bytes):
        return _decode(image, file or UNNAMED, as_stored=True).pixels
    return load_scaled(image, file).pixels


def load_scaled(image: ImageInput, file: str | None = None) -> ScaledImage:
    """Load an image as `load_image` does, with its full size."""
    file = file or image_name(image)
    if isinstance(image, np.ndarray):
        grey = image.ndim == 2
        if image.dtype != np.uint8 or not (grey or image.shape[2:] == (3,)) or not image.size:
            raise ValueError(
                "an image array must be uint8, RGB [H, W, 3] or grey [H, W], not "
                f"{image.dtype} {list(image.shape)}"
            )
        return _at_full_size(np.stack([image] * 3, axis=2) if grey else image)
    if isinstance(image, Image.Image):
        try:
            return _at_full_size(to_rgb(ImageOps.exif_transpose(image), file))
        except BadImage:
            raise
        except Exception as error:  # Pillow may read the file only now
            raise BadImage(f"{file}: {error or type(error).__name__}") from None
    if isinstance(image, bytes):
        return _decode(image, file)
    try:
        return _decode(read_regular(image), file)
    except OSError as error:
        raise BadImage(f"{file}: {os_reason(error)}") from None


def _at_full_size(rgb: np.ndarray) -> ScaledImage:
    return ScaledImage(rgb, rgb.shape[1], rgb.shape[0])


def image_name(image: ImageInput) -> str:
    """Return an image's name for messages: its path, or "the image"."""
    return str(image) if isinstance(image, str | Path) else UNNAMED


def _decode(data: bytes, file: str, as_stored: bool = False) -> ScaledImage:
    kind = _kind(data, file)
    if kind == "jpeg" and (header := jpeg_header(data)):
        size, colours = header
        factor = _factor(data, kind, size, file)
        if colours in RGB_OR_GREY:
            try:
                rgb = decode_jpeg(data, size, factor)
            except ValueError as error:
                raise BadImage(f"{file}: {error}") from None
            if rgb is not None:
                turn = 1 if as_stored else orientation(jpeg_exif(data)[0])
                return ScaledImage(upright(rgb, turn), *rotate(*size, turn))
    return _decode_with_pillow(data, kind, file, as_stored)


def image_size(data: bytes, file: str) -> tuple[int, int]:
    """Read the (width, height) of the upright image from the header only."""
    kind = _kind(data, file)
    if kind == "jpeg" and (header := jpeg_header(data)):
        return rotate(*header[0], orientation(jpeg_exif(data)[0]))
    with open_lazily(data, kind, file) as (image, turn):
        return rotate(*image.size, turn)


def _kind(data: bytes, file: str) -> str:
    """Return the format of an image that can be decoded; raise BadImage for another file."""
    kind = image_format(data, file)
    if kind is not None and not is_read(kind):
        raise BadImage(f"{file}: a HEIC image: {READ_HEIC} reads it, or save it as JPEG")
    if kind is not None:
        return kind
    if not data:
        raise BadImage(f"{file}: the file is empty")
    if not any(data):
        raise BadImage(f"{file}: the file contains only zero bytes")
    if other := other_kind(data):
        raise BadImage(f"{file}: {other}, which is not read")
    raise BadImage(f"{file}: not an image in a supported format ({', '.join(READERS)})")


def _factor(data: bytes, kind: str, size: tuple[int, int], file: str) -> int:
    """Return the factor by which an image must be reduced; raise BadImage if it cannot be."""
    width, height = size
    if width * height <= MAX_PIXELS:
        return 1
    try:
        factor = scale(data, width, height) if kind == "jpeg" else None
    except ValueError as error:
        raise BadImage(f"{file}: {error}") from None
    if factor is None:
        limit = f"is {MAX_PIXELS:,} pixels"
        if kind == "jpeg":
            limit = f"for a progressive JPEG is {MAX_PROGRESSIVE_PIXELS:,} pixels"
        raise TooLarge(
            f"{file}: {width} x {height} pixels according to its header; the limit {limit}"
        )
    return factor


@contextmanager
def open_lazily(data: bytes, kind: str, file: str) -> Iterator[tuple[ImageFile.ImageFile, int]]:
    """Open an image without decoding it; yield it and the EXIF orientation still to be applied."""
    with _silence() if _may_warn(data, kind) else nullcontext():
        try:
            exif = b""
            if kind == "jpeg":  # Pillow would parse the EXIF block for the resolution, and warn
                exif, start, end = jpeg_exif(data)
                data = data[:start] + data[end:]
            reader = heic_reader() if kind == "heic" else READERS[kind]
            assert reader is not None, "the kind is one that can be decoded"
            image = reader(BytesIO(data))
            _factor(data, kind, image.size, file)
            if kind in ("png", "webp", "avif"):  # pillow-heif has rotated a HEIC
                exif = image.info.get("exif", b"")
            yield image, orientation(exif)  # Pillow itself rotates a TIFF
        except BadImage:
            raise
        except Image.DecompressionBombError:  # a frame is larger than its image
            raise TooLarge(f"{file}: the limit is {MAX_PIXELS:,} pixels") from None
        except Exception as error:
            # Pillow's readers parse untrusted bytes in Python, and may raise any exception:
            # OSError, SyntaxError, struct.error, KeyError, MemoryError, zlib.error, ...
            reason = str(error) or type(error).__name__
            raise BadImage(f"{file}: cannot be read as {kind.upper()} ({reason})") from None


def _may_warn(data: bytes, kind: str) -> bool:
    return kind in ("gif", "tiff") or (kind == "png" and b"acTL" in data)


@contextmanager
def _silence() -> Iterator[None]:
    """Ignore warnings; one thread at a time, because filters and handlers are global."""
    with _one_at_a_time, quiet_libtiff(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode_with_pillow(data: bytes, kind: str, file: str, as_stored: bool) -> ScaledImage:
    if kind == "png" and has_wrong_checksum(data):
        raise BadImage(f"{file}: damaged PNG (the checksum of its pixels is wrong)")
    if kind == "jp2" and END_OF_JP2 not in data:  # tiles would be missing without a word
        raise BadImage(f"{file}: truncated JPEG 2000 file")
    with open_lazily(data, kind, file) as (image, turn):
        width, height = image.size
        turn = 1 if as_stored else turn
        factor = _factor(data, kind, image.size, file)
        if factor > 1:
            image.draft(None, (width // factor, height // factor))
        image.load()
        is_deep = kind == "ppm" and image.mode == "I"  # 16 bits
        rgb = upright(_grey_16_to_rgb(image) if is_deep else to_rgb(image, file), turn)
        return ScaledImage(rgb, *rotate(width, height, turn)) if factor > 1 else _at_full_size(rgb)


def to_rgb(image: Image.Image, file: str) -> np.ndarray:
    """Convert an image of any mode to RGB uint8 [H, W, 3].

    Transparent pixels become white: most cut-outs are made for a white page, and the stored colours
    of transparent pixels are arbitrary.
    """
    if image.mode in ("I", "F"):
        raise BadImage(f"{file}: 32-bit grey, which does not define black and white")
    if image.mode.startswith("I;16"):
        return _grey_16_to_rgb(image)
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _grey_16_to_rgb(image: Image.Image) -> np.ndarray:
    grey = np.asarray(image).astype(np.uint32)
    transparent = grey == image.info.get("transparency", -1)
    grey = ((grey + 128) // 257).astype(np.uint8)  # Pillow's own conversion clips at 255
    grey[transparent] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)
