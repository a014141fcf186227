"""The set that is always there: scikit-learn's 1,797 handwritten digits."""

import numpy as np
import torch
from PIL import Image

from reslab.data.images import ImageSet, Sets

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
