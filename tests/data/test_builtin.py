import numpy as np
import torch
from sklearn.datasets import load_digits as originals

from reslab.data.builtin import enlarge, load_digits


def test_the_split_has_its_sizes_and_no_common_images() -> None:
    sets = load_digits()
    assert (len(sets.train), len(sets.test)) == (1437, 360)
    assert sets.train.images.shape == (1437, 3, 16, 16)
    assert sets.train.images.dtype == torch.uint8
    assert torch.equal(load_digits().test.labels, sets.test.labels)
    labels = torch.cat([sets.train.labels, sets.test.labels]).bincount()
    assert labels.tolist() == np.bincount(originals(return_X_y=True)[1]).tolist()


def test_the_three_channels_are_equal() -> None:
    images = load_digits().test.images
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])


def test_enlarging_is_bilinear() -> None:
    """A ramp stays a ramp, and the maximum stays the maximum."""
    assert (enlarge(np.full((8, 8), 16.0)) == 255).all()
    ramp = enlarge(np.tile(np.arange(8.0) * 2, (8, 1)))
    inner = ramp[:, 1:-1].astype(int)
    steps = np.diff(inner, axis=1)
    assert steps.min() >= 15
    assert steps.max() <= 17  # 2/16 of 255 over two pixels, rounded
