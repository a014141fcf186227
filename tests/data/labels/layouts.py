"""Small folders of images with tables of labels."""

from pathlib import Path

from PIL import Image

from reslab.data.datasets import EncodedImages
from reslab.data.folder import read_folder


def images(folder: Path, *names: str) -> Path:
    """Write small images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


def table(folder: Path, name: str, *lines: str) -> Path:
    """Write a text file."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def labels_of(images: EncodedImages) -> dict[str, str]:
    """Return the class of each file."""
    numbers = images.labels.tolist()
    return {file: images.ids[label] for file, label in zip(images.files, numbers, strict=True)}


def whole(folder: Path) -> EncodedImages:
    """Open images without a split."""
    opened = read_folder(folder)
    assert isinstance(opened, EncodedImages)
    return opened


FOUR = ("a.png", "b.png", "c.png", "d.png")
CATS = {"a.png": "cat", "b.png": "cat", "c.png": "dog", "d.png": "dog"}
