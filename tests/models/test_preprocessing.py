from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reslab.models.model_facts import preprocessing_in
from reslab.models.preprocessing import Preprocessing, minus_mean


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def test_a_pixel_loses_the_mean_and_is_divided() -> None:
    pixel = torch.tensor([110, 60, 5], dtype=torch.uint8).reshape(1, 3, 1, 1)
    seen = Preprocessing(column(100, 50, 25), column(5, 2, 4))(pixel)
    assert seen.flatten().tolist() == [2.0, 5.0, -5.0]


def test_blue_first_turns_the_channels_after_each_lost_its_own_mean() -> None:
    pixel = torch.tensor([110, 60, 5], dtype=torch.uint8).reshape(1, 3, 1, 1)
    seen = Preprocessing(column(100, 50, 25), column(5, 2, 4), channels="BGR")(pixel)
    assert seen.flatten().tolist() == [-5.0, 5.0, 2.0]


def test_a_mean_image_is_taken_pixel_by_pixel() -> None:
    mean = torch.arange(12.0).reshape(3, 2, 2)
    images = torch.full((2, 3, 2, 2), 20, dtype=torch.uint8)
    assert torch.equal(minus_mean(mean)(images), (20 - mean).expand(2, 3, 2, 2))


def test_at_another_size_it_stands_for_its_colour() -> None:
    mean = torch.arange(12.0).reshape(3, 2, 2)  # 1.5, 5.5 and 9.5 on average
    images = torch.full((1, 3, 3, 5), 20, dtype=torch.uint8)
    seen = minus_mean(mean)(images)
    assert seen.shape == images.shape
    assert seen[0, :, 2, 4].tolist() == [18.5, 14.5, 10.5]


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_bytes_and_floats_come_out_alike_and_channels_last(channels) -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    prepare = Preprocessing(column(1, 2, 3), column(4, 5, 6), channels)
    seen = prepare(images)
    assert torch.equal(seen, prepare(images.float()))
    assert seen.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_in_place_gives_the_same_numbers(channels) -> None:
    images = torch.rand(2, 3, 8, 8).mul_(255).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    prepare = Preprocessing(torch.rand(3, 8, 8) * 100, column(4, 5, 6), channels)
    expected = prepare(images)
    assert torch.equal(images, before)
    seen = prepare.in_place(images)
    assert torch.equal(seen, expected)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images.flip(1) if channels == "BGR" else images, expected)


def test_it_travels_as_tensors_and_facts() -> None:
    before = Preprocessing(torch.rand(3, 4, 4), column(4, 5, 6), "BGR", resize=256, size=224)
    tensors = before.tensors() | {"fc.weight": torch.zeros(1)}
    after = preprocessing_in(tensors, before.facts(), Path("model.safetensors"))
    assert tensors.keys() == {"fc.weight"}
    assert torch.equal(after.mean, before.mean)
    assert torch.equal(after.std, before.std)
    assert (after.channels, after.resize, after.size) == ("BGR", 256, 224)


def test_only_other_values_of_newer_fields_are_written() -> None:
    """A file of a network of this project has the same bytes as before these fields existed."""
    usual = Preprocessing(torch.zeros(3, 1, 1), torch.ones(3, 1, 1), resize=256, size=224)
    assert usual.facts() == {"channels": "RGB", "resize": 256, "size": 224}
    published = replace(usual, interpolation="bicubic", as_stored=True)
    after = preprocessing_in(published.tensors(), published.facts(), Path("model.safetensors"))
    assert (after.interpolation, after.as_stored) == ("bicubic", True)
    run = after.for_run(64, 56)
    assert run.facts() == {"channels": "RGB", "resize": 64, "size": 56}


def test_numbers_make_a_preprocessing() -> None:
    pixel = torch.tensor([110, 60, 5], dtype=torch.uint8).reshape(1, 3, 1, 1)
    seen = Preprocessing.of((100, 50, 25), (5, 2, 4))(pixel)
    assert seen.flatten().tolist() == [2.0, 5.0, -5.0]
    assert Preprocessing.of((100, 50, 25))(pixel).flatten().tolist() == [10.0, 10.0, -20.0]
    mean = np.arange(12.0).reshape(3, 2, 2)
    assert torch.equal(Preprocessing.of(mean).mean, torch.from_numpy(mean).float())
    for size, resize, sides in (
        (None, None, (None, None)),
        (224, None, (224, 224)),
        (224, 256, (256, 224)),
    ):
        made = Preprocessing.of((1, 2, 3), size=size, resize=resize)
        assert (made.resize, made.size) == sides


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (((1, 2),), r"shapes \[2, 1, 1\] and \[3\]"),
        (((1, 2, 3), (1, 2)), r"shapes \[3, 1, 1\] and \[2\]"),
        ((torch.zeros(1, 4, 4),), r"shapes \[1, 4, 4\]"),
        (((1, 2, 3), (1, 0, 1)), "must be above 0"),
        (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "multiply both by 255"),
    ],
)
def test_other_numbers_are_refused(arguments: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Preprocessing.of(*arguments)


def test_a_crop_is_not_larger_than_the_image() -> None:
    with pytest.raises(ValueError, match="resize=200 must be at least size=224"):
        Preprocessing.of((1, 2, 3), size=224, resize=200)
