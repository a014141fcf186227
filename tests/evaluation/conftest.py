"""Small sets of encoded images, kept in memory."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage

Album = Callable[..., EncodedImages]


def encoded(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def album() -> Album:
    """Return a function that makes a set of arrays, uint8 [H, W, 3]; None is a damaged file."""

    def make(
        images: Sequence[np.ndarray | None],
        labels: Sequence[int],
        classes: Sequence[str] = ("red", "green", "blue"),
        ids: Sequence[str] = (),
    ) -> EncodedImages:
        files = {
            f"{at}.png": b"no image" if image is None else encoded(image)
            for at, image in enumerate(images)
        }

        def read(file: str) -> bytes:
            if file not in files:
                raise BadImage(f"{file}: not here")
            return files[file]

        names = tuple(classes)
        return EncodedImages(
            "album", list(files), torch.tensor(labels), names, tuple(ids) or names, read
        )

    return make


@pytest.fixture
def photographs() -> list[np.ndarray]:
    """Return five random images of different shapes, smooth enough to be resized."""
    rng = np.random.default_rng(0)
    shapes = [(40, 40), (40, 61), (57, 40), (48, 48), (90, 50)]
    coarse = [rng.integers(0, 256, (9, 9, 3), dtype=np.uint8) for _ in shapes]
    return [
        np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
        for small, (height, width) in zip(coarse, shapes, strict=True)
    ]
