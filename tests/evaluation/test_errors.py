import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reslab.evaluation.report import wilson, wrong_in_top


def test_by_hand() -> None:
    scores = torch.tensor([[3.0, 1, 2], [1, 2, 3], [2, 3, 1]])
    labels = torch.tensor([0, 0, 2])
    assert wrong_in_top(scores, labels, 1).tolist() == [False, True, True]
    assert wrong_in_top(scores, labels, 2).tolist() == [False, True, True]
    assert wrong_in_top(scores, torch.tensor([2, 1, 0]), 2).tolist() == [False, False, False]
    assert not wrong_in_top(scores, labels, 3).any()


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_against_torch_where_scores_differ(k: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    scores = torch.stack([torch.randperm(7, generator=rng).float() for _ in range(20)])
    labels = torch.randint(0, 7, (20,), generator=rng)
    expected = ~(scores.topk(k, dim=1).indices == labels[:, None]).any(1)
    assert torch.equal(wrong_in_top(scores, labels, k), expected)


def test_a_net_that_scores_all_alike_is_right_by_chance_only() -> None:
    scores = torch.zeros(10, 10)
    assert wrong_in_top(scores, torch.arange(10), 1).sum() == 9
    assert wrong_in_top(scores, torch.arange(10), 5).sum() == 5


def test_scores_that_are_no_numbers_are_wrong() -> None:
    assert wrong_in_top(torch.full((2, 3), float("nan")), torch.tensor([0, 1]), 3).all()


@pytest.mark.parametrize(
    ("wrong", "n", "interval"),
    [
        (0, 10, (0.0, 27.75)),
        (1, 10, (1.79, 40.42)),
        (5, 10, (23.66, 76.34)),
        (10, 10, (72.25, 100.0)),
        (50, 100, (40.38, 59.62)),
        (1, 1, (20.65, 100.0)),
    ],
)
def test_wilsons_interval_by_hand(wrong: int, n: int, interval: tuple[float, float]) -> None:
    assert wilson(wrong, n) == pytest.approx(interval, abs=0.005)


@given(st.integers(1, 5000), st.data())
def test_wilsons_interval_holds_the_rate_and_mirrors(n: int, data) -> None:
    wrong = data.draw(st.integers(0, n))
    low, high = wilson(wrong, n)
    assert 0 <= low <= 100 * wrong / n + 1e-9
    assert 100 >= high >= 100 * wrong / n - 1e-9
    assert wilson(n - wrong, n) == pytest.approx((100 - high, 100 - low))
