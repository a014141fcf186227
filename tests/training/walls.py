"""A small set of photographs: two classes that differ in colour."""

from pathlib import Path

import numpy as np
from PIL import Image

TINY = [
    "model.widths=[4, 4, 8, 8]", "augmentation.size=128", "augmentation.shorter_side=[128, 160]",
    "pictures.resize=144", "iterations=6", "batch_size=4", "eval_every=3", "checkpoint_every=2",
    "recompute_bn=2", "log_every=1",
]  # fmt: skip


def draw(folder: Path, counts: dict[str, int]) -> Path:
    """Draw images of noise around red or blue, of varying size, one subfolder per class."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        colour = np.array((180, 90, 60) if name == "brick" else (60, 90, 180))
        for number in range(count):
            height, width = rng.integers(130, 170, 2)
            noise = rng.normal(0, 40, (height, width, 3))
            pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.jpg")
    return folder
