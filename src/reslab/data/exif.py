"""The orientation of an image according to its EXIF block."""

import numpy as np

EXIF = b"Exif\x00\x00"


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
