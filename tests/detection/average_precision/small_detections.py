"""Ground truth and detections of a few boxes."""

from collections.abc import Sequence

import torch

from reslab.data.boxes.sets import Detections, DetectionSet, GroundTruth

Box = tuple[float, float, float, float]

A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)

HALF_OF_B, LESS_THAN_HALF = (20.0, 0.0, 30.0, 5.0), (20.0, 0.0, 30.0, 4.99)

ELSEWHERE = (50.0, 50.0, 60.0, 60.0)


def truth(*boxes: Box, label: int = 0, difficult: Sequence[int] = (), crowd=()) -> GroundTruth:
    places = range(len(boxes))
    return GroundTruth(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.full((len(boxes),), label),
        torch.tensor([at in difficult for at in places], dtype=torch.bool),
        torch.tensor([at in crowd for at in places], dtype=torch.bool),
    )


def detected(*rows: tuple[float, Box], label: int = 0) -> Detections:
    return Detections(
        torch.tensor([box for _, box in rows], dtype=torch.float64).reshape(-1, 4),
        torch.tensor([score for score, _ in rows], dtype=torch.float64),
        torch.full((len(rows),), label),
    )


def a_set(
    truths: Sequence[GroundTruth], classes: Sequence[str] = ("cat",), keys=None
) -> DetectionSet:
    number = len(truths)
    return DetectionSet(
        "scenes", [f"{at}.png" for at in range(number)], truths, tuple(classes), tuple(classes),
        lambda file: b"", [(100, 100)] * number, keys or list(range(number)),
    )  # fmt: skip


# correct, wrong (second match of A), on a difficult box, correct, wrong (no box), correct
TRUTHS = [truth(A, B), truth(A, B, difficult=[1])]

FOUND = [
    detected((0.4, HALF_OF_B), (0.9, A), (0.8, A)),
    detected((0.7, B), (0.6, A), (0.5, ELSEWHERE)),
]
