"""Decode images to RGB; the header is checked before any pixel is decoded."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from reslab.data.libtiff import quiet_libtiff
from reslab.data.png_sums import has_wrong_checksum
from reslab.errors import os_reason
from reslab.runtime.files import read_regular

FORMATS = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".pjpeg": "jpeg",
    ".pjp": "jpeg", ".png": "png", ".apng": "png", ".webp": "webp", ".gif": "gif", ".bmp": "bmp",
    ".dib": "bmp", ".tif": "tiff", ".tiff": "tiff", ".ppm": "ppm", ".pgm": "ppm", ".pbm": "ppm",
    ".pnm": "ppm", ".avif": "avif", ".jp2": "jp2", ".j2k": "jp2", ".jpx": "jp2", ".tga": "tga",
}  # fmt: skip
IMAGE_SUFFIXES = tuple(FORMATS)

# 256 MiB as RGB, just below the size at which Pillow would warn
MAX_PIXELS = 2**28 // 3

# Image.open would try every plugin, and warn about large images before we refuse them
READERS: dict[str, type[ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "ppm": PpmImagePlugin.PpmImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
    "jp2": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "tga": TgaImagePlugin.TgaImageFile,
}

# libjpeg's warnings about lost pixels (the last pattern: in a restart interval). Its other
# warnings, such as stray bytes between segments, leave the image complete.
DAMAGE = re.compile(
    "premature end|bad huffman|instead of rst|inconsistent progression|before marker 0xd[0-7]", re.I
)

END_OF_JP2 = b"\xff\xd9"  # the last marker; no two bytes of pixels are equal to it

_one_at_a_time = threading.Lock()

# a path, the bytes of a file, RGB uint8 [H, W, 3], or a Pillow image
ImageInput = str | Path | bytes | np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | Image.Image
IMAGE_TYPES = (str, Path, bytes, np.ndarray, Image.Image)  # the same, for isinstance
UNNAMED = "the image"  # the name in messages for an image without a file


class BadImage(ValueError):
    """Raised if an image cannot be decoded; the message is `FILE: reason`."""


class TooLarge(BadImage):
    """Raised if the header states more than MAX_PIXELS pixels, before anything is decoded."""


def load_image(image: ImageInput, file: str | None = None) -> np.ndarray:
    """Load an image from a path, encoded bytes, an array or Pillow: upright RGB uint8 [H, W, 3].

    An array is uint8, RGB [H, W, 3] or grey [H, W]. `file` is the name for error messages; by
    default the path, or "the image". Raise BadImage if the image cannot be decoded, and ValueError
    if an array has another type or shape.
    """
    file = file or image_name(image)
    if isinstance(image, np.ndarray):
        grey = image.ndim == 2
        if image.dtype != np.uint8 or not (grey or image.shape[2:] == (3,)) or not image.size:
            raise ValueError(
                "an image array must be uint8, RGB [H, W, 3] or grey [H, W], not "
                f"{image.dtype} {list(image.shape)}"
            )
        return np.stack([image] * 3, axis=2) if grey else image
    if isinstance(image, Image.Image):
        try:
            return to_rgb(ImageOps.exif_transpose(image), file)
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


def image_name(image: ImageInput) -> str:
    """Return an image's name for messages: its path, or "the image"."""
    return str(image) if isinstance(image, str | Path) else UNNAMED


def _decode(data: bytes, file: str) -> np.ndarray:
    kind = _kind(data, file)
    rgb = _decode_jpeg(data, file) if kind == "jpeg" else None
    if rgb is not None:
        turn = orientation(jpeg_exif(data)[0])
    else:
        rgb, turn = _decode_with_pillow(data, kind, file)
    return upright(rgb, turn)


def image_size(data: bytes, file: str) -> tuple[int, int]:
    """Read the (width, height) of the upright image from the header only."""
    kind = _kind(data, file)
    if kind == "jpeg":
        header = _jpeg_header(data, file)
        if header is not None:
            width, height, _ = header
            return rotate(width, height, orientation(jpeg_exif(data)[0]))
    with open_lazily(data, kind, file) as (image, turn):
        return rotate(*image.size, turn)


def image_format(data: bytes) -> str | None:
    """Return the format by its signature, a key of READERS; None if unknown."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"BM"):
        return "bmp"
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "tiff"
    if re.match(rb"P[1-6]\s", data):
        return "ppm"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    if data.startswith((b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "jp2"
    return "tga" if data.endswith(b"TRUEVISION-XFILE.\0") else None


def _kind(data: bytes, file: str) -> str:
    kind = image_format(data)
    if kind is not None:
        return kind
    if not data:
        raise BadImage(f"{file}: the file is empty")
    if not any(data):
        raise BadImage(f"{file}: the file contains only zero bytes")
    if data[4:8] == b"ftyp":
        raise BadImage(f"{file}: a HEIC or video file; save it as JPEG or PNG")
    if data.lstrip()[:1] == b"<":
        raise BadImage(f"{file}: a web page or SVG, not a photograph")
    raise BadImage(f"{file}: not an image in a supported format ({', '.join(READERS)})")


def _check_size(width: int, height: int, file: str) -> None:
    if width * height > MAX_PIXELS:
        raise TooLarge(
            f"{file}: {width} x {height} pixels according to its header; the limit is "
            f"{MAX_PIXELS:,} pixels"
        )


def _jpeg_header(data: bytes, file: str) -> tuple[int, int, str] | None:
    """Return width, height and colour space, or None if simplejpeg cannot parse the header."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(int(width), int(height), file)
    return int(width), int(height), colours


def _decode_jpeg(data: bytes, file: str) -> np.ndarray | None:
    """Decode a JPEG without holding the GIL, [H, W, 3]; return None if Pillow must decode it."""
    header = _jpeg_header(data, file)
    if header is None or header[2] not in ("YCbCr", "Gray", "RGB"):
        return None
    try:
        # Pillow's DCT and upsampling, so that the pixels equal Pillow's
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except (ValueError, MemoryError) as error:
        reason = str(error)
        if DAMAGE.search(reason):
            raise BadImage(f"{file}: truncated or damaged JPEG ({reason})") from None
        return None


@contextmanager
def open_lazily(data: bytes, kind: str, file: str) -> Iterator[tuple[ImageFile.ImageFile, int]]:
    """Open an image without decoding it; yield it and the EXIF orientation still to be applied."""
    with _silence() if _may_warn(data, kind) else nullcontext():
        try:
            exif = b""
            if kind == "jpeg":  # Pillow would parse the EXIF block for the resolution, and warn
                exif, start, end = jpeg_exif(data)
                data = data[:start] + data[end:]
            image = READERS[kind](BytesIO(data))
            _check_size(*image.size, file)
            if kind in ("png", "webp", "avif"):
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


def _decode_with_pillow(data: bytes, kind: str, file: str) -> tuple[np.ndarray, int]:
    if kind == "png" and has_wrong_checksum(data):
        raise BadImage(f"{file}: damaged PNG (the checksum of its pixels is wrong)")
    if kind == "jp2" and END_OF_JP2 not in data:  # tiles would be missing without a word
        raise BadImage(f"{file}: truncated JPEG 2000 file")
    with open_lazily(data, kind, file) as (image, turn):
        image.load()
        if kind == "ppm" and image.mode == "I":  # 16 bits
            return _grey_16_to_rgb(image), turn
        return to_rgb(image, file), turn


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


EXIF = b"Exif\x00\x00"


def jpeg_exif(data: bytes) -> tuple[bytes, int, int]:
    """Return the EXIF block and the start and end of its segment; (b"", 0, 0) if there is none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # pixels begin there
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == EXIF:
            return data[at + 4 : at + 2 + length], at, at + 2 + length
        at += 2 + length
    return b"", 0, 0


def orientation(exif: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; return 1 (upright) if the block cannot be read."""
    exif = exif.removeprefix(EXIF)
    if exif[:2] not in (b"II", b"MM"):
        return 1
    order = "little" if exif[:2] == b"II" else "big"
    start = int.from_bytes(exif[4:8], order)
    count = int.from_bytes(exif[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * count, len(exif)), 12):
        if int.from_bytes(exif[at : at + 2], order) == 0x0112:
            value = int.from_bytes(exif[at + 8 : at + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def rotate(width: int, height: int, turn: int) -> tuple[int, int]:
    """Return the (width, height) of an upright image, given its EXIF orientation."""
    return (height, width) if turn >= 5 else (width, height)


def upright(rgb: np.ndarray, turn: int) -> np.ndarray:
    """Rotate or mirror an image according to its EXIF orientation."""
    if turn >= 5:
        rgb = rgb.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if turn in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)
