"""A detector's ONNX graph detects the same objects as the detector."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from tests.deploy.graphs import session_of
from tests.detection.small import LARGE, detector

from reslab.data.boxes.sets import Detections
from reslab.deploy.detection_match import match_detections
from reslab.deploy.detector import detector_graph
from reslab.detection.inference import Detector, detect_objects
from reslab.detection.recipe import InferenceConfig

Config = Mapping[str, object]
SURE = 10  # scores are spread, so that no two are equal up to rounding
# resized to a shorter side of 48 pixels and a longer one of 96 at most, these keep their size
KEPT = ((48, 48), (48, 61), (81, 48), (96, 48), (1, 96), (96, 2))


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def detector_with(config: Config) -> Detector:
    return detector(seed=3, search=None, sure=SURE, **config)


def run(session: InferenceSession, pixels: np.ndarray, threshold: float) -> Detections:
    inputs = {"image": pixels, "threshold": np.array([threshold], np.float32)}
    outputs = session.run(["boxes", "scores", "labels"], inputs)
    return Detections(*(torch.from_numpy(np.asarray(part)) for part in outputs))


def must_agree(one: Detections, other: Detections) -> None:
    assert len(one) == len(other)
    assert bool((one.scores.diff() <= 0).all())  # best first
    matches = match_detections(one, other, scores=1e-4, pixels=0.01, above=0)
    assert matches.unmatched == 0, (one, other)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"trunk": LARGE},
        {"trunk": LARGE, "context": True},
        {"pooling": "align"},
        {"norm": "group"},
        {"pooled": 1},
    ],
    ids=str,
)
def test_detections_are_those_of_the_detector(config: Config) -> None:
    model = detector_with(config)
    session = session_of(detector_graph(model))
    found = 0
    for seed, (height, width) in enumerate(KEPT):
        pixels = image(height, width, seed)
        expected = detect_objects(model, pixels, model.search)
        must_agree(run(session, pixels, model.search.threshold), expected)
        found += len(expected)
    assert found > 20, found


def test_an_image_of_any_size_is_resized_exactly() -> None:
    model = detector_with({"trunk": LARGE})
    session = session_of(detector_graph(model))
    for shape in ((60, 83), (33, 90), (1, 1), (2, 40), (300, 20), (131, 96), (40, 41)):
        pixels = image(*shape)
        must_agree(
            run(session, pixels, model.search.threshold),
            detect_objects(model, pixels, model.search),
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 0.3, "most": 3},
        {"overlap": 0.0},
        {"before": 5, "proposals": 3},
        {"smallest": 20},
        {"smallest": 500},  # no proposal is large enough
        {"threshold": 1.0},
    ],
    ids=str,
)
def test_settings_are_those_of_the_detector(changes: Config) -> None:
    search = InferenceConfig(shorter=48, longest=96, smallest=4, proposals=30)
    model = detector(sure=SURE, search=search.with_changes(changes))
    session = session_of(detector_graph(model))
    for shape in ((48, 61), (81, 48)):
        pixels = image(*shape)
        must_agree(
            run(session, pixels, model.search.threshold),
            detect_objects(model, pixels, model.search),
        )
