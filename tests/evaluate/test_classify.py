import math

import pytest
import torch

from reslab.data.images import ImageSet
from reslab.evaluate.classify import classify
from reslab.evaluate.scoring import RANGE


def coded(count: int, classes: int) -> ImageSet:
    """Pictures whose first pixel is their label, and second whether a net should get it."""
    labels = torch.arange(count) % classes
    images = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = labels
    return ImageSet("test", images, labels, tuple(str(c) for c in range(classes)))


def reader(images: torch.Tensor, classes: int = 10) -> torch.Tensor:
    """Reads the label, but is off by one for labels 0 and 1."""
    label = images[:, 0, 0, 0].long()
    return torch.nn.functional.one_hot(torch.where(label < 2, label + 1, label), classes).float()


@pytest.mark.parametrize("count", [10, RANGE, RANGE + 10, 3 * RANGE - 10])
def test_each_picture_counts_once(count: int) -> None:
    seen = 0

    def model(images: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += len(images)
        return reader(images)

    report = classify(model, coded(count, 10))
    assert seen == report.n == count
    assert report.top1_error == pytest.approx(20.0)
    right = math.log(9 + math.e) - 1
    wrong = math.log(9 + math.e)
    assert report.loss == pytest.approx(0.8 * right + 0.2 * wrong, rel=1e-5)


def test_top5_of_three_classes_is_top3() -> None:
    report = classify(lambda x: reader(x, 3), coded(9, 3))
    assert report.top5_error == 0.0
    assert report.top1_error == pytest.approx(100 * 6 / 9)


def test_a_report_names_its_protocol_and_count() -> None:
    assert "one-crop, n=10" in str(classify(reader, coded(10, 10)))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        classify(reader, coded(0, 10))
