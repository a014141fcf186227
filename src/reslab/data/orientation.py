"""The way a camera was held: EXIF's orientation, read from a header and undone."""

import numpy as np

EXIF = b"Exif\x00\x00"


def jpeg_exif(data: bytes) -> tuple[bytes, int, int]:
    """The EXIF block, and from where to where its segment lies; empty if there is none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # pixels begin there
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == EXIF:
            return data[at + 4 : at + 2 + length], at, at + 2 + length
        at += 2 + length
    return b"", 0, 0


def orientation(exif: bytes) -> int:
    """1 to 8; 1 is upright, and what is said by a block that cannot be read."""
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


def turned(width: int, height: int, turn: int) -> tuple[int, int]:
    return (height, width) if turn >= 5 else (width, height)


def upright(rgb: np.ndarray, turn: int) -> np.ndarray:
    """The first row and column of the file are, by EXIF's table, these sides of the picture."""
    if turn >= 5:
        rgb = rgb.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if turn in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)
