"""Write small images that all differ."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 8  # pixels


def images(folder: Path, number: int, first: int = 0, suffix: str = ".png") -> None:
    """Write images that all differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + number):
        image(folder / f"{index}{suffix}")


def image(file: Path, width: int = SIDE, height: int = SIDE) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    seed = list(str(file).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
