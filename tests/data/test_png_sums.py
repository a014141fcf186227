"""A damaged PNG is refused, because the checksum of a chunk is wrong."""

import io

import numpy as np
import pytest
from PIL import Image

from reslab.data.decode import BadImage, load_image
from reslab.data.png_sums import has_wrong_checksum

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def modes() -> dict[str, bytes]:
    rgb = Image.fromarray(PIXELS)
    return {
        "rgb": png(rgb),
        "palette": png(rgb.convert("P"), transparency=3),
        "comment": png(rgb, dpi=(72, 72)),
    }


def as_read(data: bytes) -> bytes | None:
    try:
        return load_image(data, "a.png").tobytes()
    except BadImage:
        return None


@pytest.mark.parametrize("name", modes())
def test_no_byte_that_differs_changes_the_pixels(name: str) -> None:
    data = modes()[name]
    whole = as_read(data)
    assert whole is not None
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        assert as_read(changed) in (whole, None), at


def test_damaged_pixels_are_named() -> None:
    data = modes()["rgb"]
    assert not has_wrong_checksum(data)
    at = data.index(b"IDAT") + 40
    with pytest.raises(
        BadImage, match=r"a\.png: damaged PNG \(the checksum of its pixels is wrong\)"
    ):
        load_image(data[:at] + b"\0\1\2\3" + data[at + 4 :], "a.png")


@pytest.mark.parametrize("end", [0, 7, 8, 20, 33, 60])
def test_truncated_files_have_no_wrong_checksum(end: int) -> None:
    assert not has_wrong_checksum(modes()["rgb"][:end])
    assert as_read(modes()["rgb"][:end]) is None
