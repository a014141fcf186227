"""The one place where the name of a data set becomes its pictures."""

from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image

from reslab.data.cifar10 import load_cifar10
from reslab.data.datasets import ImageSet, Sets
from reslab.data.location import Place, folder_of
from reslab.errors import unknown_name

SetName = Literal["digits", "cifar10"]


def set_named(name: str) -> SetName:
    """`name` if there is a set of that name; ValueError with the nearest otherwise."""
    for known in get_args(SetName):
        if name == known:
            return known
    raise ValueError(unknown_name("set", name, get_args(SetName)))


def open_sets(name: SetName, folder: Place | None = None) -> Sets:
    """The training and test pictures of a named set; digits come by themselves."""
    if name == "cifar10":
        return load_cifar10(folder_of(folder, "cifar10 needs") if folder else None)
    if folder is not None:
        raise ValueError(f"--data {folder}: digits come with reslab and need no folder")
    return load_digits()


SIDE = 16  # two halvings leave the 4x4 that global average pooling wants
TEST = 360
BRIGHTEST = 16  # the ink of one original pixel is counted from 0 to 16


def load_digits() -> Sets:
    """1,437 digits to train on and 360 to test, [3, 16, 16] with three equal channels."""
    from sklearn.datasets import load_digits as load_originals

    originals, labels = load_originals(return_X_y=True)
    pictures = np.stack([enlarge(row.reshape(8, 8)) for row in originals])
    images = torch.from_numpy(pictures)[:, None].repeat(1, 3, 1, 1)
    classes = tuple(str(digit) for digit in range(10))
    whole = ImageSet("digits", images, torch.from_numpy(labels).long(), classes)
    # RandomState's stream is frozen by numpy: the split is the same everywhere, always
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(whole)))
    return Sets(whole.take("train", order[TEST:]), whole.take("test", order[:TEST]))


def enlarge(ink: np.ndarray) -> np.ndarray:
    """One digit, [8, 8] of 0 to 16 -> [16, 16] of 0 to 255, bilinear."""
    grey = np.round(ink * 255 / BRIGHTEST).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
