"""Trained weights from elsewhere reproduce their published errors."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslab.data.cifar10 import load_cifar10
from reslab.data.class_list import read_class_list
from reslab.data.datasets import ImagesInMemory
from reslab.data.folder import open_whole_folder
from reslab.evaluation.fuse import model_for_inference
from reslab.evaluation.predict import match_classes
from reslab.evaluation.report import Report, build_report, classify, score_set
from reslab.evaluation.scoring import Scores, ensemble
from reslab.evaluation.views import MultiScale, OneCrop, TenCrop, ViewProtocol
from reslab.models.convert.importer import import_model
from reslab.models.model_file import Model


@pytest.fixture(scope="module")
def resnet18(shared: Path, resnet18_file: Path) -> Model:
    ids, names = zip(*read_class_list(shared / "imagenet" / "classes.csv"), strict=True)
    return replace(import_model(resnet18_file, "resnet18").model, classes=names, ids=ids)


def result_of(model: Model, folder: Path, protocol: ViewProtocol) -> Report:
    images, lost = match_classes(open_whole_folder(folder), model.classes, model.ids)
    assert not lost
    return classify(model, images, protocol)


def test_a_hundred_photographs(resnet18: Model, shared: Path) -> None:
    report = result_of(resnet18, shared / "imagenet" / "samples", OneCrop(256, 224))
    assert (report.n, report.skipped, len(report.per_class)) == (100, 0, 100)
    assert 100 - report.top1_error == pytest.approx(78, abs=1.01)  # difference of one image
    assert report.top5_error is not None
    assert 100 - report.top5_error == pytest.approx(93, abs=1.01)


@pytest.mark.slow
def test_five_hundred_of_the_validation_set(resnet18: Model, shared: Path) -> None:
    report = result_of(resnet18, shared / "imagenet" / "val500", OneCrop(256, 224))
    assert (report.n, len(report.per_class)) == (500, 10)
    assert 100 - report.top1_error == pytest.approx(64.8, abs=0.6)
    assert report.top5_error is not None
    assert 100 - report.top5_error == pytest.approx(88.4, abs=0.6)


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
def cifar10_test(real_cifar10: Path) -> ImagesInMemory:
    return load_cifar10(real_cifar10).test


@pytest.fixture(scope="module")
def akamasters_20(shared: Path) -> Model:
    return import_model(shared / "weights" / "resnet20-12fca82f.th", "resnet20").model


@pytest.fixture(scope="module")
def scores_of_20(cifar10_test: ImagesInMemory, akamasters_20: Model) -> Scores:
    return score_set(model_for_inference(akamasters_20), cifar10_test, OneCrop())


def test_akamasters_20_layers_have_their_published_error(cifar10_test, scores_of_20) -> None:
    report = build_report(scores_of_20, cifar10_test, "one-crop")
    assert (report.n, report.top1_error) == (10_000, 8.27)


@torch.no_grad()
def test_fused_logits_are_as_close_to_float64_as_others(cifar10_test, akamasters_20) -> None:
    model, images = akamasters_20, cifar10_test.images[:200]
    exact = deepcopy(model.net).double()(model.preprocessing(images).double())
    plain = (model(images) - exact).abs().max()
    fused = (model_for_inference(model)(images) - exact).abs().max()
    assert fused < plain + 1e-5
    assert fused < 1e-6 * exact.abs().max()  # single precision


@pytest.mark.slow
def test_akamasters_44_layers_have_their_published_error(
    cifar10_test, scores_of_20, shared: Path
) -> None:
    model = import_model(shared / "weights" / "resnet44-014dd654.th", "resnet44").model
    scores_of_44 = score_set(model, cifar10_test, OneCrop())
    assert build_report(scores_of_44, cifar10_test, "one-crop").top1_error == 6.90
    both = ensemble([scores_of_20, scores_of_44])
    assert build_report(both, cifar10_test, "one-crop").top1_error < 6.90


def test_scores_are_log_probabilities(resnet18: Model, shared: Path) -> None:
    images, _ = match_classes(
        open_whole_folder(shared / "imagenet" / "samples"), resnet18.classes, resnet18.ids
    )
    few = images.take("few", torch.arange(4))
    for protocol in (OneCrop(256, 224), MultiScale((224,))):
        scores = score_set(resnet18, few, protocol).log_probabilities
        assert scores.exp().sum(1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
