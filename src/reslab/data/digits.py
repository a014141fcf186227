"""The digits that come with scikit-learn, enlarged to 16x16 pixels."""

import gzip
import zlib
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reslab.data.datasets import ImagesInMemory, MemorySplits, Splits
from reslab.errors import os_reason

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
