import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from sklearn.datasets import load_digits as originals

from reslab.data.digits import enlarge, load_digits, read_originals


def test_the_split_has_every_digit_once() -> None:
    sets = load_digits()
    assert (len(sets.train), len(sets.test)) == (1437, 360)
    assert sets.train.images.shape == (1437, 3, 16, 16)
    assert sets.train.images.dtype == torch.uint8
    assert torch.equal(load_digits().test.labels, sets.test.labels)
    labels = torch.cat([sets.train.labels, sets.test.labels]).bincount()
    rows, digits = originals(return_X_y=True)
    assert labels.tolist() == np.bincount(digits).tolist()
    images = torch.cat([sets.train.images, sets.test.images])[:, 0].numpy()
    expected = [enlarge(row.reshape(8, 8)).tobytes() for row in rows]
    assert sorted(image.tobytes() for image in images) == sorted(expected)


def test_the_originals_are_those_of_scikit_learn() -> None:
    images, labels = read_originals()
    rows, digits = originals(return_X_y=True)
    assert np.array_equal(images, rows.reshape(-1, 8, 8))
    assert np.array_equal(labels, digits)
    assert labels.dtype == np.int64


def altered(content: bytes) -> bytes:
    return gzip.compress(gzip.decompress(content).replace(b"13", b"12", 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (altered, r"does not hold the digits that recipes refer to; reinstall it: pip install"),
        (lambda content: content[:1000], r"digits\.csv\.gz: .*; reinstall it: pip install"),
        (lambda content: b"0,0,5", r"digits\.csv\.gz: .*; reinstall it: pip install"),
    ],
)
def test_a_damaged_file_is_refused_by_name(
    damage: Callable[[bytes], bytes],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
    package = tmp_path / "sklearn"
    copy = package / "datasets" / "data" / "digits.csv.gz"
    copy.parent.mkdir(parents=True)
    (package / "__init__.py").touch()
    copy.write_bytes(damage(installed.read_bytes()))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sklearn")
    with pytest.raises(RuntimeError, match=message):
        read_originals()
    copy.unlink()
    with pytest.raises(RuntimeError, match="no such file"):
        read_originals()


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
