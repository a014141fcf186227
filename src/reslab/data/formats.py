"""The formats of images, by signature and by suffix, and what other files are."""

import os
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    DdsImagePlugin,
    GifImagePlugin,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    QoiImagePlugin,
    SgiImagePlugin,
    SunImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

# Left to their own programs: icons and drafts, which may lie beside the photographs they belong to
# (ICO, ICNS, PSD), formats that other programs must draw (EPS, PDF, WMF), and values without a
# black and a white (FITS, PFM).
SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo", ".jps"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "gif": (".gif",),
    "bmp": (".bmp", ".dib"),
    "tiff": (".tif", ".tiff"),
    "ppm": (".ppm", ".pgm", ".pbm", ".pnm"),
    "avif": (".avif", ".avifs"),
    "jp2": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    "tga": (".tga", ".icb", ".vda", ".vst"),
    "qoi": (".qoi",),
    "sgi": (".sgi", ".rgb", ".rgba", ".bw"),
    "sun": (".ras",),
    "dds": (".dds",),
}
READ_HEIC = "`pip install 'reslab[heic]'`"
HEIC_SUFFIXES = (".heic", ".heif", ".hif", ".heics", ".heifs")

# images and films that are not read: a folder of them is meant to be a class
UNREAD_SUFFIXES = (
    *HEIC_SUFFIXES, ".jxl", ".psd", ".exr", ".hdr", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw",
    ".orf", ".rw2", ".raf", ".pef", ".srw", ".dcm", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v",
    ".mpg", ".mpeg", ".wmv",
)  # fmt: skip


def formats_by_suffix(reads_heic: bool) -> dict[str, str]:
    """Return the format that each suffix of an image stands for."""
    listed = {**SUFFIXES, "heic": HEIC_SUFFIXES} if reads_heic else SUFFIXES
    return {suffix: kind for kind, suffixes in listed.items() for suffix in suffixes}


FORMATS = formats_by_suffix(reads_heic=find_spec("pillow_heif") is not None)
IMAGE_SUFFIXES = tuple(FORMATS)


def way_to_read(suffix: str) -> str:
    """Return how to use files of a kind that is not read, as the end of a message."""
    if suffix.lower() in HEIC_SUFFIXES and suffix.lower() not in FORMATS:
        return f"{READ_HEIC} reads HEIC, or save them as JPEG"
    return "save them as JPEG or PNG"


# Image.open would try every plugin, and warn about large images before we refuse them
READERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
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
    "qoi": QoiImagePlugin.QoiImageFile,
    "sgi": SgiImagePlugin.SgiImageFile,
    "sun": SunImagePlugin.SunImageFile,
    "dds": DdsImagePlugin.DdsImageFile,
}
SIGNATURES = (
    ("jpeg", rb"\xff\xd8\xff"),
    ("png", rb"\x89PNG\r\n\x1a\n"),
    ("webp", rb"RIFF....WEBP"),
    ("gif", rb"GIF8[79]a"),
    ("bmp", rb"BM"),
    ("tiff", rb"II[*+]\0|MM\0[*+]"),
    ("ppm", rb"P[1-6]\s"),
    ("avif", rb"....ftypavi[fs]|....ftypm[is]f1.{4,40}avi[fs]"),
    ("heic", rb"....ftyp(hei[cxms]|hev[cxms]|m[is]f1)"),
    ("jp2", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("qoi", rb"qoif"),
    ("sgi", rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"),
    ("sun", rb"\x59\xa6\x6a\x95"),
    ("dds", rb"DDS \x7c\0\0\0"),
)
# bits per pixel of palettes, colours and grey, each also run-length encoded
TGA_BITS = {
    1: (8,), 2: (15, 16, 24, 32), 3: (8, 16), 9: (8,), 10: (15, 16, 24, 32), 11: (8, 16)
}  # fmt: skip
TGA_FOOTER = b"TRUEVISION-XFILE.\0"

# other files that are found under an image's name, or are meant to be images
OTHERS = (
    ("a web page or SVG", rb"(\xef\xbb\xbf)?\s*<"),
    ("a pointer of Git LFS (`git lfs pull` downloads the image)", rb"version https://git-lfs"),
    ("a raw photograph of a camera", rb"....ftypcrx|FUJIFILMCCD-RAW|IIU\0|II\x1a\0\0\0HEAPCCDR"),
    ("a video", rb"....(ftyp|moov|mdat)|RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xba\xb3]|0&\xb2u"),
    ("a PDF document", rb"%PDF"),
    ("a PostScript document", rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("a Photoshop document", rb"8BPS"),
    ("an icon", rb"\0\0\x01\0[\x01-\x20]\0|icns"),
    ("a JPEG XL image", rb"\xff\x0a|\0\0\0\x0cJXL "),
    ("an OpenEXR image", rb"v/1\x01"),
    ("a Radiance HDR image", rb"#\?R"),
    ("a PCX image", rb"\n[\0-\x05]\x01[\x01-\x08]"),
    ("a GIMP document", rb"gimp xcf"),
    ("a DICOM file", rb".{128}DICM"),
    ("a FITS file", rb"SIMPLE  ="),
    ("a NumPy array", rb"\x93NUMPY"),
    ("an HDF5 or MATLAB file", rb"\x89HDF|MATLAB"),
    ("an archive", rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|.{257}ustar"),
)
ENOUGH = 64  # bytes of a file that are enough for the signatures


def image_format(data: bytes, file: str = "") -> str | None:
    """Return the format of an image by its signature, a key of READERS or "heic"; else None.

    The name, `file`, decides about an old TGA only, which has no signature.
    """
    head = data[:ENOUGH]
    for kind, pattern in SIGNATURES:
        if re.match(pattern, head, re.DOTALL):
            return kind
    is_tga = data.endswith(TGA_FOOTER) or (
        os.path.splitext(file)[1].lower() in SUFFIXES["tga"] and is_old_tga(data)
    )
    return "tga" if is_tga else None


def is_old_tga(data: bytes) -> bool:
    """Return whether a file begins with the header of a TGA that Pillow decodes."""
    if len(data) < 18:
        return False
    has_map, kind, map_bits, bits, flags = data[1], data[2], data[7], data[16], data[17]
    has_pixels = any(data[12:14]) and any(data[14:16])
    has_depth = bits in TGA_BITS.get(kind, ()) and (not has_map or map_bits in (15, 16, 24, 32))
    return has_map <= 1 and has_depth and has_pixels and not flags & 0xC0  # reserved bits


def other_kind(data: bytes) -> str | None:
    """Return what a file that is not an image is, in words; None if unknown."""
    for kind, pattern in OTHERS:
        if re.match(pattern, data[:4096], re.DOTALL | re.IGNORECASE):
            return kind
    return None


def heic_reader() -> Callable[[BytesIO], ImageFile.ImageFile] | None:
    """Return pillow-heif's reader of HEIC images; None if it is not installed."""
    try:
        return import_module("pillow_heif").HeifImageFile
    except ImportError:
        return None


def is_read(kind: str) -> bool:
    """Return whether images of a format can be decoded: HEIC only with its extra."""
    return kind != "heic" or heic_reader() is not None
