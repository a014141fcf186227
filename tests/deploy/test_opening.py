"""Exported files are opened as models."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.models.kinds import KINDS, perturbed

from reslab.deploy.classifier import crop_classifier, image_classifier, logits_graph
from reslab.deploy.metadata import IDS, NAMES, PREPROCESSING, TASK, Takes, metadata_of
from reslab.deploy.opening import is_exported, open_exported
from reslab.deploy.openvino_file import openvino_draft
from reslab.evaluation.predict import Predictor
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

CLASSES = ("circle", "the 'cross'", 'a "square"')
SIZES = [(40, 52), (61, 33), (24, 24), (130, 97)]


@pytest.fixture(scope="module")
def model() -> Model:
    preprocessing = Preprocessing.of([120.0, 110.0, 100.0], [60.0, 61.0, 62.0], size=24, resize=28)
    recipe = {"name": "shapes", "data": "digits"}
    net = perturbed(KINDS["batch norm"])
    return Model(net, CLASSES, preprocessing, recipe, [], ids=("n1", "n2", "n3"))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def save_onnx(graph: onnx.ModelProto, metadata: dict[str, str], file: Path) -> Path:
    helper.set_model_props(graph, metadata)
    onnx.save(graph, str(file))
    return file


def save_openvino(model: Model, metadata: dict[str, str], file: Path) -> Path:
    for suffix, content in openvino_draft(model).contents(metadata).items():
        file.with_suffix(suffix).write_bytes(content)
    return file


def must_agree(opened: Model, model: Model, images: list[np.ndarray], tolerance: float) -> None:
    expected, found = Predictor(model).predict(images), Predictor(opened).predict(images)
    for row, wanted in zip(found, expected, strict=True):
        assert [(it.name, it.id) for it in row] == [(it.name, it.id) for it in wanted]
        assert [it.probability for it in row] == pytest.approx(
            [it.probability for it in wanted], abs=tolerance
        )


def test_a_file_that_takes_images_predicts_as_its_model(
    model: Model, images: list[np.ndarray], tmp_path: Path
) -> None:
    metadata = metadata_of(model, "images")
    opened = open_exported(save_onnx(image_classifier(model), metadata, tmp_path / "a.onnx"))
    must_agree(opened, model, images, 2e-3)
    assert opened.recipe == model.recipe
    assert opened.backend == "onnxruntime"
    for protocol in ("ten-crop", "one-crop:28-24", "multi-scale"):
        with pytest.raises(ValueError, match="only one-crop applies"):
            Predictor(opened).predict(images[0], protocol=protocol)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_file_that_takes_crops_predicts_as_its_model(
    suffix: str, model: Model, images: list[np.ndarray], tmp_path: Path
) -> None:
    metadata = metadata_of(model, "crops")
    if suffix == ".xml":
        file = save_openvino(model, metadata, tmp_path / "a.xml")
    else:
        file = save_onnx(crop_classifier(model), metadata, tmp_path / "a.onnx")
    opened = open_exported(file)
    must_agree(opened, model, images, 1e-5)
    expected = Predictor(model).predict(images[0], protocol="ten-crop")  # crops of its size
    found = Predictor(opened).predict(images[0], protocol="ten-crop")
    assert [it.probability for it in found] == pytest.approx(
        [it.probability for it in expected], abs=1e-5
    )


def test_other_files_are_refused(model: Model, tmp_path: Path) -> None:
    good = metadata_of(model, "images")
    graph = image_classifier(model)

    def refused(changes: dict[str, str], message: str) -> None:
        file = save_onnx(graph, good | changes, tmp_path / "b.onnx")
        with pytest.raises(ValueError, match=message):
            open_exported(file)

    refused({TASK: "detect"}, "is a detector: use detect")
    refused({NAMES: "{0: 'a', 2: 'b'}"}, "must number the classes from 0")
    refused({NAMES: "__import__('os')"}, "its metadata cannot be parsed")
    refused({NAMES: "{0: 'a', 1: 1}"}, "must be a list of names")
    refused({IDS: '["a"]'}, "1 ids, but the network has 3 outputs")
    refused({PREPROCESSING: good[PREPROCESSING].replace("images", "boxes")}, "takes is 'boxes'")
    del graph.metadata_props[:]
    onnx.save(graph, str(tmp_path / "c.onnx"))
    with pytest.raises(ValueError, match="was not exported by reslab: its metadata have no names"):
        open_exported(tmp_path / "c.onnx")
    for name in ("d.onnx", "d.xml"):
        with pytest.raises(ValueError, match="no model at"):
            open_exported(tmp_path / name)
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match="is damaged or not an exported model"):
            open_exported(tmp_path / name)
    assert is_exported("a.onnx")
    assert not is_exported(tmp_path)


def test_a_graph_that_does_not_take_images_is_named(model: Model, tmp_path: Path) -> None:
    """The metadata of an export in the graph of another program."""
    file = tmp_path / "a.onnx"
    opened = open_exported(save_onnx(logits_graph(model), metadata_of(model, "images"), file))
    with pytest.raises(ValueError, match=r"a\.onnx does not run on uint8 images of shape 1 x 40"):
        Predictor(opened).predict(np.zeros((40, 52, 3), np.uint8))


def test_kept_scores_are_those_of_the_very_file(model: Model, tmp_path: Path) -> None:
    """Files of different graphs have different digests, whatever their names say."""
    takes: Takes = "crops"
    graph = crop_classifier(model)
    first = open_exported(save_onnx(graph, metadata_of(model, takes), tmp_path / "a.onnx")).own_net
    graph.graph.initializer[0].raw_data = bytes(len(graph.graph.initializer[0].raw_data))
    again = open_exported(save_onnx(graph, metadata_of(model, takes), tmp_path / "a.onnx")).own_net
    assert first != again


def test_an_openvino_file_names_the_labels_for_other_tools(model: Model, tmp_path: Path) -> None:
    file = save_openvino(model, metadata_of(model, "crops"), tmp_path / "a.xml")
    text = file.read_text()
    assert "<labels value=\"circle the_'cross' a_&quot;square&quot;\" />" in text
    assert '<resize_type value="crop" />' in text
    file.with_suffix(".bin").unlink()
    with pytest.raises(ValueError, match=r"a\.xml"):
        open_exported(file)
