"""Crops equal those of the whole image, whether or not its lower rows are decoded."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.augment import ResizedCrop, ScaleCrop
from reslab.data.crop_reader import CropReader
from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage, load_image
from reslab.data.jpeg import SequentialJpeg
from reslab.data.resize import resized_crop

SMALL = ScaleCrop(size=16, shorter_side=(18, 40))
TOP, BOTTOM = [0.9, 0.5, 0.0, 0.1], [0.9, 0.5, 0.99, 0.9]  # of the image, at a large scale


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def photograph(width: int = 60, height: int = 90) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def a_set(files: dict[str, bytes]) -> EncodedImages:
    labels = torch.zeros(len(files), dtype=torch.int64)
    return EncodedImages("train", list(files), labels, ("a",), ("a",), files.__getitem__)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 8
    return exif


KINDS = {
    "ordinary": encoded(photograph()),
    "grey": encoded(photograph().convert("L")),
    "progressive": encoded(photograph(), progressive=True),
    "turned": encoded(photograph(), exif=turned()),
    "CMYK": encoded(photograph().convert("CMYK")),
    "PNG": encoded(photograph(), "PNG"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("augmentation", [SMALL, ResizedCrop(size=16)], ids=str)
def test_later_crops_equal_those_of_the_whole_image(
    kind: str, augmentation: ScaleCrop | ResizedCrop
) -> None:
    read = CropReader(a_set({kind: KINDS[kind]}), augmentation)
    image = load_image(KINDS[kind], kind)
    rng = np.random.default_rng(1)
    for _ in range(12):
        draws = rng.random(augmentation.draws).tolist()
        box, flip = augmentation.crop(image.shape[1], image.shape[0], draws)
        assert np.array_equal(read(0, draws), resized_crop(image, box, (16, 16), flip))


def test_the_rows_below_are_left_out_from_the_second_time_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[int] = []
    top = SequentialJpeg.top
    monkeypatch.setattr(
        SequentialJpeg, "top", lambda jpeg, count: rows.append(count) or top(jpeg, count)
    )
    read = CropReader(a_set({"x": KINDS["ordinary"], "y": KINDS["ordinary"]}), SMALL)
    read(0, TOP)
    read(1, TOP)
    assert rows == []
    read(1, TOP)
    read(0, BOTTOM)
    assert rows[0] < 45
    assert rows[1] == 90


def test_damage_below_the_crop_is_found_at_once() -> None:
    whole = KINDS["ordinary"]
    read = CropReader(a_set({"x": whole[: len(whole) * 3 // 4]}), SMALL)
    for _ in range(2):
        with pytest.raises(BadImage, match="x: truncated or damaged JPEG"):
            read(0, TOP)


def test_harmless_bytes_are_read_as_by_load_image() -> None:
    """libjpeg warns of the bytes, so that the file is decoded whole each time."""
    at = KINDS["ordinary"].index(b"\xff\xdb")
    data = KINDS["ordinary"][:at] + b"stray" + KINDS["ordinary"][at:]
    read = CropReader(a_set({"x": data}), SMALL)
    clean = CropReader(a_set({"x": KINDS["ordinary"]}), SMALL)
    for _ in range(2):
        assert np.array_equal(read(0, TOP), clean(0, TOP))
    assert not read.intact[0]


def test_a_file_that_becomes_another_is_read_anew() -> None:
    files = {"x": KINDS["ordinary"]}
    read = CropReader(a_set(files), SMALL)
    read(0, TOP)
    files["x"] = b"no image"
    with pytest.raises(BadImage, match="x: not an image"):
        read(0, TOP)
    other = photograph(33, 44)
    files["x"] = encoded(other, "PNG")
    box, flip = SMALL.crop(33, 44, BOTTOM)
    assert np.array_equal(read(0, BOTTOM), resized_crop(np.asarray(other), box, (16, 16), flip))
