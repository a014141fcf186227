"""Verify the checksums of the pixels in a PNG file; Pillow verifies those of its other chunks."""

import zlib

SIGNATURE = 8  # bytes before the first chunk


def has_wrong_checksum(data: bytes) -> bool:
    """Return whether the checksum of any chunk of pixels is wrong."""
    view, at = memoryview(data), SIGNATURE
    while at + 12 <= len(data):
        name, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):  # Pillow refuses what is truncated
            break
        stated = int.from_bytes(data[end : end + 4], "big")
        if name == b"IDAT" and zlib.crc32(view[at + 4 : end]) != stated:
            return True
        at = end + 4
    return False
