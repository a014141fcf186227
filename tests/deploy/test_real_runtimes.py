"""ResNet-18 with its trained weights in other runtimes and in int8."""

from dataclasses import replace
from pathlib import Path

import pytest

from reslab.api.export_images import images_in_folder
from reslab.api.int8_loss import Int8Images, measure_loss
from reslab.data.class_list import read_class_list
from reslab.data.folder import open_whole_folder
from reslab.deploy.export import try_draft
from reslab.deploy.int8 import CALIBRATION_IMAGES, int8_network, model_of_network
from reslab.deploy.openvino_file import openvino_draft
from reslab.deploy.proof import network_input
from reslab.deploy.proof_images import proof_images
from reslab.evaluation.predict import match_classes
from reslab.models.convert.importer import import_model
from reslab.models.model_file import Model

pytestmark = pytest.mark.slow
IMAGES = 40


@pytest.fixture(scope="module")
def resnet18(shared: Path, resnet18_file: Path) -> Model:
    ids, names = zip(*read_class_list(shared / "imagenet" / "classes.csv"), strict=True)
    return replace(import_model(resnet18_file, "resnet18").model, classes=names, ids=ids)


def test_openvino_on_photographs_of_many_sizes(resnet18: Model, shared: Path) -> None:
    photographs = images_in_folder(shared / "imagenet" / "samples", IMAGES)
    images = proof_images(resnet18, photographs, "samples")
    verdict = try_draft(resnet18, openvino_draft(resnet18), ".xml", images)
    assert verdict.images >= IMAGES
    assert verdict.sizes >= 10
    assert verdict.difference <= 2e-4
    assert verdict.same_names == verdict.answers
    assert verdict.passed


def test_int8_on_all_of_the_validation_images(resnet18: Model, shared: Path) -> None:
    """Calibrated on other photographs; published losses are 0.2 to 0.3 points."""
    photographs = images_in_folder(shared / "imagenet" / "samples", CALIBRATION_IMAGES)
    network = int8_network(resnet18, [network_input(resnet18, image) for image in photographs])
    rounded = model_of_network(resnet18, network)
    folder = shared / "imagenet" / "val500"
    measured, _ = match_classes(open_whole_folder(folder), resnet18.classes, resnet18.ids)
    images = Int8Images(photographs, measured, labelled=True, source="val500")
    loss = measure_loss(resnet18, rounded, Path("resnet18"), images)
    assert loss.images == 500
    assert loss.agreement >= 92
    assert loss.top1 is not None
    exact, with_int8 = loss.top1
    assert with_int8 >= exact - 1
