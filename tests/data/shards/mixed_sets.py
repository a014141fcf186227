"""Images in mixed formats and sizes, to be packed and read back."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage

CLASSES = ("cat", "dog", "grey fox")
IDS = ("n02", "n01", "n03")  # not sorted: the set has its own order
FORMATS = ("JPEG", "JPEG", "PNG", "WEBP", "JPEG")


def encoded(width: int, height: int, seed: int, kind: str = "JPEG") -> bytes:
    """Return a smooth image with some noise, encoded."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


def set_of(files: dict[str, bytes], name: str = "pictures") -> EncodedImages:
    """Return a set of images in memory; each name is `ID/...`."""
    labels = torch.tensor([IDS.index(file.split("/")[0]) for file in files])
    return EncodedImages(name, list(files), labels, CLASSES, IDS, files.__getitem__)


def mixed_files() -> dict[str, bytes]:
    """Return 20 images per class in several formats and sizes, one with a wrong suffix."""
    files = {}
    for number in range(60):
        kind = FORMATS[number % len(FORMATS)]
        size = (40 + number % 7, 30 + number % 11)
        suffix = "JPEG" if number == 2 else kind.lower()  # the first PNG
        name = f"{IDS[number // 20]}/a.b-{number} é.{suffix}"
        files[name] = encoded(*size, seed=number, kind=kind)
    return files


def quiet(bad: BadImage | None) -> None:
    assert bad is None


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def changed(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
