from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tests.field.small_images import image, images

from reslab.data.datasets import EncodedImages
from reslab.data.folder import open_whole_folder
from reslab.data.small_images import common_side, decode_all, side_of_images
from reslab.runtime import memory


def opened(folder: Path) -> EncodedImages:
    images(folder / "a", 3)
    images(folder / "b", 3)
    return open_whole_folder(folder)


def fail(reasons: Mapping[int, str]) -> None:
    assert not reasons


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(28, 28)] * 3, 28),
        ([(64, 64)], 64),
        ([(65, 65)], None),
        ([(28, 32)], None),
        ([(28, 28), (32, 32)], None),
        ([], None),
    ],
)
def test_the_common_side_of_small_squares(sizes: list[tuple[int, int]], side: int | None) -> None:
    assert common_side(sizes) == side


def test_images_are_decoded_in_order(tmp_path: Path) -> None:
    encoded = opened(tmp_path)
    assert side_of_images(encoded, "net") == 8
    decoded = decode_all(encoded, 8, "net", fail)
    assert decoded.labels.tolist() == encoded.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for row in range(6):
        pixels = torch.tensor(encoded.image(row)).permute(2, 0, 1)
        assert torch.equal(decoded.images[row], pixels)


def test_a_bad_image_is_replaced_within_its_class_and_reported(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "a" / "0.png").write_bytes(b"not an image")
    encoded = open_whole_folder(tmp_path)
    assert side_of_images(encoded, "net") == 8
    reported: dict[int, str] = {}
    decoded = decode_all(encoded, 8, "net", reported.update)
    assert torch.equal(decoded.images[0], decoded.images[1])
    assert list(reported) == [0]
    assert "a/0.png" in reported[0]


@pytest.mark.parametrize(("width", "height"), [(9, 8), (8, 9), (16, 16)])
def test_an_image_of_another_size_is_refused_by_name(
    tmp_path: Path, width: int, height: int
) -> None:
    opened(tmp_path)
    image(tmp_path / "b" / "1.png", width, height)
    refusal = rf"b/1\.png is {width} x {height} pixels, but net needs images of one size, 8 x 8"
    with pytest.raises(ValueError, match=refusal):
        decode_all(open_whole_folder(tmp_path), 8, "net", fail)


@pytest.mark.parametrize(("width", "height"), [(9, 8), (65, 65)])
def test_only_small_squares_have_a_side(tmp_path: Path, width: int, height: int) -> None:
    opened(tmp_path)
    image(tmp_path / "a" / "0.png", width, height)
    with pytest.raises(ValueError, match=rf"{width} x {height} pixels: net needs squares.*own-res"):
        side_of_images(open_whole_folder(tmp_path), "net")


def test_a_set_that_does_not_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = opened(tmp_path)
    monkeypatch.setattr(memory, "free_memory", lambda: 3 * 6 * 64 - 1)
    with pytest.raises(ValueError, match=r"the set of 6 images needs .* of memory"):
        decode_all(encoded, 8, "net", fail)
    monkeypatch.setattr(memory, "free_memory", lambda: 3 * 6 * 64)
    assert len(decode_all(encoded, 8, "net", fail)) == 6
