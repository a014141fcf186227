import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reslab.data.sampler import ClassBalancedSampler, ShuffleSampler


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(0, 60), st.integers(1, 60))
def test_a_subsequence_does_not_depend_on_where_it_starts(
    count: int, start: int, length: int
) -> None:
    labels = torch.arange(count) % 3
    for order in (ShuffleSampler(count, 1, 0), ClassBalancedSampler(labels, 1)):
        whole = order(0, start + length)
        assert torch.equal(order(start, length), whole[start:])


def test_each_class_is_sampled_equally_often() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [3] * 10)  # class 2 has no images
    chosen = ClassBalancedSampler(labels, seed=1)(0, 3 * 200)
    assert labels[chosen].bincount().tolist() == [200, 200, 0, 200]
    for round_ in labels[chosen].split(3):
        assert sorted(round_.tolist()) == [0, 1, 3]
    assert len({tuple(round_.tolist()) for round_ in labels[chosen].split(3)}) == 6


def test_each_image_of_a_class_is_sampled_equally_often() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3)
    counts = ClassBalancedSampler(labels, seed=1)(0, 2 * 15).bincount()
    assert counts.tolist() == [3] * 5 + [5] * 3


def test_each_class_is_reshuffled_independently_of_the_others() -> None:
    labels = torch.arange(2).repeat_interleave(30)
    chosen = ClassBalancedSampler(labels, seed=1)(0, 120)
    first = chosen[labels[chosen] == 0]
    second = chosen[labels[chosen] == 1] - 30
    assert not torch.equal(first[:30], first[30:])
    assert not torch.equal(first[:30], second[:30])
    other = ClassBalancedSampler(labels, seed=2)(0, 120)
    assert not torch.equal(chosen, other)
