"""HEIC images are read where pillow-heif is installed."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.data.decode import BadImage, image_size, load_image
from reslab.data.doctor.inspect import inspect
from reslab.data.folder import open_whole_folder

pillow_heif = pytest.importorskip("pillow_heif")

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)).resize(
    (64, 48), Image.Resampling.BICUBIC
)


def heic(image: Image.Image = SMOOTH, turn: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=95, exif=exif.tobytes())
    return out.getvalue()


def test_pixels_are_those_that_were_saved() -> None:
    rgb = load_image(heic(), "x")
    assert np.abs(rgb.astype(int) - np.asarray(SMOOTH)).mean() < 4  # a lossy format
    assert (rgb.flags.c_contiguous, rgb.dtype) == (True, np.uint8)


def test_an_image_is_rotated_once() -> None:
    upright = np.asarray(SMOOTH.transpose(Image.Transpose.ROTATE_270)).astype(int)
    data = heic(turn=6)
    assert np.abs(load_image(data, "x") - upright).mean() < 4
    assert image_size(data, "x") == (48, 64)


def test_transparent_pixels_become_white() -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert load_image(heic(clear), "x").min() > 250


def test_a_damaged_file_is_corrupt_and_named() -> None:
    data = heic()
    for end in range(20, len(data) - 1, 97):
        with pytest.raises(BadImage, match=r"\Ax\.heic: cannot be read as HEIC \("):
            load_image(data[:end], "x.heic")
    info = inspect(lambda file: data[:200], "x.heic")
    assert info.problem == "corrupt"


def test_a_folder_of_heic_images_is_a_class(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.HEIC").write_bytes(heic())
    images = open_whole_folder(tmp_path)
    assert len(images) == 4
    assert images.image(0).shape == (48, 64, 3)
    info = inspect(images.read, images.files[0])
    assert (info.problem, info.width, info.height, info.format) == ("", 64, 48, "heic")
