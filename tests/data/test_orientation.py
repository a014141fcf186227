import struct

import numpy as np
import pytest

from reslab.data.decode import jpeg_exif, orientation, rotate, upright

STORED = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, 2)  # 0 1 2 / 3 4 5
UPRIGHT = {  # EXIF 2.3, tag 0x0112: where the stored first row and first column belong
    1: [[0, 1, 2], [3, 4, 5]],  # top, left
    2: [[2, 1, 0], [5, 4, 3]],  # top, right
    3: [[5, 4, 3], [2, 1, 0]],  # bottom, right
    4: [[3, 4, 5], [0, 1, 2]],  # bottom, left
    5: [[0, 3], [1, 4], [2, 5]],  # left, top
    6: [[3, 0], [4, 1], [5, 2]],  # right, top
    7: [[5, 2], [4, 1], [3, 0]],  # right, bottom
    8: [[2, 5], [1, 4], [0, 3]],  # left, bottom
}


def exif(order: str, value: int, tag: int = 0x0112) -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    other = struct.pack(f"{order}HHII", 0x010F, 2, 4, 0)
    entry = struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    return head + struct.pack(f"{order}IH", 8, 2) + other + entry + bytes(4)


@pytest.mark.parametrize(("turn", "expected"), UPRIGHT.items())
def test_each_orientation_by_hand(turn: int, expected: list[list[int]]) -> None:
    rgb = upright(STORED, turn)
    assert rgb[..., 0].tolist() == expected
    assert rgb.flags.c_contiguous
    assert rotate(3, 2, turn) == (len(expected[0]), len(expected))


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_in_both_byte_orders(order: str) -> None:
    for value in range(1, 9):
        assert orientation(exif(order, value)) == value
        assert orientation(b"Exif\0\0" + exif(order, value)) == value


def test_what_cannot_be_read_is_upright() -> None:
    block = exif("<", 6)
    assert orientation(exif("<", 9)) == orientation(exif("<", 0)) == 1
    assert orientation(exif("<", 6, tag=0x0113)) == 1
    assert orientation(b"") == orientation(b"what") == 1
    for end in range(len(block) - 7):  # the value is cut off, or all of it
        assert orientation(block[:end]) in (1, 6)
    for where in range(4, 8):  # a directory beyond the end
        assert orientation(block[:where] + b"\xff" + block[where + 1 :]) == 1


def test_the_exif_segment_is_found_among_others() -> None:
    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    before = b"\xff\xd8" + segment(0xE0, b"JFIF") + segment(0xE1, b"http://ns.adobe.com/xap/1.0/")
    own = segment(0xE1, b"Exif\0\0" + exif(">", 8))
    scan = segment(0xDA, b"") + b"pixels"
    block, start, end = jpeg_exif(before + own + scan)
    assert block == b"Exif\0\0" + exif(">", 8)
    assert (start, end) == (len(before), len(before) + len(own))
    assert jpeg_exif(before + scan + own)[0] == b""  # after the pixels begin none is looked for
    assert jpeg_exif(before) == (b"", 0, 0)
