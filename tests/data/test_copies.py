"""Byte-identical files, held against a comparison of every pair of files."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.detection.small import scenes_folder
from tests.training.walls import draw

from reslab.api.pack import pack
from reslab.data.boxes.folder import open_detection
from reslab.data.class_folders import FolderReader
from reslab.data.copies import HEAD, UNKNOWN, Copies, file_sizes, find_copies
from reslab.data.datasets import EncodedImages
from reslab.data.folder import open_folder, read_folder


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def copies_in(folder: Path) -> Copies:
    sets = open_folder(folder)
    sizes = np.concatenate([file_sizes(sets.train), file_sizes(sets.test)])
    return find_copies(sets.train, sets.test, sizes)


def first_files(pairs: tuple[tuple[str, str], ...], folder: Path) -> list[str]:
    return sorted(str(Path(file).relative_to(folder)) for file, _ in pairs)


@pytest.mark.parametrize("seed", range(8))
def test_all_copies_are_found_as_by_comparing_every_pair(tmp_path: Path, seed: int) -> None:
    """Contents of few sizes: some equal, some equal in the part that is compared first."""
    rng = random.Random(seed)
    contents = [bytes([number]) * 9 for number in range(4)]
    contents += [b"x" * HEAD + bytes([number]) for number in range(3)]
    files = {
        f"{part}/{kind}/{number}.jpg": rng.choice(contents)
        if rng.random() < 0.4
        else rng.randbytes(9)
        for part in ("train", "val")
        for kind in ("bee", "fly")
        for number in range(6)
    }
    found = copies_in(write(tmp_path, files))
    both, labels = set(), set()
    for name, data in files.items():
        part, kind, _ = name.split("/")
        same = [other.split("/") for other, content in files.items() if content == data]
        if any(other[1] != kind for other in same):
            labels.add(name)
        elif part == "val" and any(other[0] == "train" for other in same):
            both.add(name)
    assert first_files(found.in_both, tmp_path) == sorted(both)
    assert first_files(found.two_labels, tmp_path) == sorted(labels)
    for file, copy in (*found.in_both, *found.two_labels):
        assert file != copy
        assert Path(file).read_bytes() == Path(copy).read_bytes()


def test_damaged_files_are_left_to_the_loader(tmp_path: Path) -> None:
    """Empty files are equal, and are no copies; nor is a pipe or a missing file."""
    names = [f"{part}/{kind}/{n}.jpg" for part in ("train", "val") for kind in "ab" for n in "01"]
    write(tmp_path, dict.fromkeys(names, b""))
    (tmp_path / names[0]).unlink()
    (tmp_path / names[0]).symlink_to("gone")
    assert copies_in(tmp_path) == Copies((), ())
    assert file_sizes(open_folder(tmp_path).train).tolist() == [UNKNOWN, 0, 0, 0]


def test_sizes_are_those_of_the_files_in_any_order(tmp_path: Path) -> None:
    rng = random.Random(0)
    files = {
        f"{part}/{kind}/{number}.jpg": rng.randbytes(number + 1)
        for part in ("train", "val")
        for kind in ("bee", "fly")
        for number in range(5)
    }
    train = open_folder(write(tmp_path, files)).train
    assert file_sizes(train).tolist() == [1, 2, 3, 4, 5] * 2
    some = train.take("some", torch.tensor([8, 0, 3]))
    assert file_sizes(some).tolist() == [4, 1, 4]
    assert file_sizes(replace(some, read=lambda file: b"")).tolist() == [UNKNOWN] * 3


def test_a_packed_set_has_the_sizes_of_its_folder(tmp_path: Path) -> None:
    folder = draw(tmp_path / "walls", {"brick": 3, "sky": 3})
    pack(folder, tmp_path / "packed")
    plain, packed = read_folder(folder), read_folder(tmp_path / "packed")
    assert isinstance(plain, EncodedImages)
    assert isinstance(packed, EncodedImages)
    assert file_sizes(packed).tolist() == file_sizes(plain).tolist()
    assert min(file_sizes(plain)) > 100


def test_images_with_boxes_are_copies_in_both_parts_whatever_their_boxes(tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    sets = open_detection(folder)
    sizes = np.concatenate([file_sizes(sets.train), file_sizes(sets.test)])
    assert find_copies(sets.train, sets.test, sizes) == Copies((), ())
    reads = sets.train.read, sets.test.read
    assert isinstance(reads[0], FolderReader)
    assert isinstance(reads[1], FolderReader)
    train = Path(reads[0].root, sets.train.files[4])
    test = Path(reads[1].root, sets.test.files[1])
    shutil.copy(train, test)
    sizes = np.concatenate([file_sizes(sets.train), file_sizes(sets.test)])
    found = find_copies(sets.train, sets.test, sizes)
    assert found == Copies(((str(test), str(train)),), ())
