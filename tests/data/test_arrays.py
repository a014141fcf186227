"""Sets from arrays: layouts, copies, refusals."""

from typing import Any

import numpy as np
import pytest
import torch

from reslab.data.arrays import image_set

GREY = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
LABELS, CLASSES = [1, 0], ("a", "b")


@pytest.mark.parametrize("images", [GREY, GREY[..., None], torch.from_numpy(GREY)])
def test_grey_is_repeated_into_three_equal_channels(images: Any) -> None:
    made = image_set(images, LABELS, CLASSES)
    assert (made.name, made.classes, len(made)) == ("own", CLASSES, 2)
    assert made.images.shape == (2, 3, 3, 3)
    assert made.images.is_contiguous()
    for channel in range(3):
        assert np.array_equal(made.images[:, channel].numpy(), GREY)
    assert made.labels.tolist() == LABELS
    assert made.labels.dtype == torch.int64


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_rgb_channels_move_to_the_front(convert: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    made = image_set(convert(images), np.array([0, 1, 2, 1], dtype=np.uint8), list("abc"), "rgb")
    assert made.name == "rgb"
    assert np.array_equal(made.images.numpy(), images.transpose(0, 3, 1, 2))
    assert made.labels.tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3, 3, 3)])
def test_the_memory_of_the_arrays_is_not_shared(shape: tuple[int, ...]) -> None:
    images, labels = np.zeros(shape, np.uint8), torch.tensor(LABELS)
    made = image_set(images, labels, CLASSES)
    images[:], labels[:] = 9, 0
    assert not made.images.any()
    assert made.labels.tolist() == LABELS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"images": GREY.astype(np.float32)},
            "images are float32: they must be uint8, from 0 to 255",
        ),
        ({"images": GREY[0]}, r"images have the shape \[3, 3\]: it must be \[N, H, H\]"),
        ({"images": GREY[..., None, None]}, r"the shape \[2, 3, 3, 1, 1\]: it must be \[N, H, H\]"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, r"\[2, 3, 8, 8\].*channels to the end"),
        ({"images": GREY[:, :2]}, r"the shape \[2, 2, 3\]: .* all square"),
        ({"images": GREY[:0], "labels": []}, r"the shape \[0, 3, 3\]: give at least one"),
        ({"labels": [1]}, r"labels have the shape \[1\], not \[2\]"),
        ({"labels": [[1], [0]]}, r"labels have the shape \[2, 1\], not \[2\]"),
        ({"labels": [0.0, 1.0]}, "labels are float32: they must be integers"),
        ({"labels": [True, False]}, "labels are bool: they must be integers"),
        ({"labels": [1, 2]}, "image 1 has the label 2: with 2 classes, labels go from 0 to 1"),
        ({"labels": [-1, 1]}, "image 0 has the label -1: with 2 classes"),
        ({"classes": "ab"}, "a list of different names"),
        ({"classes": ("a", "a")}, "a list of different names"),
    ],
)
def test_other_arrays_are_refused(changes: dict[str, Any], reason: str) -> None:
    arguments: dict[str, Any] = {"images": GREY, "labels": LABELS, "classes": CLASSES} | changes
    with pytest.raises(ValueError, match=reason) as caught:
        image_set(**arguments)
    assert "\n" not in str(caught.value)
