"""libtiff prints nothing while a damaged TIFF is decoded, and prints again afterwards."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from reslab.data.decode import BadImage, load_image
from reslab.data.libtiff import _setters, quiet_libtiff

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)


def tiff(compression: str, damage: int) -> bytes:
    """Return a TIFF with a byte changed `damage` bytes after its beginning."""
    out = io.BytesIO()
    image = Image.fromarray(PIXELS).convert("1" if compression == "group4" else "RGB")
    image.save(out, "TIFF", compression=compression)
    data = bytearray(out.getvalue())
    data[damage] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_lzw", "jpeg", "group4"])
def test_damaged_files_are_refused_or_read_without_a_word(
    capfd: pytest.CaptureFixture[str], compression: str
) -> None:
    refused = 0
    for damage in (2, 5, *range(10, 200, 19)):
        try:
            load_image(tiff(compression, damage), "a.tif")
        except BadImage:
            refused += 1
    assert refused
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not _setters(), reason="Pillow's libtiff is not found")
def test_libtiff_prints_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    data = tiff("tiff_adobe_deflate", 100)
    with quiet_libtiff():
        os.write(2, b"others print\n")
    assert capfd.readouterr().err == "others print\n"
    with pytest.raises(OSError, match="decoder"):
        Image.open(io.BytesIO(data)).load()
    assert "ZIPDecode" in capfd.readouterr().err
