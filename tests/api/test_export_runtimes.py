"""Exports to OpenVINO and in int8: files that open, proofs that are stored, losses as measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from PIL import Image
from tests.models.kinds import FIELDS, perturbed

import reslab
from reslab.api import int8_loss
from reslab.api.export import ExportedModel
from reslab.api.int8_loss import images_for_int8
from reslab.deploy.metadata import PARITY
from reslab.deploy.proof import Verdict
from reslab.deploy.runtimes import INFO
from reslab.models.config import ResNetConfig

CLASSES = ("circle", "cross", "square")
WIDE = FIELDS | {"widths": (16, 32, 64), "shortcut": "A"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "shapes.safetensors"
    preprocessing = reslab.Preprocessing.of([120.0, 110.0, 100.0], [60.0] * 3, size=24, resize=28)
    reslab.save(perturbed(ResNetConfig.model_validate(WIDE)), CLASSES, preprocessing, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images of several sizes in folders by class."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(30):
        place = root / CLASSES[number % 3] / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        size = (30 + number, 50 - number, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(place)
    return root


def test_a_pair_of_files_for_openvino(model: Path, folder: Path) -> None:
    exported = reslab.export(model, "openvino", check=folder, on_event=None)
    assert isinstance(exported, ExportedModel)
    assert exported.path == model.with_suffix(".xml")
    assert exported.verdict.passed
    assert isinstance(exported.verdict, Verdict)
    assert exported.verdict.difference < 1e-5
    stored = openvino.Core().read_model(exported.path).get_rt_info([INFO, PARITY]).value
    assert json.loads(stored) == exported.verdict.as_dict()
    expected, found = (
        reslab.evaluate(path, data=folder, on_event=None)[0].report.as_dict()
        for path in (model, exported.path)
    )
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert found | {"loss": 0} == expected | {"loss": 0}
    with pytest.raises(ValueError, match="exists already"):
        reslab.export(model, "openvino", on_event=None)
    exported.path.unlink()
    with pytest.raises(ValueError, match=r"shapes\.bin exists already"):
        reslab.export(model, "openvino", on_event=None)


def test_a_network_with_a_mean_image_gets_crops_of_its_size_in_openvino(tmp_path: Path) -> None:
    """It states no crop, but takes images of one size only."""
    mean = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)) * 255
    preprocessing = replace(reslab.Preprocessing.of([0.0] * 3, [60.0] * 3), mean=mean)
    path, image = tmp_path / "a.safetensors", np.zeros((31, 47, 3), np.uint8)
    reslab.save(perturbed(ResNetConfig.model_validate(WIDE)), CLASSES, preprocessing, path)
    exported = reslab.export(path, "openvino", on_event=None)
    assert isinstance(exported, ExportedModel)
    with pytest.warns(UserWarning, match="takes only 20x20 images"):
        expected = reslab.predict(path, image)[0].results
    found = reslab.predict(exported.path, image)[0].results
    assert [it.probability for it in found] == pytest.approx(
        [it.probability for it in expected], abs=1e-5
    )


def test_int8_with_its_loss(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_loss, "CALIBRATION_IMAGES", 10)
    out = tmp_path / "a.onnx"
    exported = reslab.export(model, "onnx-int8", out, check=folder, on_event=None)
    assert isinstance(exported, ExportedModel)
    loss = exported.loss
    assert loss is not None
    assert (loss.images, loss.source) == (20, folder.name)  # those not calibrated with
    assert 92 <= loss.agreement <= 100
    assert loss.top1 is not None
    assert "points against fp32" in str(exported)
    stored = {item.key: item.value for item in onnx.load(str(out)).metadata_props}
    parity = json.loads(stored[PARITY])
    assert parity["loss"] == loss.as_dict() == exported.as_dict()["loss"]
    assert parity["fp32"]["passed"]
    # the accuracies and the agreement are those that the two files have on these images
    images = images_for_int8(reslab.load(model).model, model, folder).measured
    for path, accuracy in ((model, loss.top1[0]), (out, loss.top1[1])):
        (evaluation,) = reslab.evaluate(path, data=images, on_event=None)
        assert isinstance(evaluation.report, reslab.Report)
        assert 100 - evaluation.report.top1_error == pytest.approx(accuracy, abs=5.01)
    monkeypatch.setattr("reslab.api.export.LEAST_AGREEMENT", 100.1)
    with pytest.raises(RuntimeError, match=r"was not written: int8: .* the limit is 100\.1 %"):
        reslab.export(model, "onnx-int8", tmp_path / "b.onnx", check=folder, on_event=None)
    assert not (tmp_path / "b.onnx").exists()


def test_images_without_classes_calibrate_too(model: Path, folder: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted(folder.glob("*/*.png"))[:4]):
        (tmp_path / f"{number}.png").write_bytes(file.read_bytes())
    loaded = reslab.load(model).model
    images = images_for_int8(loaded, model, tmp_path)
    assert (len(images.calibration), len(images.measured), images.labelled) == (4, 4, False)
    assert images.source == f"{tmp_path}, of which 4 calibrated it"
    loss = int8_loss.measure_loss(loaded, loaded, model, images)
    assert (loss.agreement, loss.top1) == (100, None)
    assert "top-1 not measured" in str(loss)
    with pytest.raises(ValueError, match="int8 is calibrated on images"):
        reslab.export(model, "onnx-int8", tmp_path / "a.onnx", on_event=None)
    assert torch.equal(images.measured.labels, torch.zeros(4, dtype=torch.int64))
