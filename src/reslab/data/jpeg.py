"""Decode JPEG files without holding the GIL, and read their segments.

A very large image is decoded at 1/2, 1/4 or 1/8 of its size in the DCT: at 1/8, each block of
8 x 8 coefficients gives one pixel.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reslab.data.exif import EXIF, orientation

# 256 MiB as RGB, just below the size at which Pillow would warn
MAX_PIXELS = 2**28 // 3
# All coefficients of a progressive image are in memory at once, and each of its scans passes over
# all of them.
MAX_PROGRESSIVE_PIXELS = 3 * MAX_PIXELS
MAX_SCANS = 500  # programs write about ten
PIXELS_PER_BYTE = 256  # at most: a block of 64 pixels takes two bits
MAX_JPEG_SIDE = 65_500  # the maximum in libjpeg
CONTEXT = 8  # more rows than libjpeg looks at below a row to interpolate its colours
RGB_OR_GREY = ("YCbCr", "Gray", "RGB")  # the colour spaces that simplejpeg converts as Pillow does

# libjpeg's warnings about lost pixels (the last pattern: in a restart interval). Its other
# warnings leave the image complete.
DAMAGE = re.compile(
    "premature end|bad huffman|bad arithmetic|instead of rst|inconsistent progression|"
    "before marker 0xd[0-7]",
    re.I,
)
SEQUENTIAL, DRI, SOS = (0xC0, 0xC1), 0xDD, 0xDA  # markers
MAX_INTERVALS = 4096  # restart intervals with fill bytes: far more than rows of blocks


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of each segment up to the first scan's, without strays."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        marker = data[at + 1]
        if marker in (0x00, 0xFF):  # not a marker, or a fill byte before one
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, end
        if marker == SOS:
            return
        at = end


def jpeg_exif(data: bytes) -> tuple[bytes, int, int]:
    """Return the EXIF block and the start and end of its segment; (b"", 0, 0) if there is none."""
    for marker, start, end in segments(data):
        if marker == 0xE1 and data[start + 4 : start + 10] == EXIF:
            return data[start + 4 : end], start, end
    return b"", 0, 0


def jpeg_header(data: bytes) -> tuple[tuple[int, int], str] | None:
    """Return (width, height) and the colour space; None if simplejpeg cannot parse the header."""
    import simplejpeg

    for clean in (lambda: data, lambda: without_strays(data)):
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(clean())
        except ValueError:
            continue
        return (int(width), int(height)), colours
    return None


def is_sequential(data: bytes) -> bool:
    """Return whether a JPEG is sequential and Huffman-coded, so that few of its rows are kept."""
    return any(marker in SEQUENTIAL for marker, _, _ in segments(data))


def scale(data: bytes, width: int, height: int) -> int | None:
    """Return the factor, 1, 2, 4 or 8, by which an image must be reduced to be decoded.

    It is the smallest that leaves at most MAX_PIXELS, so an image up to 50 times as long as wide
    keeps a shorter side of over 600 pixels. Return None if no factor is enough. Raise ValueError if
    the file is too short for the image.
    """
    if width * height <= MAX_PIXELS:
        return 1
    sequential = is_sequential(data)
    if sequential and width * height > PIXELS_PER_BYTE * len(data):
        raise ValueError(f"truncated JPEG: {len(data):,} bytes for {width} x {height} pixels")
    if not sequential and width * height > MAX_PROGRESSIVE_PIXELS:
        return None
    return next(n for n in (2, 4, 8) if reduced(width, n) * reduced(height, n) <= MAX_PIXELS)


def reduced(side: int, factor: int) -> int:
    """Return a side of an image that is reduced by a factor."""
    return -(-side // factor)


def decode_jpeg(data: bytes, size: tuple[int, int], factor: int) -> np.ndarray | None:
    """Decode an image of (width, height) reduced by `factor`, RGB uint8 [H, W, 3].

    Return None if Pillow must decode it. Raise ValueError if pixels are lost.
    """
    if _scans(data) > MAX_SCANS:
        raise ValueError(f"a JPEG of more than {MAX_SCANS} scans")
    reasons = []
    # only the first warning is known: one about stray or fill bytes may hide a graver one
    for clean in (lambda: data, lambda: without_fill(without_strays(data))):
        try:
            return _decode(clean(), size, factor)
        except (ValueError, MemoryError) as error:
            reasons.append(str(error))
            if "extraneous bytes" not in str(error):
                break
    for reason in reversed(reasons):
        if DAMAGE.search(reason):
            raise ValueError(f"truncated or damaged JPEG ({reason})")
    return None


def _scans(data: bytes) -> int:
    """Return how often the marker of a scan occurs, seven times as fast as bytes.count."""
    values = np.frombuffer(data, np.uint8)
    return int(np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == SOS)))


def _decode(data: bytes, size: tuple[int, int], factor: int) -> np.ndarray:
    """Decode an image; raise ValueError for libjpeg's first warning or error."""
    import simplejpeg

    width, height = (reduced(side, factor) for side in size)
    # Pillow's DCT and upsampling, so that the pixels equal Pillow's
    return simplejpeg.decode_jpeg(
        data, "RGB", fastdct=False, fastupsample=False, min_width=width, min_height=height
    )


@dataclass(frozen=True)
class SequentialJpeg:
    """An ordinary JPEG, whose rows can be decoded from the top without those below.

    It is upright and sequential, has all its colours in one scan, and is not too large to be
    decoded at its full size.
    """

    data: bytes
    width: int
    height: int
    _height_at: int  # where the header states the height

    @staticmethod
    def of(data: bytes) -> "SequentialJpeg | None":
        """Return the file as an ordinary JPEG, or None if it is not one."""
        if not data.startswith(b"\xff\xd8\xff"):
            return None
        places = {marker: start for marker, start, _ in segments(data)}
        frame = next((places[marker] for marker in SEQUENTIAL if marker in places), 0)
        scan, header = places.get(SOS, 0), jpeg_header(data)
        if not frame or not scan or header is None or orientation(jpeg_exif(data)[0]) != 1:
            return None
        (width, height), colours = header
        # both state the number of their colour components
        in_one_scan = data[frame + 9 : frame + 10] == data[scan + 4 : scan + 5]
        if not in_one_scan or colours not in RGB_OR_GREY or width * height > MAX_PIXELS:
            return None
        return SequentialJpeg(data, width, height, frame + 5)

    def whole(self) -> np.ndarray:
        """Decode the image, RGB uint8 [H, W, 3]; raise ValueError for libjpeg's first warning."""
        return _decode(self.data, (self.width, self.height), 1)

    def top(self, rows: int) -> np.ndarray:
        """Decode the first `rows` rows, and perhaps a few more, without looking for damage.

        The pixels equal those of the whole image. Raise ValueError if libjpeg gives up.
        """
        import simplejpeg

        kept = rows + CONTEXT
        data = self.data
        if kept < self.height:  # libjpeg stops after the rows that the header states
            at = self._height_at
            data = data[:at] + kept.to_bytes(2, "big") + data[at + 2 :]
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=False)


def without_strays(data: bytes) -> bytes:
    """Return a JPEG without the bytes between the segments of its header, which have no meaning."""
    found = list(segments(data))
    if not found or found[-1][0] != SOS:
        return data
    header = b"".join(data[start:end] for _, start, end in found)
    return data[:2] + header + data[found[-1][2] :]


def without_fill(data: bytes) -> bytes:
    """Return a JPEG without the zero bytes that some cameras write at the end of an interval.

    One zero may belong to the pixels of a restart interval. It is kept if the interval, decoded
    alone, is incomplete without it. More of them have overwritten pixels: they are removed, too, so
    that the decoder finds the interval too short.
    """
    places = {marker: (start, end) for marker, start, end in segments(data)}
    if SOS not in places:
        return data
    start = places[SOS][1]
    parts = re.split(rb"(\xff[\xd0-\xd7])", data[start:])
    kept = [_without_zeros(part) for part in parts]
    filled = [at for at in range(0, len(parts) - 1, 2) if len(kept[at]) < len(parts[at])]
    header = _header_of_interval(data[:start], places)
    if len(filled) > MAX_INTERVALS:
        return data
    for at in filled:
        if header and not _is_complete(header + kept[at]):
            kept[at] += b"\0"
    return data[:start] + b"".join(kept[:-1]) + parts[-1]


def _without_zeros(part: bytes) -> bytes:
    kept = part.rstrip(b"\0")
    return part[: len(kept) + 1] if kept.endswith(b"\xff") else kept  # ff 00 stands for ff


def _header_of_interval(header: bytes, places: dict[int, tuple[int, int]]) -> bytes | None:
    """Return the header for one restart interval as an image; None if it cannot be one."""
    sequential = [places[marker][0] for marker in SEQUENTIAL if marker in places]
    if not sequential or DRI not in places:
        return None
    at = sequential[0]
    components = int.from_bytes(header[at + 9 : at + 10])
    factors = header[at + 11 : at + 11 + 3 * components : 3]  # across and down, 4 bits each
    if components == 1 or not factors:  # then a unit is one block
        factors = b"\x11"
    across, down = max(pair >> 4 for pair in factors), max(pair & 15 for pair in factors)
    units = int.from_bytes(header[places[DRI][0] + 4 : places[DRI][0] + 6])
    width = int.from_bytes(header[at + 7 : at + 9])
    if not (units and width and across and down):
        return None
    per_row = reduced(width, 8 * across)
    columns, rows = (per_row, units // per_row) if units % per_row == 0 else (units, 1)
    sides = rows * 8 * down, columns * 8 * across  # height and width
    if max(sides) > MAX_JPEG_SIDE:
        return None
    size = b"".join(side.to_bytes(2, "big") for side in sides)
    return header[: at + 5] + size + header[at + 9 :]


def _is_complete(image: bytes) -> bool:
    """Return whether no pixels are missing at the end of an image without its last marker."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(image + b"\xff\xd9", "GRAY", fastdct=True)
    except ValueError as error:
        return "extraneous bytes" in str(error)
    return True
