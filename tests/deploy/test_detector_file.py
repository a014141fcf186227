"""A detector's export proves itself, and a wrong one cannot."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from tests.detection.small import SCENES, detector

from reslab.deploy.detection_match import Matches
from reslab.deploy.detector import detector_graph
from reslab.deploy.detector_file import exportable, try_detector, write_detector
from reslab.deploy.detector_proof import DetectorVerdict, prove_detector
from reslab.deploy.metadata import PARITY, detector_metadata
from reslab.deploy.onnx_file import onnx_bytes
from reslab.deploy.opening import open_exported_detector
from reslab.deploy.proof import ProofImages
from reslab.deploy.proof_images import seeded_image
from reslab.deploy.runtimes import OnnxRuntime
from reslab.detection.inference import Detector
from reslab.detection.recipe import InferenceConfig

SEARCH = InferenceConfig(shorter=48, longest=96, smallest=4, proposals=20)
IMAGES = ProofImages(
    [*(SCENES.test.image(index) for index in range(3)), *(seeded_image(n, 48) for n in range(9))],
    "scenes",
)
SOME = replace(IMAGES, images=IMAGES.images[:4])  # enough to find what is wrong
Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def model() -> Detector:
    return detector(sure=10, search=SEARCH)


@pytest.fixture(scope="module")
def proven(model: Detector) -> tuple[ModelProto, DetectorVerdict]:
    return try_detector(model, IMAGES)


def test_an_export_passes_its_proof(proven: tuple[ModelProto, DetectorVerdict]) -> None:
    _, verdict = proven
    assert verdict.passed, str(verdict)
    assert verdict.matches.detections > 40
    assert verdict.matches.unmatched == 0
    assert verdict.images == 12
    assert verdict.sizes >= 3
    assert "all matched" in str(verdict)


def prove(model: Detector, graph: ModelProto, folder: Path, **metadata: str) -> DetectorVerdict:
    """Return the verdict on a graph, saved with a detector's metadata, some of them replaced."""
    file = folder / "model.onnx"
    file.write_bytes(onnx_bytes(graph, detector_metadata(model) | metadata))
    return prove_detector(model, open_exported_detector(file), "onnxruntime", SOME)


def shifted(by: float) -> Change:
    return lambda values: values + by


def reversed_along(axis: int) -> Change:
    return lambda values: np.flip(values, axis)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("prepare.mean", shifted(20)),
        ("stem.0.weight", reversed_along(1)),  # BGR
        ("image.where.in1", shifted(3)),  # the shorter side
        ("float64.0.5", shifted(0.4)),  # resized pixels, less than half a pixel away
        ("proposals.add.in1", shifted(0.5)),  # anchors half a cell away
        ("regions.add.in1", shifted(-0.5)),  # regions in cells, rounded down
        ("regions.mul.3.in1", shifted(1)),  # longer bins
        ("classifier.weight", reversed_along(0)),  # classes
        ("regressor.weight", lambda values: 1.5 * values),  # forgotten deviations
        ("detections.nonmaxsuppression.in3", shifted(0.3)),  # overlap
        ("proposals.nonmaxsuppression.in2", shifted(-10)),  # number of proposals
    ],
)
def test_a_wrong_graph_fails(
    name: str,
    change: Change,
    model: Detector,
    proven: tuple[ModelProto, DetectorVerdict],
    tmp_path: Path,
) -> None:
    graph = deepcopy(proven[0])
    (tensor,) = [item for item in graph.graph.initializer if item.name == name]
    values = numpy_helper.to_array(tensor)
    wrong = np.ascontiguousarray(change(values)).astype(values.dtype).reshape(values.shape)
    tensor.CopyFrom(numpy_helper.from_array(wrong, name))
    verdict = prove(model, graph, tmp_path)
    assert not verdict.passed, str(verdict)
    assert verdict.matches.unmatched > 0
    assert "without a match" in str(verdict)


def test_wrong_names_fail(
    model: Detector, proven: tuple[ModelProto, DetectorVerdict], tmp_path: Path
) -> None:
    names = str(dict(enumerate(model.classes[::-1])))
    verdict = prove(model, proven[0], tmp_path, names=names)
    assert not verdict.passed
    assert "classes named differently" in str(verdict)


def test_what_a_detector_never_finds_is_not_proven(model: Detector, tmp_path: Path) -> None:
    model = replace(model, search=SEARCH.with_changes({"smallest": 500}))  # no proposals
    verdict = prove(model, detector_graph(model), tmp_path)
    assert not verdict.passed
    assert "0 detections, too few for a proof" in str(verdict)


def test_only_a_proven_file_is_written_with_its_verdict(
    model: Detector, proven: tuple[ModelProto, DetectorVerdict], tmp_path: Path
) -> None:
    graph, verdict = proven
    out = tmp_path / "model.onnx"
    failed = replace(verdict, matches=Matches(40, 20, 0.0, 0.0))
    with pytest.raises(RuntimeError, match=r"not written: .*20 of 40 without a match"):
        write_detector(model, graph, out, failed)
    assert not list(tmp_path.iterdir())
    assert write_detector(model, graph, out, verdict) == out.stat().st_size
    stored = OnnxRuntime(out).metadata()[PARITY]
    assert json.loads(stored) == json.loads(json.dumps(verdict.as_dict()))


def test_settings_of_appendix_b_are_left_out(model: Detector) -> None:
    search = SEARCH.with_changes({"refine": True, "scales": (32, 48)})
    assert exportable(replace(model, search=search)).search == SEARCH
