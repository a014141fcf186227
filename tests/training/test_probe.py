"""How long a plan measures, with a clock that the work itself moves on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch
from tests.training.test_classification import task
from torch import Tensor, nn

from reslab.recipes import recipe
from reslab.runtime.device import Device
from reslab.training.engine import Engine
from reslab.training.optimizer import AuthorsSGD, build_sgd
from reslab.training.probe import REPLAYED, ProbeTarget, measure_updates, probe, rate
from reslab.training.recipe import Recipe
from reslab.training.task import Task

SECONDS = 7.0  # for a measurement
CPU = Device(torch.device("cpu"), "fp32")
RECIPE = recipe("digits-resnet20")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Slow:
    """The parts of a task that an update uses; each share takes some time."""

    clock: Clock
    seconds: float
    trained: int = 0  # shares
    device: Device = CPU
    recipe: Recipe = RECIPE
    net: nn.Module = field(default_factory=lambda: nn.Linear(1, 1))

    @property
    def optimizer(self) -> AuthorsSGD:
        return build_sgd(self.net, momentum=0.0, weight_decay=0.0)

    def draws(self, iteration: int) -> int:
        return iteration

    def loss(self, share: Tensor) -> tuple[Tensor, Tensor]:
        self.clock.now += self.seconds
        self.trained += 1
        return self.net(share).mean(), torch.tensor(90.0)


@pytest.mark.parametrize(
    ("share", "wait", "most", "trained", "whole"),
    [
        (0.01, 0.02, 20, 1 + 4 * (2 + 20), True),  # the first share, two more warm-ups, then 20
        (0.1, 0.1, 20, 1 + 4 * (2 + 11), True),  # as many as fit into the time that is left
        (0.1, 0.1, 5, 1 + 4 * (2 + 5), True),
        (0.5, 0.1, 20, 1 + 2 + 8, False),  # slow iterations: one share of each
        (3.0, 1.0, 20, 1, False),  # a second would not end in time
        (100.0, 1.0, 20, 1, False),
    ],
)
def test_updates_are_measured_within_the_time(
    share: float, wait: float, most: int, trained: int, whole: bool
) -> None:
    clock = Clock()
    slow = Slow(clock, share)

    def prepare(draws: object) -> list[Tensor]:
        clock.now += wait
        return [torch.ones(1, 1)] * 4

    pace = measure_updates(cast(Task, slow), Engine(), prepare, most, SECONDS, clock)
    assert (pace.busy, pace.waiting) == pytest.approx((4 * share, wait))
    assert (slow.trained, pace.whole) == (trained, whole)
    assert clock.now <= max(SECONDS, share + wait)


@pytest.mark.parametrize(
    ("seconds", "warm_up", "most", "steps", "expected"),
    [
        (0.5, 3, 20, 6, 2.0),  # until 3 s have passed, the first three steps uncounted
        (0.5, 0, 4, 4, 2.0),
        (10.0, 3, 20, 1, 0.1),  # one step at least
    ],
)
def test_a_rate_is_measured_within_the_time(
    seconds: float, warm_up: int, most: int, steps: int, expected: float
) -> None:
    clock, done = Clock(), 0

    def work() -> Iterator[int]:
        nonlocal done
        while True:
            clock.now += seconds
            done += 1
            yield done

    assert rate(work(), most, 3.0, clock, warm_up) == pytest.approx(expected)
    assert done == steps


def test_a_plan_says_what_it_measures() -> None:
    lines: list[str] = []
    asked: list[int] = []
    files: list[bytes] = []

    def evaluate(most: int) -> int:
        asked.append(most)
        return 10

    def reads() -> Iterator[bytes]:
        for number in range(5):
            files.append(bytes(number))
            yield files[-1]

    run = ProbeTarget(task(), 100, 10, 20, evaluate, reads())
    measured = probe(run, 1, lines.append)
    assert [line.partition(",")[0] for line in lines] == [
        "engine: torch",
        "measuring training",
        "measuring the network alone",
        "measuring the preparation of images",
        "measuring the disk",
        "measuring the evaluation",
    ]
    assert len(files) == 5
    assert asked == [max(int(2 * measured.together), 8)]
    seconds = 10 * 32 / measured.together + 20 / measured.evaluating
    assert measured.seconds(run) == pytest.approx(seconds)


def test_a_slow_network_is_not_measured_a_second_time() -> None:
    """A line says that an iteration takes long; its network's speed leaves out the waiting."""
    clock, lines = Clock(), []
    slow = Slow(clock, 20.0)
    images = [torch.ones(1, 1)] * 2

    def prepare(draws: object) -> list[Tensor]:
        clock.now += 4.0
        return images

    run: Any = slow
    run.prepare = prepare

    def evaluate(most: int) -> int:
        clock.now += 5.0
        return most

    measured = probe(ProbeTarget(run, 100, 10, 20, evaluate, None), 20, lines.append, clock)
    assert lines[2] == "one iteration takes about 44 s: measured on the share of one virtual GPU"
    assert slow.trained == 1
    assert (measured.together, measured.network) == pytest.approx((128 / 44, 128 / 40))
    assert measured.evaluating == pytest.approx(8 / 5)
    assert clock.now == 24 + 5


def test_an_update_that_makes_its_own_mini_batches_is_timed_after_its_compilation() -> None:
    clock, calls = Clock(), 0

    def update(draws: int, rate: float) -> Tensor:
        nonlocal calls
        calls += 1
        clock.now += 100 if calls == 1 else 10 if calls <= REPLAYED else 0.5
        return torch.zeros(1, 2)

    def update_of(*arguments: Any) -> Any:
        assert arguments[-1] is None  # nothing is prepared in its place
        return update

    engine = Engine("graph", update_of, prepares=True)
    task = cast(Task, Slow(clock, 0.0))
    pace = measure_updates(task, engine, lambda draws: [], 5, SECONDS, clock)
    assert pace.whole
    assert pace.seconds == pytest.approx(0.5)
    assert calls == REPLAYED + 3 + 5  # a warm-up, then at most as many as were wanted
