import torch

from reslab.detection.targets import Anchors, inside_image

# printed by the released code's generate_anchors, its last pixels inclusive; there for each ratio
# all sizes too
RELEASED = [
    [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
    [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
    [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
]  # fmt: skip


def test_the_first_cell_is_the_released_codes() -> None:
    anchors = Anchors()
    assert anchors.per_cell == 9
    inclusive = anchors.over(1, 1) - torch.tensor([0.0, 0, 1, 1])
    assert inclusive.tolist() == RELEASED


def test_the_order_is_row_column_shape() -> None:
    anchors = Anchors()
    found = anchors.over(2, 3).view(2, 3, 9, 4)
    first = anchors.over(1, 1)
    for row in range(2):
        for column in range(3):
            shift = torch.tensor([column, row, column, row]) * 16
            assert torch.equal(found[row, column], first + shift)


def test_sizes_ratios_and_stride_are_arguments() -> None:
    found = Anchors(sizes=(8, 32), ratios=(1,), stride=4).over(1, 2)
    assert found.tolist() == [
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


def test_how_many_are_inside_a_image() -> None:
    """Counted by the places that each shape may have along the sides; all those of an image of
    1000 x 600 are the 20,000 of Sec. 3.1.3."""
    anchors = Anchors()
    found = anchors.over(38, 63)
    assert len(found) == 21546
    fits = 0
    for x, y in anchors.shapes()[:, 2:].tolist():  # half the sides
        across = sum(x <= 8 + 16 * cell <= 1000 - x for cell in range(63))
        down = sum(y <= 8 + 16 * cell <= 600 - y for cell in range(38))
        fits += across * down
    assert inside_image(found, 1000, 600).sum() == fits
