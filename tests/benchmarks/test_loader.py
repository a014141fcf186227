"""The plain loader and reslab's crop alike, from photographs like ImageNet's."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import loader
from reslab.data.crop_reader import CropReader
from reslab.data.folder import open_whole_folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loader, "MADE", 4)
    loader.make_photographs(tmp_path)
    return tmp_path


def test_photographs_are_like_imagenets(data: Path) -> None:
    files = sorted(data.rglob("*.jpg"))
    assert len(files) == 4
    for file in files:
        with Image.open(file) as image:
            assert image.size == (500, 375)
        assert 50_000 < file.stat().st_size < 200_000


def test_both_loaders_crop_alike(data: Path) -> None:
    images = open_whole_folder(data)
    plain = loader.PlainDataset(images, data, torch.zeros(3, loader.SIZE, loader.SIZE))
    read, rng = CropReader(images, loader.PAPER), random.Random(1)
    for index in range(4):
        draws = [rng.random() for _ in range(4)]
        difference = np.abs(np.array(plain.crop(index, draws), int) - read(index, draws))
        assert difference.max() <= 2
        assert difference.mean() < 0.05
    assert "pixels at most" in loader.levels_apart(images, plain)


def test_bytes_are_compared_in_any_order(data: Path) -> None:
    images = open_whole_folder(data)
    reversed_set = images.take("reversed", torch.tensor([3, 2, 1, 0]))
    assert loader.bytes_compared(images, reversed_set) == "the same bytes"
    repeated = images.take("repeated", torch.tensor([0, 1, 2, 2]))
    assert loader.bytes_compared(images, repeated) == "other bytes"
