"""Built-in data sets: digits, which come with scikit-learn, and CIFAR-10."""

from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image

from reslab.data.cifar10 import load_cifar10
from reslab.data.datasets import ImagesInMemory, MemorySplits, Splits
from reslab.data.location import Location, to_folder
from reslab.errors import unknown_name

SetName = Literal["digits", "cifar10"]


def set_named(name: str) -> SetName:
    """Return `name` if it is a built-in data set; otherwise raise ValueError."""
    for known in get_args(SetName):
        if name == known:
            return known
    raise ValueError(unknown_name("data set", name, get_args(SetName)))


def open_sets(name: SetName, folder: Location | None = None) -> MemorySplits:
    """Open the training and test images of a built-in set.

    Raise ValueError if `folder` is given for digits, which need none, or is a URL.
    """
    if name == "cifar10":
        return load_cifar10(to_folder(folder, "cifar10 needs") if folder else None)
    if folder is not None:
        raise ValueError(f"`data` {folder}: the digits are built in and need no folder")
    return load_digits()


DIGIT_SIDE = 16  # two halvings leave 4x4 for global average pooling
TEST_DIGITS = 360
BRIGHTEST = 16  # original pixels go from 0 to 16


def load_digits() -> MemorySplits:
    """Load 1,437 training and 360 test digits, [3, 16, 16] with three equal channels."""
    from sklearn.datasets import load_digits as load_originals

    originals, labels = load_originals(return_X_y=True)
    enlarged = np.stack([enlarge(row.reshape(8, 8)) for row in originals])
    images = torch.from_numpy(enlarged)[:, None].repeat(1, 3, 1, 1)
    classes = tuple(str(digit) for digit in range(10))
    whole = ImagesInMemory("digits", images, torch.from_numpy(labels).long(), classes)
    # RandomState's stream is frozen by numpy: the split is the same everywhere, always
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(whole)))
    return Splits(whole.take("train", order[TEST_DIGITS:]), whole.take("test", order[:TEST_DIGITS]))


def enlarge(ink: np.ndarray) -> np.ndarray:
    """Enlarge one digit bilinearly, [8, 8] from 0 to 16 -> [16, 16] from 0 to 255."""
    grey = np.round(ink * 255 / BRIGHTEST).astype(np.uint8)
    return np.asarray(
        Image.fromarray(grey).resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BILINEAR)
    )
