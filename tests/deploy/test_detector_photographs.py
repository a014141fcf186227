"""A detector on ImageNet's ResNet-18 finds the same objects in photographs after its export."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.deploy.graphs import session_of

from reslab.data.boxes.sets import Detections
from reslab.deploy.detection_match import NO_MATCHES, match_detections
from reslab.deploy.detector import detector_graph
from reslab.detection.config import DetectorConfig
from reslab.detection.inference import Detector, detect_objects, prepare_for_inference
from reslab.detection.network import build_detector
from reslab.detection.recipe import InferenceConfig
from reslab.models.convert.importer import import_model

PHOTOGRAPHS = 40


def detector_on_resnet18(weights: Path) -> Detector:
    """Build a detector whose trunk is trained, with random heads of widely spread outputs."""
    trained = import_model(weights, "resnet18", None).model
    config = DetectorConfig(
        trunk=trained.config, classes=20, sizes=(64, 128, 256), width=64, pooled=7
    )
    net = build_detector(config, torch.Generator().manual_seed(1)).eval().requires_grad_(False)
    state = trained.net.state_dict()
    net.load_state_dict({key: state.get(key, value) for key, value in net.state_dict().items()})
    net.proposals.objectness.weight.mul_(20)
    net.proposals.deltas.weight.mul_(5)
    net.classifier.weight.mul_(12)
    net.regressor.weight.mul_(20)
    names = tuple(map(str, range(20)))
    search = InferenceConfig(shorter=200, longest=333, before=1000, proposals=40)
    return Detector(net, names, names, trained.preprocessing, search, {}, [])


@pytest.mark.slow
def test_every_detection_has_its_match(shared: Path, resnet18_file: Path) -> None:
    model = detector_on_resnet18(resnet18_file)
    session, ready = session_of(detector_graph(model)), prepare_for_inference(model)
    threshold = model.search.threshold
    total = NO_MATCHES
    files = sorted((shared / "detection" / "coco128" / "images").iterdir())[:PHOTOGRAPHS]
    assert len(files) == PHOTOGRAPHS
    for file in files:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        inputs = {"image": pixels, "threshold": np.array([threshold], np.float32)}
        found = session.run(["boxes", "scores", "labels"], inputs)
        boxes, scores, labels = (torch.from_numpy(np.asarray(part)) for part in found)
        total += match_detections(
            detect_objects(ready, pixels, model.search), Detections(boxes, scores, labels),
            scores=2e-3, pixels=0.5, above=threshold,
        )  # fmt: skip
    assert total.detections > 500
    assert total.unmatched == 0
