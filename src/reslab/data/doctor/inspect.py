"""What each image of a folder is: found by threads, kept as columns of a few bytes an image."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np
import simplejpeg
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from reslab.data.decode import (
    FORMATS,
    READERS,
    BadImage,
    TooLarge,
    decode_image,
    image_format,
    jpeg_exif,
    open_lazily,
    orientation,
)
from reslab.data.doctor.scan import FolderScan
from reslab.runtime.threads import map_in_order, usable_cores

BITS_PER_SAMPLE, ORIENTATION = 258, 274  # tags of a TIFF
FILES_AHEAD = 4  # files a thread that are read before their turn

# Kinds of findings. A file that does not decode has one of these; its number is its index + 1.
PROBLEMS = ("unreadable", "empty", "truncated", "corrupt", "not an image", "too large")
# A file that does may have some of these; each is a bit.
ODDITIES = ("16-bit", "CMYK", "alpha", "palette", "grey", "rotated", "animated", "wrong suffix")

FORMS = tuple(READERS)


@dataclass(frozen=True)
class ImageInfo:
    """What one file is."""

    problem: str = ""  # of PROBLEMS; "": it decodes
    reason: str = ""  # more about the problem
    width: int = 0
    height: int = 0
    pixels: bytes = bytes(16)  # equal for equal images: a digest of what the file decodes to
    looks: tuple[str, ...] = ()  # of LOOKS
    form: str = ""  # of FORMS, by its content


class ImageTable:
    """The facts of N files, some thirty bytes each."""

    def __init__(self, count: int) -> None:
        self.problems = np.zeros(count, np.uint8)
        self.looks = np.zeros(count, np.uint8)
        self.sizes = np.zeros((count, 2), np.int32)  # width, height
        self.pixels = np.zeros((count, 16), np.uint8)
        self.forms = np.zeros(count, np.uint8)
        self.reasons: dict[int, str] = {}  # of those with a problem

    def put(self, index: int, fact: ImageInfo) -> None:
        """What was found about the file of that number."""
        if fact.form:
            self.forms[index] = FORMS.index(fact.form)
        if fact.problem:
            self.problems[index] = PROBLEMS.index(fact.problem) + 1
            self.reasons[index] = fact.reason
        self.looks[index] = sum(1 << ODDITIES.index(look) for look in fact.looks)
        self.sizes[index] = fact.width, fact.height
        self.pixels[index] = np.frombuffer(fact.pixels, np.uint8)


def inspect_all(listing: FolderScan, on_progress: Callable[[None], None]) -> ImageTable:
    """Read and decode every image once, with all cores; `hear` is called after each."""
    threads = usable_cores()
    facts = ImageTable(len(listing))
    found = map_in_order(
        partial(_inspect_file, listing), range(len(listing)), threads, FILES_AHEAD * threads
    )
    for index, fact in enumerate(found):
        facts.put(index, fact)
        on_progress(None)
    return facts


def _inspect_file(listing: FolderScan, index: int) -> ImageInfo:
    part = listing.parts[listing.part_of[index]]
    file = listing.names[index]
    # what was packed may have become a JPEG without its name being changed
    return inspect(part.read, file, "" if part.packed else os.path.splitext(file)[1].lower())


def inspect(read: Callable[[str], bytes], file: str, suffix: str) -> ImageInfo:
    """Read and decode one file. `suffix` is held against its content unless it is empty."""
    try:
        data = read(file)
    except BadImage as bad:
        return ImageInfo("unreadable", str(bad).removeprefix(f"{file}: "))
    try:
        rgb = decode_image(data, file)
    except BadImage as bad:
        return ImageInfo(_problem(data, bad), str(bad).removeprefix(f"{file}: "))
    kind = image_format(data)
    assert kind, "it was decoded"
    height, width = rgb.shape[:2]
    wrong = ("wrong suffix",) if suffix and FORMATS[suffix] != kind else ()
    digest = blake2b(rgb.data, digest_size=16, salt=f"{width}x{height}".encode())
    looks = (*_oddity(data, kind, file), *wrong)
    return ImageInfo(width=width, height=height, pixels=digest.digest(), looks=looks, form=kind)


def _problem(data: bytes, bad: BadImage) -> str:
    if isinstance(bad, TooLarge):
        return "too large"
    if data.count(0) == len(data):
        return "empty"
    kind = image_format(data)
    if kind is None:
        return "not an image"
    # how much of a TIFF belongs to it, only its reader knows
    short = is_cut_short(data, kind) or (kind == "tiff" and "file is truncated" in str(bad))
    return "truncated" if short else "corrupt"


def is_cut_short(data: bytes, kind: str) -> bool:
    """Whether the end is missing that a whole file of this format has."""
    match kind:
        case "jpeg":  # the end of a thumbnail inside is not that of the image
            return data.find(b"\xff\xd9", jpeg_exif(data)[2]) < 0
        case "png":
            return b"IEND" not in data
        case "webp":
            return len(data) < 8 + int.from_bytes(data[4:8], "little")
        case "gif":
            return data.rstrip(b"\0")[-1:] != b";"
        case "bmp":
            return len(data) < int.from_bytes(data[2:6], "little")
    order = "little" if data.startswith(b"II") else "big"
    at = int.from_bytes(data[4:8], order)  # of a TIFF's directory, often the last thing in it
    return len(data) < at + 2 + 12 * int.from_bytes(data[at : at + 2], order)


def _oddity(data: bytes, kind: str, file: str) -> tuple[str, ...]:
    """What is odd about an image that decodes, from its header."""
    if kind == "jpeg":
        try:
            space = simplejpeg.decode_jpeg_header(data)[2]
        except ValueError:
            space = ""
        found = {"Gray": ("grey",), "CMYK": ("CMYK",), "YCCK": ("CMYK",)}.get(space, ())
        return found + (("rotated",) if orientation(jpeg_exif(data)[0]) > 1 else ())
    try:
        with open_lazily(data, kind, file) as (image, turn):
            looks = [_mode(data, kind, image)]
            if isinstance(image, TiffImageFile):
                turn = image.tag_v2.get(ORIENTATION, 1)
            looks += ["rotated"] if turn > 1 else []
            # Pillow gives this only to the formats that can be; a JPEG is never
            looks += ["animated"] if getattr(image, "is_animated", False) else []
    except BadImage:  # of a second frame that is damaged
        return ()
    return tuple(look for look in looks if look)


def _mode(data: bytes, kind: str, image: Image.Image) -> str:
    """The oddest thing about how the colours are kept; empty for eight bits of RGB."""
    depth = data[24] if kind == "png" else 8  # Pillow opens RGB of sixteen bits as of eight
    if isinstance(image, TiffImageFile):
        depth = max(image.tag_v2.get(BITS_PER_SAMPLE, (8,)))
    if depth == 16 or image.mode.startswith("I;16"):
        return "16-bit"
    if image.mode == "CMYK":
        return "CMYK"
    if image.has_transparency_data:
        return "alpha"
    return {"P": "palette", "L": "grey", "1": "grey"}.get(image.mode, "")
