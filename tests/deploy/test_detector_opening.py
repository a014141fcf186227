"""An exported detector opens for `detect` and `evaluate`."""

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper
from PIL import Image
from tests.conftest import Refused
from tests.detection.small import SCENES, detector

import reslab
from reslab.cli import main
from reslab.deploy.detector import detector_graph
from reslab.deploy.metadata import SEARCH as SEARCH_KEY
from reslab.deploy.metadata import detector_metadata
from reslab.detection.inference import Detector
from reslab.detection.predict import detector_bytes
from reslab.detection.recipe import InferenceConfig

SEARCH = InferenceConfig(
    shorter=128, longest=128, smallest=4, proposals=20
)  # scenes keep their size


@pytest.fixture(scope="module")
def model() -> Detector:
    return detector(sure=10, search=SEARCH)


@pytest.fixture(scope="module")
def folder(model: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a detector's model file and its exported file."""
    out = tmp_path_factory.mktemp("exported")
    (out / "model.safetensors").write_bytes(detector_bytes(model))
    graph = detector_graph(model)
    helper.set_model_props(graph, detector_metadata(model))
    onnx.save(graph, out / "model.onnx")
    return out


def test_it_detects_as_its_model_does(folder: Path) -> None:
    pixels = [SCENES.test.image(index) for index in range(3)]
    for threshold in (0.5, 0.02):
        ours, theirs = (
            reslab.load_detector(folder / f"model{suffix}", threshold=threshold)
            for suffix in (".safetensors", ".onnx")
        )
        assert ours.classes == theirs.classes
        for one, other in zip(ours.detect(pixels), theirs.detect(pixels), strict=True):
            assert [(it.name, it.id) for it in other] == [(it.name, it.id) for it in one]
            for found, expected in zip(other, one, strict=True):
                assert found.score == pytest.approx(expected.score, abs=1e-4)
                assert found.box == pytest.approx(expected.box, abs=0.01)
        assert sum(map(len, ours.detect(pixels))) > 2


def save_with_detections(folder: Path, model: Path) -> Path:
    """Save scenes in COCO's layout; the objects in them are those that a detector finds."""
    (folder / "images").mkdir(parents=True)
    predictor = reslab.load_detector(model, threshold=0.3)
    images, objects = [], []
    for number in range(3):
        pixels = SCENES.test.image(number)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        height, width = pixels.shape[:2]
        images.append(
            {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        )
        for found in predictor.detect(pixels):
            x0, y0, x1, y1 = found.box
            objects.append(
                {"id": len(objects), "image_id": number, "category_id": int(found.id),
                 "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            )  # fmt: skip
    categories = [
        {"id": int(key), "name": name}
        for key, name in zip(SCENES.test.ids, SCENES.test.classes, strict=True)
    ]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_average_precision_is_its_models(folder: Path, tmp_path: Path) -> None:
    scenes = save_with_detections(tmp_path / "scenes", folder / "model.safetensors")
    ours, theirs = (
        reslab.evaluate(folder / f"model{suffix}", data=scenes, on_event=None)[0].report.as_dict()
        for suffix in (".safetensors", ".onnx")
    )
    assert theirs == ours
    assert ours["map_50"] > 50
    with pytest.raises(ValueError, match="an exported detector, which cannot join an ensemble"):
        reslab.evaluate([folder / "model.onnx", folder], data=scenes, on_event=None)


def test_the_command_finds_the_same_objects(folder: Path, tmp_path: Path, capsys) -> None:
    image = tmp_path / "scene.png"
    Image.fromarray(SCENES.test.image(0)).save(image)
    lines = []
    for suffix in (".safetensors", ".onnx"):
        path = folder / f"model{suffix}"
        assert main(["detect", str(path), str(image), "--threshold", "0.1"]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert lines[0].count("\n") > 1


def test_what_it_cannot_do_is_refused(folder: Path, refused: Refused, tmp_path: Path) -> None:
    file = folder / "model.onnx"
    line = refused("detect", file, file, "--refine")
    assert "refine=True: an exported detector keeps the settings" in line
    assert "is a detector: use detect" in refused("predict", file, file)
    graph = onnx.load(file)
    helper.set_model_props(graph, {"task": "classify"})
    onnx.save(graph, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="is a classifier, not a detector: use predict"):
        reslab.load_detector(tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="no model at"):
        reslab.load_detector(tmp_path / "none.onnx")


def test_metadata_that_no_export_writes_are_refused(folder: Path, tmp_path: Path) -> None:
    graph = onnx.load(folder / "model.onnx")
    written = {item.key: item.value for item in graph.metadata_props}
    for changes, message in (
        ({SEARCH_KEY: '{"shorter": -1}'}, "shorter"),
        ({SEARCH_KEY: "{"}, "its metadata cannot be parsed"),
        ({"reslab.ids": "[]"}, "ids is empty"),
        ({"names": "{1: 'a'}"}, "must number the classes from 0"),
    ):
        helper.set_model_props(graph, written | changes)
        onnx.save(graph, tmp_path / "changed.onnx")
        with pytest.raises(ValueError, match=message):
            reslab.load_detector(tmp_path / "changed.onnx")
    del written[SEARCH_KEY]
    helper.set_model_props(graph, written)
    onnx.save(graph, tmp_path / "changed.onnx")
    with pytest.raises(ValueError, match=r"not exported by reslab.*no reslab\.search"):
        reslab.load_detector(tmp_path / "changed.onnx")
