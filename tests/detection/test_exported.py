"""A detector in an exported file: what it computes, and which settings can be changed."""

import numpy as np
import pytest
import torch

from reslab.data.boxes.sets import Detections
from reslab.detection.exported import ExportedDetector
from reslab.detection.inference import detect_objects
from reslab.detection.recipe import InferenceConfig

SEARCH = InferenceConfig(shorter=48, longest=96, threshold=0.1, most=3)
SCORES = torch.tensor([0.9, 0.5, 0.2, 0.05])
PIXELS = np.zeros((4, 4, 3), np.uint8)


def found_above(pixels: np.ndarray, threshold: float) -> Detections:
    scores = SCORES[threshold < SCORES]
    return Detections(torch.ones(len(scores), 4), scores, torch.zeros(len(scores)).long())


EXPORTED = ExportedDetector(found_above, ("a",), ("1",), SEARCH, {})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, 3), ({"threshold": 0.3}, 2), ({"threshold": 0.01}, 3), ({"most": 1}, 1)],
)
def test_threshold_and_number_can_be_changed(changes: dict[str, float], expected: int) -> None:
    search = EXPORTED.search_with(changes)
    assert detect_objects(EXPORTED, PIXELS, search).scores.tolist() == SCORES[:expected].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refine": True}, "refine=True: an exported detector keeps .* here refine=False"),
        ({"scales": (48, 64)}, "scales=.*: an exported detector keeps the settings"),
        ({"shorter": 64}, "shorter=64: .* here shorter=48"),
        ({"most": 4}, "most=4: the file returns at most 3 detections"),
        ({"threshold": 2}, "threshold cannot be 2"),
    ],
)
def test_settings_of_the_graph_cannot(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EXPORTED.search_with(changes)


def test_outputs_that_are_not_numbers_are_an_error() -> None:
    def nan(pixels: np.ndarray, threshold: float) -> Detections:
        return Detections(torch.ones(1, 4), torch.tensor([torch.nan]), torch.zeros(1).long())

    broken = ExportedDetector(nan, ("a",), ("1",), SEARCH, {})
    with pytest.raises(RuntimeError, match="infinite or NaN"):
        detect_objects(broken, PIXELS, SEARCH)
