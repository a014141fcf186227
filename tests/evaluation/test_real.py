"""Trained weights from elsewhere give the numbers that they are known for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslab.data.cifar10 import load_cifar10
from reslab.data.class_names import read_classes
from reslab.data.datasets import ImageSet
from reslab.data.folder import open_all
from reslab.evaluation.predict import matched
from reslab.evaluation.report import Report, classify, report, score
from reslab.evaluation.scoring import Scores, ensemble
from reslab.evaluation.views import MultiScale, OneCrop, TenCrop, ViewProtocol
from reslab.models.convert.importer import import_model
from reslab.models.model_file import Model


@pytest.fixture(scope="module")
def resnet18(shared: Path, resnet18_file: Path) -> Model:
    ids, names = zip(*read_classes(shared / "imagenet" / "classes.csv"), strict=True)
    return replace(import_model(resnet18_file, "resnet18").model, classes=names, ids=ids)


def result_of(model: Model, folder: Path, protocol: ViewProtocol) -> Report:
    pictures, lost = matched(open_all(folder), model.classes, model.ids)
    assert not lost
    return classify(model, pictures, protocol)


def test_a_hundred_photographs(resnet18: Model, shared: Path) -> None:
    found = result_of(resnet18, shared / "imagenet" / "samples", OneCrop(256, 224))
    assert (found.n, found.skipped, len(found.per_class)) == (100, 0, 100)
    assert 100 - found.top1_error == pytest.approx(78, abs=1.01)  # one picture
    assert 100 - found.top5_error == pytest.approx(93, abs=1.01)


@pytest.mark.slow
def test_five_hundred_of_the_validation_set(resnet18: Model, shared: Path) -> None:
    found = result_of(resnet18, shared / "imagenet" / "val500", OneCrop(256, 224))
    assert (found.n, len(found.per_class)) == (500, 10)
    assert 100 - found.top1_error == pytest.approx(64.8, abs=0.6)
    assert 100 - found.top5_error == pytest.approx(88.4, abs=0.6)


@pytest.mark.slow
def test_more_views_are_better(resnet18: Model, shared: Path) -> None:
    folder = shared / "imagenet" / "samples"
    one, ten, many = (
        result_of(resnet18, folder, protocol)
        for protocol in (OneCrop(256, 224), TenCrop(256, 224), MultiScale((224, 288)))
    )
    assert ten.loss < one.loss
    assert many.loss < one.loss


@pytest.fixture(scope="module")
def cifar10_test(real_cifar10: Path) -> ImageSet:
    return load_cifar10(real_cifar10).test


@pytest.fixture(scope="module")
def scores_of_20(cifar10_test: ImageSet, shared: Path) -> Scores:
    model = import_model(shared / "weights" / "resnet20-12fca82f.th", "resnet20").model
    return score(model, cifar10_test, OneCrop())


def test_akamasters_20_layers_err_as_he_says(cifar10_test, scores_of_20) -> None:
    found = report(scores_of_20, cifar10_test, "one-crop")
    assert (found.n, found.top1_error) == (10_000, 8.27)


@pytest.mark.slow
def test_akamasters_44_layers_err_as_he_says(cifar10_test, scores_of_20, shared: Path) -> None:
    model = import_model(shared / "weights" / "resnet44-014dd654.th", "resnet44").model
    scores_of_44 = score(model, cifar10_test, OneCrop())
    assert report(scores_of_44, cifar10_test, "one-crop").top1_error == 6.90
    both = ensemble([scores_of_20, scores_of_44])
    assert report(both, cifar10_test, "one-crop").top1_error < 6.90


def test_scores_are_log_probabilities(resnet18: Model, shared: Path) -> None:
    pictures, _ = matched(open_all(shared / "imagenet" / "samples"), resnet18.classes, resnet18.ids)
    few = pictures.take("few", torch.arange(4))
    for protocol in (OneCrop(256, 224), MultiScale((224,))):
        found = score(resnet18, few, protocol).log_probabilities
        assert found.exp().sum(1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
