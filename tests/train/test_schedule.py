from itertools import pairwise

import pytest

from reslab.recipes import recipe
from reslab.train.recipe import Warmup
from reslab.train.schedule import WarmupState, learning_rate, warming

DONE = WarmupState(ended_at=400)


def test_the_rate_drops_at_32k_and_48k() -> None:
    it = recipe("cifar10-resnet20")
    rates = [learning_rate(it, k, WarmupState()) for k in range(0, 64_000)]
    changes = [k for k, (a, b) in enumerate(pairwise(rates), 1) if a != b]
    assert changes == [32_000, 48_000]
    assert [rates[0], rates[32_000], rates[48_000]] == [0.1, 0.01, 0.001]


def test_a_shortened_schedule_keeps_its_shape() -> None:
    it = recipe("cifar10-resnet20").with_changes(["iterations=400"])
    assert [learning_rate(it, k, DONE) for k in (199, 200, 299, 300)] == [0.1, 0.01, 0.01, 0.001]


def test_the_warm_up_holds_the_rate_until_it_has_ended() -> None:
    it = recipe("cifar10-resnet110")
    assert warming(it, WarmupState())
    assert not warming(it, DONE)
    assert not warming(recipe("cifar10-resnet56"), WarmupState())
    assert learning_rate(it, 500, WarmupState()) == 0.01
    assert learning_rate(it, 500, DONE) == 0.1


def test_a_warm_up_never_raises_a_rate_that_has_dropped() -> None:
    it = recipe("cifar10-resnet110")
    assert learning_rate(it, 50_000, WarmupState()) == 0.001


def feed(warmup: Warmup, errors: list[float]) -> WarmupState:
    state = WarmupState()
    for iteration, error in enumerate(errors, 1):
        if state.ended_at is None:
            state = state.after(warmup, iteration, error)
    return state


def test_the_mean_of_the_last_ten_errors_ends_it() -> None:
    warmup = Warmup()
    assert feed(warmup, [79.0] * 9).ended_at is None  # not yet ten
    assert feed(warmup, [79.0] * 10).ended_at == 10
    assert feed(warmup, [90.0] * 10 + [79.0] * 9).ended_at is None
    # the window slides: ten errors of mean (90 + 9 * 78.8) / 10 = 79.92
    assert feed(warmup, [90.0] * 10 + [78.8] * 9).ended_at == 19
    assert feed(warmup, [80.0] * 50).ended_at is None  # "below 80 %"


def test_the_cap_ends_it_and_says_so() -> None:
    state = feed(Warmup(cap=30), [90.0] * 40)
    assert (state.ended_at, state.capped) == (30, True)
    assert not feed(Warmup(cap=30), [10.0] * 40).capped


def test_an_ended_warm_up_is_not_asked_again() -> None:
    with pytest.raises(AssertionError):
        DONE.after(Warmup(), 401, 50.0)
