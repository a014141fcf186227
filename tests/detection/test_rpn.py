from math import exp

import pytest
import torch
from tests.detection import references
from torch import Tensor

from reslab.detection.box_ops import decode_boxes, iou
from reslab.detection.network import PROPOSAL_NMS, AnchorPredictions, ProposalNetwork
from reslab.detection.targets import Anchors

ANCHORS = Anchors(sizes=(8, 16), ratios=(0.5, 1, 2), stride=4)


def silent() -> ProposalNetwork:
    """One whose every weight is zero."""
    net = ProposalNetwork(2, 3, ANCHORS).requires_grad_(False)
    for weight in net.parameters():
        weight.zero_()
    return net


@pytest.mark.parametrize(("row", "column", "anchor"), [(0, 0, 0), (1, 4, 3), (2, 1, 5)])
def test_a_weight_that_answers_to_one_cell_and_one_anchor_alone(
    row: int, column: int, anchor: int
) -> None:
    """The anchor that speaks lies around the cell that shines, and has the shape of its channel."""
    net = silent()
    net.conv.weight[1, 0, 1, 1] = 1
    net.objectness.weight[anchor, 1] = 5
    net.deltas.weight[4 * anchor + 2, 1] = 0.5  # its width grows
    features = torch.zeros(1, 2, 3, 5)
    features[0, 0, row, column] = 1
    features[0, 1] = 7  # a channel that nobody listens to
    found = net(features)
    assert found.anchors.shape == (3 * 5 * 6, 4)
    (spoken,) = found.logits.nonzero()[:, 0].tolist()
    assert spoken == (row * 5 + column) * 6 + anchor
    assert found.logits[spoken] == 5
    expected = torch.zeros(90, 4)
    expected[spoken, 2] = 0.5
    assert torch.equal(found.deltas, expected)
    x0, y0, x1, y1 = found.anchors[spoken].tolist()
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (4 * column + 2, 4 * row + 2)
    shape = ANCHORS.shapes()[anchor].tolist()
    assert [x1 - x0, y1 - y0] == [shape[2] - shape[0], shape[3] - shape[1]]


def test_the_window_is_three_by_three_and_negative_hidden_values_are_cut() -> None:
    net = silent()
    net.conv.weight[0, 0, 0, 2] = 1  # what lies above and to the right
    net.objectness.weight[2, 0] = 1
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0, 1, 3], features[0, 0, 2, 1] = 2, -3
    (spoken,) = net(features).logits.nonzero()[:, 0].tolist()
    assert spoken == (2 * 4 + 2) * 6 + 2


def test_answers_are_float32_and_learn() -> None:
    net = ProposalNetwork(2, 3, ANCHORS)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    found = net.to(torch.bfloat16)(torch.ones(1, 2, 2, 2, dtype=torch.bfloat16))
    assert found.logits.dtype == found.deltas.dtype == found.anchors.dtype == torch.float32
    (found.logits.sum() + found.deltas.sum()).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in net.parameters())


def slow_boxes(
    found: AnchorPredictions, width: float, height: float, before: int, after: int, smallest: float
) -> list[list[float]]:
    """One anchor at a time, in Python's arithmetic."""
    kept = []
    for index, (anchor, delta) in enumerate(
        zip(found.anchors.tolist(), found.deltas.tolist(), strict=True)
    ):
        x0, y0, x1, y1 = anchor
        across, down = x1 - x0, y1 - y0
        x, y = (x0 + x1) / 2 + delta[0] * across, (y0 + y1) / 2 + delta[1] * down
        across, down = (
            side * min(exp(min(growth, 100)), 62.5)
            for side, growth in ((across, delta[2]), (down, delta[3]))
        )
        box = [x - across / 2, y - down / 2, x + across / 2, y + down / 2]
        box = [
            min(max(corner, 0), edge)
            for corner, edge in zip(box, (width, height, width, height), strict=True)
        ]
        if box[2] - box[0] >= smallest and box[3] - box[1] >= smallest:
            kept.append((found.logits[index].item(), -index, box))
    best = [box for _, _, box in sorted(kept, reverse=True)[:before]]
    stay: list[list[float]] = []
    for box in best:
        if all(references.iou(box, other) <= 0.7 for other in stay):
            stay.append(box)
    return stay[:after]


def said(cells: tuple[int, int], seed: int, steps: int | None = None) -> AnchorPredictions:
    """Random answers; of few distinct scores where there are `steps`."""
    rng = torch.Generator().manual_seed(seed)
    anchors = ANCHORS.over(*cells)
    logits = torch.randn(len(anchors), generator=rng)
    if steps:
        logits = (logits * steps).round() / steps
    return AnchorPredictions(anchors, logits, torch.randn(len(anchors), 4, generator=rng) * 0.4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("before", "after", "smallest"), [(10_000, 10_000, 0.5), (60, 20, 5), (300, 7, 9.5), (5, 50, 2)]
)
def test_proposals_against_a_slow_reference(
    seed: int, before: int, after: int, smallest: float
) -> None:
    found = said((7, 9), seed)
    boxes = found.boxes(34.5, 27, before=before, after=after, smallest=smallest)
    expected = slow_boxes(found, 34.5, 27, before, after, smallest)
    assert len(boxes) == len(expected) <= after
    torch.testing.assert_close(boxes, torch.tensor(expected), rtol=1e-5, atol=1e-4)


def test_equal_scores_keep_the_order_of_the_anchors() -> None:
    found = said((5, 6), 1, steps=1)
    assert len(found.logits.unique()) < 9
    boxes = found.boxes(24, 20, before=50, after=30, smallest=1)
    expected = slow_boxes(found, 24, 20, 50, 30, 1)
    torch.testing.assert_close(boxes, torch.tensor(expected), rtol=1e-5, atol=1e-4)


def test_small_boxes_are_dropped_before_the_best_are_taken() -> None:
    """Else an image whose best boxes are slivers would have no proposal."""
    anchors = torch.tensor([[0.0, 0, 3, 30], [0, 0, 10, 10], [20, 0, 30, 10]])
    found = AnchorPredictions(anchors, torch.tensor([3.0, 1, 2]), torch.zeros(3, 4))
    assert found.boxes(50, 50, before=1, after=1, smallest=4).tolist() == [[20, 0, 30, 10]]
    assert found.boxes(50, 50, before=9, after=9, smallest=10).tolist() == [
        [20, 0, 30, 10], [0, 0, 10, 10],
    ]  # fmt: skip
    assert found.boxes(50, 50, before=9, after=9, smallest=10.01).shape == (0, 4)


def test_boxes_are_clipped_before_they_are_measured() -> None:
    anchors = torch.tensor([[-90.0, 0, 9, 20], [-90, 0, 10, 20]])  # 9 and 10 pixels are inside
    found = AnchorPredictions(anchors, torch.tensor([2.0, 1]), torch.zeros(2, 4))
    assert found.boxes(40, 40, before=9, after=9, smallest=10).tolist() == [[0, 0, 10, 20]]


def test_an_overlap_of_seven_tenths_is_let_pass() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 7]])  # IoU 0.7
    assert iou(boxes, boxes)[0, 1] <= PROPOSAL_NMS
    found = AnchorPredictions(boxes, torch.tensor([2.0, 1]), torch.zeros(2, 4))
    assert len(found.boxes(40, 40, before=9, after=9, smallest=0)) == 2
    more = AnchorPredictions(boxes + torch.tensor([0, 0, 0, 0.1]), found.logits, found.deltas)
    assert len(more.boxes(40, 40, before=9, after=9, smallest=0)) == 1


def test_proposals_are_places_that_no_gradient_goes_through() -> None:
    found = said((4, 4), 0)
    learning = AnchorPredictions(
        found.anchors, found.logits.requires_grad_(), found.deltas.requires_grad_()
    )
    boxes = learning.boxes(16, 16, before=20, after=10, smallest=1)
    assert len(boxes)
    assert not boxes.requires_grad
    assert decode_boxes(learning.anchors, learning.deltas).requires_grad


def test_a_growth_that_overflows_gives_the_image() -> None:
    anchors = torch.tensor([[10.0, 10, 20, 20]])
    found = AnchorPredictions(anchors, torch.zeros(1), torch.tensor([[0.0, 0, 500, 500]]))
    assert found.boxes(90, 70, before=1, after=1, smallest=1).tolist() == [[0, 0, 90, 70]]


def nothing(count: int) -> Tensor:
    return torch.zeros(0, count)


def test_no_anchor_no_proposal() -> None:
    found = AnchorPredictions(nothing(4), torch.zeros(0), nothing(4))
    assert found.boxes(9, 9, before=5, after=5, smallest=0).shape == (0, 4)
