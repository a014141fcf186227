from itertools import pairwise

import pytest

from reslab.recipes import recipe
from reslab.training.recipe import Plateau, Recipe, Warmup
from reslab.training.schedule import PlateauState, Schedule, ScheduleState, WarmupState

DONE = WarmupState(ended_at=400)


def rate(it: Recipe, iteration: int, warmup: WarmupState = WarmupState()) -> float:
    return Schedule(it, ScheduleState(warmup)).rate(iteration)


def test_the_rate_drops_at_32k_and_48k() -> None:
    it = recipe("cifar10-resnet20")
    rates = [rate(it, k) for k in range(0, 64_000)]
    changes = [k for k, (a, b) in enumerate(pairwise(rates), 1) if a != b]
    assert changes == [32_000, 48_000]
    assert [rates[0], rates[32_000], rates[48_000]] == [0.1, 0.01, 0.001]


def test_a_shortened_schedule_keeps_its_shape() -> None:
    it = recipe("cifar10-resnet20").with_changes(["iterations=400"])
    assert [rate(it, k, DONE) for k in (199, 200, 299, 300)] == [0.1, 0.01, 0.01, 0.001]


def test_the_warm_up_holds_the_rate_until_it_has_ended() -> None:
    it = recipe("cifar10-resnet110")
    assert Schedule(it).warming
    assert not Schedule(it, ScheduleState(DONE)).warming
    assert not Schedule(recipe("cifar10-resnet56")).warming
    assert rate(it, 500) == 0.01
    assert rate(it, 500, DONE) == 0.1


def test_a_warm_up_never_raises_a_rate_that_has_dropped() -> None:
    it = recipe("cifar10-resnet110")
    assert rate(it, 50_000) == 0.001


def feed(warmup: Warmup, errors: list[float]) -> WarmupState:
    state = WarmupState()
    for iteration, error in enumerate(errors, 1):
        if state.ended_at is None:
            state = state.after(warmup, iteration, error)
    return state


def test_the_mean_of_the_last_ten_errors_ends_it() -> None:
    warmup = Warmup()
    assert feed(warmup, [79.0] * 9).ended_at is None  # only nine
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


def listen(plateau: Plateau, errors: list[float]) -> PlateauState:
    state = PlateauState()
    for error in errors:
        state = state.after(plateau, error)
    return state


def test_a_plateau_is_patience_evaluations_that_are_no_better() -> None:
    plateau = Plateau(patience=3, threshold=0.5)
    assert listen(plateau, [50, 49, 48, 47]).drops == 0
    assert listen(plateau, [50, 49.8, 49.6]).drops == 0
    assert listen(plateau, [50, 49.8, 49.6, 49.5]).drops == 1  # exactly 0.5 better does not count
    assert listen(plateau, [50, 51, 52, 49.4, 51, 52]).drops == 0  # better before patience runs out
    assert listen(plateau, [50, 51, 52, 53]) == PlateauState(
        1
    )  # counting restarts at the lower rate
    assert listen(plateau, [50, 51, 52, 53, 54, 54, 54]).drops == 1
    assert listen(plateau, [50, 51, 52, 53, 54, 54, 54, 54]).drops == 2


def test_each_plateau_divides_the_rate_by_ten() -> None:
    schedule = Schedule(recipe("imagenet-resnet50").with_changes(["plateau.patience=1"]))
    rates = []
    for error in (60.0, 50.0, 50.0, 40.0, 45.0):
        rates.append(schedule.rate(1000))
        schedule.observe_evaluation(error)
    assert rates == [0.1, 0.1, 0.1, 0.01, 0.01]
    assert schedule.rate(1000) == 0.001


def test_fixed_drops_do_not_listen() -> None:
    schedule = Schedule(recipe("cifar10-resnet20"))
    for _ in range(100):
        schedule.observe_evaluation(50.0)
    assert schedule.state == ScheduleState()
