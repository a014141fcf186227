import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detection import references
from tests.detection.references import random_boxes

from reslab.detection.box_ops import REGION_STDS, encode_boxes
from reslab.detection.targets import (
    BACKGROUND,
    IGNORED,
    Anchors,
    anchor_targets,
    assign_anchors,
    assign_proposals,
    inside_image,
    region_targets,
    sample,
)  # fmt: skip

# printed by the released code's generate_anchors, with inclusive corners; also ordered by ratio,
# then by size
RELEASED = [
    [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
    [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
    [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
]  # fmt: skip


def test_anchors_of_the_first_cell_are_the_released_codes() -> None:
    anchors = Anchors()
    assert anchors.per_cell == 9
    inclusive = anchors.grid(1, 1) - torch.tensor([0.0, 0, 1, 1])
    assert inclusive.tolist() == RELEASED


def test_anchors_go_row_by_row_cell_by_cell() -> None:
    anchors = Anchors()
    grid = anchors.grid(2, 3).view(2, 3, 9, 4)
    first = anchors.grid(1, 1)
    for row in range(2):
        for column in range(3):
            shift = torch.tensor([column, row, column, row]) * 16
            assert torch.equal(grid[row, column], first + shift)


def test_sizes_ratios_and_stride_are_arguments() -> None:
    grid = Anchors(sizes=(8, 32), ratios=(1,), stride=4).grid(1, 2)
    assert grid.tolist() == [
        [-2, -2, 6, 6],
        [-14, -14, 18, 18],
        [2, -2, 10, 6],
        [-10, -14, 22, 18],
    ]
    sides = Anchors(sizes=(64,)).shapes()[:, 2:] * 2
    assert sides.tolist() == [[92, 48], [64, 64], [44, 88]]  # areas 4416, 4096, 3872


def test_inside_is_up_to_the_border() -> None:
    boxes = torch.tensor([[0.0, 0, 30, 20], [-1, 0, 5, 5], [0, 0, 31, 20], [0, 0, 30, 21]])
    assert inside_image(boxes, width=30, height=20).tolist() == [True, False, False, False]


def test_how_many_anchors_are_inside_an_image() -> None:
    """Counted by the positions that each shape may have along the sides.

    In all, an image of 1000 x 600 has about 20,000 anchors (Faster R-CNN, Sec. 3.1.3).
    """
    anchors = Anchors()
    grid = anchors.grid(38, 63)
    assert len(grid) == 21546
    fits = 0
    for x, y in anchors.shapes()[:, 2:].tolist():  # half the sides
        across = sum(x <= 8 + 16 * cell <= 1000 - x for cell in range(63))
        down = sum(y <= 8 + 16 * cell <= 600 - y for cell in range(38))
        fits += across * down
    assert inside_image(grid, 1000, 600).sum() == fits


NOTHING = torch.zeros(0, 4)


def strips(*ends: float) -> torch.Tensor:
    """Return boxes from 0 to `ends`, one pixel high: the IoU with a box to 10 is end / 10."""
    return torch.tensor([[0.0, 0, end, 1] for end in ends])


def everywhere(anchors: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(anchors), dtype=torch.bool)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_anchors_by_hand() -> None:
    anchors, truths = strips(10, 8, 7, 5, 3, 2, 1), strips(10)
    assigned = assign_anchors(anchors, everywhere(anchors), truths, NOTHING)
    assert assigned.tolist() == [0, 0, -2, -2, -2, -1, -1]  # exactly 0.7 and 0.3 are neither
    assert (BACKGROUND, IGNORED) == (-1, -2)


def test_the_closest_anchors_of_a_truth_are_positive_however_far() -> None:
    anchors, truths = strips(2, 1, 2, 1.5), strips(10)
    assigned = assign_anchors(anchors, everywhere(anchors), truths, NOTHING)
    assert assigned.tolist() == [0, -1, 0, -1]  # both of the equal maxima


def test_the_closest_anchor_takes_the_truth_that_it_overlaps_most() -> None:
    anchors, truths = strips(9, 1), strips(10, 30)  # 0.9, 0.3 and 0.1, 0.03
    assigned = assign_anchors(anchors, everywhere(anchors), truths, NOTHING)
    assert assigned.tolist() == [0, -1]


def test_anchors_that_cross_the_border_are_ignored() -> None:
    anchors, truths = strips(10, 4, 1), strips(10)
    inside = torch.tensor([False, True, True])
    assert assign_anchors(anchors, inside, truths, NOTHING).tolist() == [-2, 0, -1]


def test_a_truth_that_no_anchor_touches_makes_none_positive() -> None:
    far = torch.tensor([[100.0, 100, 110, 110]])
    anchors = strips(10, 5)
    assert assign_anchors(anchors, everywhere(anchors), far, NOTHING).tolist() == [-1, -1]


def test_without_truths_every_anchor_is_background() -> None:
    boxes = strips(10, 5)
    assert assign_anchors(boxes, everywhere(boxes), NOTHING, NOTHING).tolist() == [-1, -1]
    assert assign_proposals(boxes, NOTHING, NOTHING, background=(0, 0.5)).tolist() == [-1, -1]
    assert assign_proposals(boxes, NOTHING, NOTHING).tolist() == [-2, -2]


def test_proposals_by_hand() -> None:
    proposals, truths = strips(10, 5, 4.9, 1, 0.9), strips(10)
    assert assign_proposals(proposals, truths, NOTHING).tolist() == [0, 0, -1, -1, -2]
    assigned = assign_proposals(proposals, truths, NOTHING, foreground=0.6, background=(0, 0.4))
    assert assigned.tolist() == [0, -2, -2, -1, -1]


def test_boxes_mostly_in_an_ignored_region_are_not_background() -> None:
    boxes = strips(10, 2)
    crowd = torch.tensor([[0.0, 0, 1.5, 1]])  # 15 % of the first, 75 % of the second
    assert assign_anchors(boxes, everywhere(boxes), strips(10), crowd).tolist() == [0, -2]
    assert assign_proposals(boxes, strips(10), crowd).tolist() == [0, -2]
    wide = torch.tensor([[0.0, 0, 100, 1]])  # an object in a crowd is still an object
    assert assign_anchors(boxes, everywhere(boxes), strips(10), wide).tolist() == [0, -2]
    less = torch.tensor([[0.0, 0, 1.3, 1]])  # 65 %
    assert assign_proposals(boxes, strips(10), less).tolist() == [0, -1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_against_plain_loops(seed: int) -> None:
    rng = seeded(seed)
    boxes, truths = random_boxes(25, 12, rng), random_boxes(3, 12, rng)
    inside = torch.rand(25, generator=rng) < 0.8
    table = [[references.iou(a, b) for b in truths.tolist()] for a in boxes.tolist()]
    within = [row for row, counts in zip(table, inside.tolist(), strict=True) if counts]
    closest = [max((row[k] for row in within), default=0) for k in range(3)]
    anchors, proposals = [], []
    for row, counts in zip(table, inside.tolist(), strict=True):
        best, truth = max(row), row.index(max(row))
        near = any(row[k] > 0 and row[k] > closest[k] - 1e-9 for k in range(3))
        positive = best > 0.7 + 1e-6 or near
        kind = truth if positive else BACKGROUND if best < 0.3 - 1e-6 else IGNORED
        anchors.append(kind if counts else IGNORED)
        kind = truth if best >= 0.5 - 1e-6 else BACKGROUND if best >= 0.1 - 1e-6 else IGNORED
        proposals.append(kind)
    assert assign_anchors(boxes, inside, truths, NOTHING).tolist() == anchors
    assert assign_proposals(boxes, truths, NOTHING).tolist() == proposals


def test_samples_hold_at_most_their_share_of_positives() -> None:
    assigned = torch.cat([torch.arange(40), torch.full((300,), BACKGROUND), torch.full((9,), -2)])
    objects, rest = sample(assigned, 128, 0.25, seeded(0))
    assert (len(objects), len(rest)) == (32, 96)
    assert (assigned[objects] >= 0).all()
    assert (assigned[rest] == BACKGROUND).all()
    assert len(objects.unique()) == 32
    assert len(rest.unique()) == 96
    objects, rest = sample(assigned, 256, 0.5, seeded(0))
    assert (len(objects), len(rest)) == (40, 216)  # background fills up the sample
    objects, rest = sample(assigned[:50], 64, 0.25, seeded(0))
    assert (len(objects), len(rest)) == (16, 10)  # as far as there is any


def test_samples_are_a_function_of_the_generator() -> None:
    assigned = torch.randint(-2, 5, (500,), generator=seeded(1))
    one, same, other = (torch.cat(sample(assigned, 64, 0.25, seeded(s))) for s in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_candidate_is_sampled_equally_often() -> None:
    rng = seeded(0)
    assigned = torch.tensor([0, BACKGROUND] * 10)
    counts = torch.zeros(20)
    for _ in range(1000):
        objects, rest = sample(assigned, 8, 0.25, rng)
        counts[objects] += 1
        counts[rest] += 1
    assert counts[::2].sub(200).abs().max() < 60  # 2 of 10, with a standard deviation of 13
    assert counts[1::2].sub(600).abs().max() < 70  # 6 of 10


def test_targets_of_anchors() -> None:
    anchors, truths = strips(10, 8, 4, 1), strips(20, 10)
    targets = anchor_targets(
        anchors, everywhere(anchors), truths, NOTHING, seeded(0), count=3, positive=1 / 3
    )
    first = targets.anchors[0].item()
    assert first in (0, 1)  # the first two are positive, for the second truth; one is sampled
    assert targets.anchors[1:].tolist() == [3]  # one is background, the third neither
    assert targets.objects.tolist() == [1, 0]
    assert torch.equal(targets.deltas, encode_boxes(anchors[first : first + 1], truths[1:]))


def test_targets_of_regions() -> None:
    proposals, truths = strips(8, 3), strips(10)
    labels = torch.tensor([4])
    targets = region_targets(proposals, truths, labels, NOTHING, seeded(0), count=8)
    # the truth itself is a proposal; two of 8 may be foreground
    assert sorted(targets.boxes[:2, 2].tolist()) == [8, 10]
    assert targets.boxes[2:].tolist() == [[0, 0, 3, 1]]
    assert targets.labels.tolist() == [5, 5, 0]
    assert torch.equal(
        targets.deltas, encode_boxes(targets.boxes[:2], truths.expand(2, 4), REGION_STDS)
    )
    assert targets.deltas[targets.boxes[:2, 2] == 10].tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("low", [0.0, 0.1])
def test_targets_without_truths(low: float) -> None:
    labels = torch.zeros(0, dtype=torch.int64)
    boxes = strips(5, 6, 7)
    targets = region_targets(boxes, NOTHING, labels, NOTHING, seeded(0), background=(low, 0.5))
    assert targets.labels.tolist() == ([0, 0, 0] if low == 0 else [])
    assert targets.deltas.shape == (0, 4)
    targets = anchor_targets(boxes, everywhere(boxes), NOTHING, NOTHING, seeded(0))
    assert sorted(targets.anchors.tolist()) == [0, 1, 2]
    assert targets.objects.tolist() == [0, 0, 0]
