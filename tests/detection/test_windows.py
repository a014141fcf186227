import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reslab.detection.roi import Rectangles, add_by_place, add_in_order, range_max


def rectangles(*rows: tuple[int, int, int, int, int]) -> Rectangles:
    """picture, top, bottom, left, right"""
    return Rectangles(*torch.tensor(rows).T)


def test_by_hand() -> None:
    features = torch.tensor([[[[1.0, 9, 2], [3, 4, 5]]], [[[-1, -2, -3], [-4, -5, -6]]]])
    asked = rectangles(
        (0, 0, 2, 0, 3), (0, 1, 2, 0, 2), (0, 0, 1, 2, 3),
        (1, 0, 2, 1, 3), (1, 1, 1, 0, 3), (1, 0, 2, 3, 1),
    )  # fmt: skip
    assert range_max(features, asked).tolist() == [[9], [4], [2], [-2], [0], [0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_every_rectangle_of_a_map(height: int, width: int, seed: int) -> None:
    """Values of few kinds, so that most are equal; what learns holds the largest value."""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randint(-2, 3, (1, 2, height, width), generator=rng).double().requires_grad_()
    rows = [(top, stop) for stop in range(height + 1) for top in range(stop)]
    columns = [(left, stop) for stop in range(width + 1) for left in range(stop)]
    all_of_them = [(0, *row, *column) for row in rows for column in columns]
    some = [all_of_them[k] for k in torch.randperm(len(all_of_them), generator=rng)[:20].tolist()]
    found = range_max(features, rectangles(*some))
    for (_, top, bottom, left, right), values in zip(some, found, strict=True):
        part = features[0, :, top:bottom, left:right]
        assert torch.equal(values, part.amax((1, 2)))
        (gradient,) = torch.autograd.grad(values.sum(), features, retain_graph=True)
        own = gradient[0, :, top:bottom, left:right]
        assert gradient.sum() == own.sum() == 2
        assert torch.equal((own * part).sum((1, 2)), values)


def test_what_is_no_number_stays_so() -> None:
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, 2, 1] = float("nan")
    found = range_max(features, rectangles((0, 0, 4, 0, 4), (0, 0, 2, 0, 4)))
    assert found.isnan().tolist() == [[True], [False]]


def test_both_ways_of_adding_agree_with_a_plain_loop() -> None:
    """The total is a slice of a larger tensor, as a block of a feature map's channels is; half of
    the values go to a quarter of the places."""
    rng = torch.Generator().manual_seed(0)
    places = torch.randint(0, 8, (40, 3), generator=rng)
    places[:20] %= 2
    values = torch.randint(-9, 10, (40, 3), generator=rng).double()
    expected = torch.ones(8, 6, dtype=torch.float64)
    for row, numbers in zip(places.tolist(), values.tolist(), strict=True):
        for column, (place, number) in enumerate(zip(row, numbers, strict=True)):
            expected[place, 2 + column] += number
    for add in (add_by_place, add_in_order):
        total = torch.ones(8, 6, dtype=torch.float64)
        add(total[:, 2:5], places, values)
        assert torch.equal(total, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU adds in a changing order")
def test_the_gradient_repeats_its_bits_on_a_gpu() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(1, 512, 20, 30, generator=rng).cuda().requires_grad_()
    corners = [torch.randint(0, length, (3000,), generator=rng) for length in (17, 27)]
    rows = [
        (0, y, y + 3, x, x + 3) for y, x in zip(*map(torch.Tensor.tolist, corners), strict=True)
    ]
    windows = Rectangles(*torch.tensor(rows).T.cuda())
    weights = torch.randn(3000, 512, generator=rng).cuda()
    gradients = [
        torch.autograd.grad((range_max(features, windows) * weights).sum(), features)[0]
        for _ in range(5)
    ]
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])
