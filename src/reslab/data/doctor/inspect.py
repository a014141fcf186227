"""Read and decode every image in a folder once, in threads, and describe each file."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from reslab.data.boxes.annotations import Annotations
from reslab.data.class_folders import FolderReader
from reslab.data.decode import BadImage, TooLarge, load_scaled, open_lazily
from reslab.data.doctor.scan import FolderScan
from reslab.data.exif import orientation
from reslab.data.formats import FORMATS, image_format, is_read
from reslab.data.jpeg import jpeg_exif, jpeg_header
from reslab.runtime.threads import map_in_order, usable_cores

BITS_PER_SAMPLE, ORIENTATION = 258, 274  # tags of a TIFF
READ_AHEAD = 4  # files read ahead per thread

# formats whose length is known only when they are decoded
DECODED_TO_THE_END = ("tiff", "ppm", "tga", "qoi", "sgi", "sun", "dds")

# The kinds of findings for files that cannot be decoded; each file has exactly one.
PROBLEMS = ("unreadable", "empty", "truncated", "corrupt", "HEIC", "not an image", "too large")
# The kinds of findings for files that can be decoded; a file may have several.
ODDITIES = ("16-bit", "CMYK", "alpha", "palette", "grey", "rotated", "animated", "wrong suffix")


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The properties of one image file."""

    problem: str = ""  # one of PROBLEMS; "" if the file can be decoded
    reason: str = ""  # details of the problem
    width: int = 0
    height: int = 0
    digest: int = 0  # of the decoded pixels
    oddities: tuple[str, ...] = ()  # some of ODDITIES
    format: str = ""  # by the signature
    turn: int = 1  # the EXIF orientation, 1 to 8; 1 is upright


def inspect_all(scan: FolderScan, on_progress: Callable[[None], None]) -> list[list[ImageInfo]]:
    """Read and decode every image in every split once; `on_progress` is called after each."""
    return [
        # packing may have re-encoded an image as JPEG and kept its name
        inspect_files(part.images.read, part.images.files, on_progress, named=not part.packed)
        for part in scan.parts
    ]


def inspect_annotated(
    parts: Iterable[Annotations], on_progress: Callable[[None], None]
) -> list[list[ImageInfo]]:
    """Read and decode every annotated image in every split; `on_progress` is called after each."""
    return [inspect_files(FolderReader(str(part.root)), part.files, on_progress) for part in parts]


def inspect_files(
    read: Callable[[str], bytes],
    files: Sequence[str],
    on_progress: Callable[[None], None],
    *,
    named: bool = True,
) -> list[ImageInfo]:
    """Read and decode files on all cores; `on_progress` is called after each.

    With `named`, a suffix that does not match the format is an oddity.
    """
    threads = usable_cores()
    infos = []
    inspect_file = partial(inspect, read, named=named)
    for info in map_in_order(inspect_file, files, threads, READ_AHEAD * threads):
        infos.append(info)
        on_progress(None)
    return infos


def inspect(read: Callable[[str], bytes], file: str, *, named: bool = True) -> ImageInfo:
    """Read and decode one file; with `named`, a suffix of another format is an oddity."""
    try:
        data = read(file)
    except BadImage as bad:
        return ImageInfo("unreadable", str(bad).removeprefix(f"{file}: "))
    except ValueError:
        return ImageInfo("unreadable", "an invalid file name")
    try:
        image = load_scaled(data, file)
    except BadImage as bad:
        return ImageInfo(_problem(data, file, bad), str(bad).removeprefix(f"{file}: "))
    kind = image_format(data, file)
    assert kind, "load_image has recognised the format"
    suffix = os.path.splitext(file)[1].lower()
    wrong = ("wrong suffix",) if named and FORMATS.get(suffix, kind) != kind else ()
    oddities, turn = _oddities(data, kind, file)
    size = f"{image.width}x{image.height}".encode()
    digest = blake2b(image.pixels.data, digest_size=16, salt=size).digest()
    return ImageInfo(
        width=image.width,
        height=image.height,
        digest=int.from_bytes(digest, "little"),
        oddities=(*oddities, *wrong),
        format=kind,
        turn=turn,
    )


def _problem(data: bytes, file: str, bad: BadImage) -> str:
    if isinstance(bad, TooLarge):
        return "too large"
    if data.count(0) == len(data):
        return "empty"
    kind = image_format(data, file)
    if kind is None:
        return "not an image"
    if not is_read(kind):
        return "HEIC"
    unknown = kind in DECODED_TO_THE_END and re.search("truncated|not enough", str(bad))
    short = is_cut_short(data, kind) or unknown
    return "truncated" if short else "corrupt"


def is_cut_short(data: bytes, kind: str) -> bool:
    """Return whether a file of this format is truncated."""
    match kind:
        case "jpeg":  # a thumbnail in the EXIF block has its own end marker
            return data.find(b"\xff\xd9", jpeg_exif(data)[2]) < 0
        case "png":
            return b"IEND" not in data
        case "webp":
            return len(data) < 8 + int.from_bytes(data[4:8], "little")
        case "gif":
            return data.rstrip(b"\0")[-1:] != b";"
        case "bmp":
            return len(data) < int.from_bytes(data[2:6], "little")
    if kind != "tiff":  # the length is not in the header
        return False
    order = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)  # of a TIFF's directory, which is often last
    return len(data) < start + 2 + 12 * int.from_bytes(data[start : start + 2], order)


def _oddities(data: bytes, kind: str, file: str) -> tuple[tuple[str, ...], int]:
    """Return the oddities and the EXIF orientation of an image that can be decoded."""
    if kind == "jpeg":
        header = jpeg_header(data)
        space = header[1] if header else ""
        colours = {"Gray": ("grey",), "CMYK": ("CMYK",), "YCCK": ("CMYK",)}.get(space, ())
        turn = orientation(jpeg_exif(data)[0])
        return colours + (("rotated",) if turn > 1 else ()), turn
    try:
        with open_lazily(data, kind, file) as (image, turn):
            oddities = [_mode(data, kind, image)]
            if isinstance(image, TiffImageFile):
                turn = image.tag_v2.get(ORIENTATION, 1)
            oddities += ["rotated"] if turn > 1 else []
            # only formats that can be animated have this attribute
            oddities += ["animated"] if getattr(image, "is_animated", False) else []
    except BadImage:  # a second frame is damaged
        return (), 1
    return tuple(oddity for oddity in oddities if oddity), turn


def _mode(data: bytes, kind: str, image: Image.Image) -> str:
    """Return the oddity of an image's colours, or "" for 8-bit RGB."""
    depth = data[24] if kind == "png" else 8  # Pillow opens 16-bit RGB as 8-bit
    if isinstance(image, TiffImageFile):
        depth = max(image.tag_v2.get(BITS_PER_SAMPLE, (8,)))
    if depth == 16 or image.mode.startswith("I"):
        return "16-bit"
    if image.mode == "CMYK":
        return "CMYK"
    if image.has_transparency_data:
        return "alpha"
    return {"P": "palette", "L": "grey", "1": "grey"}.get(image.mode, "")
