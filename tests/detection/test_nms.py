import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detection import references
from tests.detection.references import random_boxes

from reslab.detection import box_ops as module
from reslab.detection.box_ops import box_voting, nms, nms_by_class

# the second overlaps the first by 0.6, the third the second by 0.6 but the first by 1/3
CHAIN = torch.tensor([[0.0, 0, 8, 1], [2, 0, 10, 1], [4, 0, 12, 1], [20, 0, 28, 1]])


def test_by_hand() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    assert nms(CHAIN, scores, 0.5).tolist() == [3, 0, 2]  # what is suppressed suppresses nothing
    assert nms(CHAIN, scores, 0.3).tolist() == [3, 0]
    assert nms(CHAIN, scores, 0.6).tolist() == [3, 0, 1, 2]  # only more than the threshold
    assert nms(CHAIN, scores, 0.5, most=2).tolist() == [3, 0]
    assert nms(CHAIN, scores, 0.5, most=0).tolist() == []
    assert nms(CHAIN[:0], scores[:0], 0.5).tolist() == []


def test_equal_scores_stay_in_their_order() -> None:
    boxes = CHAIN[:1].repeat(600, 1)
    assert nms(boxes, torch.ones(600), 0.5).tolist() == [0]
    assert nms(boxes, torch.ones(600), 1.0).tolist() == list(range(600))


@pytest.mark.parametrize("block", [1, 3, 7, 256])
def test_against_a_plain_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any seam between the blocks; scores of five values, so that many are equal."""
    monkeypatch.setattr(module, "NMS_BLOCK", block)
    rng = torch.Generator().manual_seed(block)
    for threshold in (0.0, 0.3, 0.7):
        boxes = random_boxes(40, 20, rng)
        scores = torch.randint(0, 5, (40,), generator=rng) / 4
        expected = references.nms(boxes, scores, threshold)
        assert nms(boxes, scores, threshold).tolist() == expected
        assert nms(boxes, scores, threshold, most=5).tolist() == expected[:5]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_classes_do_not_suppress_each_other(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    boxes, labels = random_boxes(30, 15, rng), torch.randint(0, 3, (30,), generator=rng)
    scores = torch.randint(0, 5, (30,), generator=rng) / 4
    stay = []
    for label in range(3):
        members = (labels == label).nonzero()[:, 0]
        own = references.nms(boxes[members], scores[members], 0.3)
        stay += members[own].tolist()
    stay.sort(key=lambda index: (-scores[index].item(), index))
    assert nms_by_class(boxes, scores, labels, 0.3).tolist() == stay
    assert nms_by_class(boxes, scores, labels, 0.3, most=4).tolist() == stay[:4]
    assert nms_by_class(boxes[:0], scores[:0], labels[:0], 0.3).tolist() == []


def test_votes_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 5], [0, 0, 10, 4]])
    scores = torch.tensor([0.6, 0.3, 0.1, 0.9])
    # half of the union counts, 0.4 of it does not: bottoms 10, 20 and 5, weighed
    expected = [[0, 0, 10, pytest.approx((0.6 * 10 + 0.3 * 20 + 0.1 * 5) / 1.0)]]
    assert box_voting(boxes[:1], boxes, scores).tolist() == expected
    assert box_voting(boxes[:1], boxes, scores, threshold=0.6).tolist() == boxes[:1].tolist()


def test_boxes_without_votes_stay() -> None:
    empty = torch.tensor([[3.0, 3, 3, 9]])
    assert box_voting(empty, empty, torch.ones(1)).tolist() == empty.tolist()
    assert box_voting(CHAIN, CHAIN, torch.zeros(4)).tolist() == CHAIN.tolist()
