"""Images in arrays: the layout by the shape, the scale by the values, each pixel as it was."""

from pathlib import Path

import numpy as np
import pytest

from reslab.data.array_sets.files import stored_arrays
from reslab.data.array_sets.images import ArrayReader, ImageArray, checksums, open_images
from reslab.data.decode import BadImage, load_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 6, 7, 3), np.uint8)
GREY = RGB[..., 0]


def opened(tmp_path: Path, values: np.ndarray, member: bool = False) -> tuple[ImageArray, str]:
    file = tmp_path / ("x.npz" if member else "x.npy")
    np.savez(file, x=values) if member else np.save(file, values)
    (stored,), _ = stored_arrays(file, [file])
    return open_images(stored)


def refusal(tmp_path: Path, values: np.ndarray) -> str:
    with pytest.raises(ValueError, match=str(tmp_path / "x.npy")) as error:
        opened(tmp_path, values)
    return str(error.value)


@pytest.mark.parametrize("member", [False, True])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RGB, RGB),
        (RGB.transpose(0, 3, 1, 2), RGB),
        (np.asfortranarray(RGB), RGB),
        (GREY, GREY),
        (GREY[..., None], GREY),
        (GREY[:, None], GREY),
        (RGB.astype(np.int64), RGB),
        (RGB.astype(">u2"), RGB),
        (RGB.astype(np.float32), RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float32), RGB),
        ((RGB / 255 * 1.0005 - 0.0002).clip(-0.001, 1.001), RGB),
        (GREY > 99, (GREY > 99) * np.uint8(255)),
    ],
)
def test_images_keep_their_pixels(
    tmp_path: Path, values: np.ndarray, expected: np.ndarray, member: bool
) -> None:
    images, note = opened(tmp_path, values, member)
    assert bool(note) == (values.dtype != np.uint8)
    read = ArrayReader({"x": images})
    for index, pixels in enumerate(expected):
        assert np.array_equal(images.image(index), pixels)
        rgb = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, 2)
        assert np.array_equal(load_image(read(f"x[{index}]"), ""), rgb)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (RNG.normal(size=(5, 6, 7, 3)), "undo the normalisation"),
        (RGB / 127.5 - 1, r"save (images + 1) / 2"),
        (RGB / 255 * 16, "values from 0 to 16: images must be uint8 from 0 to 255"),
        ((RGB % 17).astype(np.uint8), "if 16 is white"),
        (RGB.astype(np.uint16) * 257, "values from 0 to 65"),
        (np.zeros_like(RGB), "all black"),
        (RGB.astype(np.complex64), "neither numbers nor text"),
        (np.full((2, 8, 8), "a"), "images are numbers"),
        (RGB[..., [0, 1, 2, 2]], "an alpha channel is not read"),
        (RGB[..., :2], "has the shape [5, 6, 7, 2]"),
        (RGB[:, :3], "channels may be first or last"),
        (RGB[0], "has the shape [6, 7, 3]"),
        (GREY.reshape(5, 42), "flattened images or features"),
        (np.ones((9, 784), np.uint8), "reshape(-1, 28, 28)"),
        (RGB[:0], "it is empty"),
        (RGB[None], "has the shape [1, 5, 6, 7, 3]"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    assert reason in refusal(tmp_path, values)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_image_with_nan_is_named(tmp_path: Path, value: float) -> None:
    values = RGB / 255
    values[3, 1, 1, 1] = value
    assert "x[3] has NaN or inf" in refusal(tmp_path, values)


def test_a_file_cut_after_it_was_opened_gives_bad_images(tmp_path: Path) -> None:
    images, _ = opened(tmp_path, RGB)
    read = ArrayReader({"x": images})
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate((tmp_path / "x.npy").stat().st_size - 1)
    assert len(read("x[0]")) == len("P6\n7 6\n255\n") + 6 * 7 * 3
    with pytest.raises(BadImage, match=r"x\[4\]: cannot be read \(the file is truncated\)"):
        read("x[4]")
    assert checksums(read, ["x[4]", "x[3]"]).tolist()[0] == -1


def test_checksums_change_with_the_image_alone(tmp_path: Path) -> None:
    names = [f"x[{index}]" for index in range(5)]
    before = checksums(ArrayReader({"x": opened(tmp_path, RGB)[0]}), names)
    changed = RGB.copy()
    changed[2, 0, 0, 0] ^= 1
    after = checksums(ArrayReader({"x": opened(tmp_path, changed)[0]}), names)
    assert (before == after).tolist() == [True, True, False, True, True]
