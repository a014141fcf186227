"""Box arithmetic in ONNX against `reslab.detection.box_ops` and loops."""

import numpy as np
import pytest
import torch
from tests.deploy.graphs import run_steps, runner
from tests.detection import references

from reslab.deploy.boxes import (
    add_clipping,
    add_decoding,
    add_is_large,
    add_resized_sides,
    add_suppression,
)
from reslab.detection.box_ops import (
    REGION_STDS,
    clip,
    decode_boxes,
    large_enough,
    resize_shortest_edge,
)

RNG = np.random.default_rng(3)


def boxes(*shape: int) -> np.ndarray:
    """Return random boxes, [..., 4], with fractions of pixels."""
    corners = 100 * RNG.random((*shape, 2, 2))
    return np.concatenate([corners.min(-2), corners.max(-2)], -1).astype(np.float32)


@pytest.mark.parametrize(("shorter", "longest"), [(600, 1000), (5, 9), (64, 64)])
def test_sides_after_resizing_are_rounded_as_fractions(shorter: int, longest: int) -> None:
    sizes = [(1, 1), (1, 5000), (2, 3), (480, 640), (375, 500), (3000, 4000)]
    # a side of 5 pixels, doubled, often ends in halves
    sizes += [(height, width) for height in range(1, 24) for width in (1, 2, 9, 10, 11, 22, 30)]
    resized = runner(
        lambda step, names: [add_resized_sides(step, names[0], shorter, longest)],
        {"sides": np.zeros(2, np.int64)},
    )
    for size in sizes:
        (sides,) = resized({"sides": np.array(size)})
        assert tuple(sides[::-1]) == resize_shortest_edge(size[1], size[0], shorter, longest), size


def test_decoding_clipping_and_size() -> None:
    references_, deltas = boxes(50, 1), RNG.normal(0, 3, (50, 3, 4)).astype(np.float32)
    deltas[0, 0] = 100  # growth is bounded
    expected = decode_boxes(
        torch.from_numpy(references_).expand(50, 3, 4), torch.from_numpy(deltas), REGION_STDS
    )
    limits = np.array([70, 60, 70, 60], np.float32)
    decoded, clipped = run_steps(
        lambda step, names: [
            add_decoding(step, "references", "deltas", REGION_STDS),
            add_clipping(step, "references", "limits"),
        ],
        {"references": references_, "deltas": deltas, "limits": limits},
    )
    torch.testing.assert_close(torch.from_numpy(decoded), expected, rtol=1e-6, atol=1e-5)
    assert clipped.tolist() == clip(torch.from_numpy(references_), 70, 60).tolist()
    (large,) = run_steps(
        lambda step, names: [add_is_large(step, "boxes", np.float32(30))],
        {"boxes": references_[:, 0]},
    )
    assert large.tolist() == large_enough(torch.from_numpy(references_[:, 0]), 30).tolist()
    assert 0 < large.sum() < len(large)


def test_suppression_within_each_class_has_its_own_boxes_and_ties_go_to_the_first() -> None:
    own = boxes(4, 60)
    scores = RNG.integers(0, 20, (4, 60)).astype(np.float32) / 20  # many ties
    scores[3] = 0.2
    least = np.array([0.2], np.float32)
    (kept,) = run_steps(
        lambda step, names: [add_suppression(step, *names, most=60, overlap=0.4, above=least)],
        {"boxes": own, "scores": scores},
    )
    for label in range(4):
        candidates = np.flatnonzero(scores[label] > np.float32(0.2))
        expected = references.nms(
            torch.from_numpy(own[label, candidates]),
            torch.from_numpy(scores[label, candidates]),
            0.4,
        )
        assert kept[kept[:, 0] == label, 1].tolist() == candidates[expected].tolist()
    assert set(kept[:, 0]) == {0, 1, 2}
