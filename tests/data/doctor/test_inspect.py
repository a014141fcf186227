"""Describe a file by its bytes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.doctor.spoilt_folders import SIZE, check, encoded, image, plant

from reslab.data.doctor.inspect import (
    inspect,
    is_cut_short,
)

FORMATS_CUT = (
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}),
    ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}),
)  # fmt: skip


@pytest.mark.parametrize(("form", "options"), FORMATS_CUT)
def test_a_file_cut_off_anywhere_is_truncated(form: str, options: dict) -> None:
    data = encoded(image(3, 40, 50), form, **options)
    suffix = f".{form.lower()}"
    assert inspect(lambda file: data, f"a{suffix}").problem == ""
    assert not is_cut_short(data, form.lower())
    problems = {
        inspect(lambda file, at=at: data[:at], f"a{suffix}").problem
        for at in range(20, len(data), 97)
    }
    assert problems == {"truncated"}


def test_a_tiff_can_be_rotated_and_have_16_bits(tmp_path: Path) -> None:
    plant(tmp_path)
    deep = Image.fromarray(np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 200)
    deep.save(tmp_path / "cat/deep.tif")
    image(5).save(tmp_path / "cat/turned.tif", tiffinfo={274: 8})
    assert check(tmp_path) == {"16-bit": [("cat/deep.tif",)], "rotated": [("cat/turned.tif",)]}
