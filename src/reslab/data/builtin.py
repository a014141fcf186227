"""Built-in data sets: digits, which come with scikit-learn, and CIFAR-10."""

import gzip
import zlib
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image

from reslab.data.cifar10 import load_cifar10
from reslab.data.datasets import ImagesInMemory, MemorySplits, Splits
from reslab.data.location import Location, to_folder
from reslab.errors import os_reason, unknown_name

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
DIGITS_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
REINSTALL = "reinstall it: pip install --force-reinstall scikit-learn"


def load_digits() -> MemorySplits:
    """Load 1,437 training and 360 test digits, [3, 16, 16] with three equal channels."""
    originals, labels = read_originals()
    images = torch.from_numpy(np.stack(list(map(enlarge, originals))))
    classes = tuple(str(digit) for digit in range(10))
    whole = ImagesInMemory(
        "digits", images[:, None].repeat(1, 3, 1, 1), torch.from_numpy(labels), classes
    )
    # RandomState's stream is frozen by numpy: the split is the same everywhere, always
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(whole)))
    return Splits(whole.take("train", order[TEST_DIGITS:]), whole.take("test", order[:TEST_DIGITS]))


def read_originals() -> tuple[np.ndarray, np.ndarray]:
    """Read the digits of scikit-learn: images [1797, 8, 8] from 0 to 16, labels [1797], int64.

    Only its data file is read, since importing it takes seconds. Raise RuntimeError if the file is
    missing or has changed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise RuntimeError("the digits come with scikit-learn, which is not installed")
    file = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
    try:
        text = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        reason = os_reason(error) if isinstance(error, OSError) else error
        raise RuntimeError(f"{file}: {reason}; {REINSTALL}") from None
    if sha256(text).hexdigest() != DIGITS_SHA256:
        raise RuntimeError(f"{file} does not hold the digits that recipes refer to; {REINSTALL}")
    table = np.loadtxt(text.decode().splitlines(), delimiter=",", dtype=np.int64)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]


def enlarge(ink: np.ndarray) -> np.ndarray:
    """Enlarge one digit bilinearly, [8, 8] from 0 to 16 -> [16, 16] from 0 to 255."""
    grey = np.round(ink * 255 / BRIGHTEST).astype(np.uint8)
    return np.asarray(
        Image.fromarray(grey).resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BILINEAR)
    )
