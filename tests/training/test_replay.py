"""The replayed update, with a recorder that repeats the work on the CPU in place of a GPU's."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.training.test_classification import task
from torch import Tensor

from reslab.runtime.files import sha256_of
from reslab.training.classification import ClassificationTask
from reslab.training.loop import Update, eager_update_of
from reslab.training.replay import EAGER_UPDATES, captured_update, lacking, update_of

RATES = [0.05] * 6 + [0.005] * 3 + [0.0005] * 3  # the velocities are rescaled twice


class Repeat:
    """Repeat recorded work into the same memory, as a CUDA graph does."""

    def __init__(self) -> None:
        self.table = torch.empty(0)
        self.replays = 0

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        return work()

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def replay() -> Tensor:
            self.replays += 1
            table = work()
            self.table = table if self.replays == 1 else self.table.copy_(table)
            return self.table

        return replay


class Refuse(Repeat):
    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def trained(learner: ClassificationTask, update: Update) -> tuple[list[Tensor], str]:
    tables = [update(learner.draws(k), rate) for k, rate in enumerate(RATES)]
    state = learner.net.state_dict() | learner.optimizer.state().tensors
    return tables, sha256_of(state)


def test_a_replayed_run_has_the_tables_and_the_bits_of_an_eager_one() -> None:
    """Every mini-batch, augmentation and learning rate is the iteration's own."""
    eager, replayed, recorder = task(), task(), Repeat()
    tables, bits = trained(eager, eager_update_of(eager))
    others, other_bits = trained(replayed, captured_update(replayed, recorder, print))
    assert other_bits == bits
    assert all(torch.equal(one, other) for one, other in zip(tables, others, strict=True))
    assert recorder.replays == len(RATES) - EAGER_UPDATES


def test_a_state_can_be_restored_between_replays() -> None:
    """The replayed step uses the optimizer's own velocities, not copies of them."""
    learner = task()
    update = captured_update(learner, Repeat(), print)
    start = {name: value.clone() for name, value in learner.net.state_dict().items()}
    _, bits = trained(learner, update)
    velocities = learner.optimizer.state().tensors
    learner.net.load_state_dict(start)
    for velocity in velocities.values():
        velocity.zero_()
    assert trained(learner, update)[1] == bits


def test_a_refused_capture_is_reported_once_and_the_run_stays_eager() -> None:
    eager, refused, notes = task(), task(), []
    tables, bits = trained(eager, eager_update_of(eager))
    others, other_bits = trained(refused, captured_update(refused, Refuse(), notes.append))
    assert other_bits == bits
    assert all(torch.equal(one, other) for one, other in zip(tables, others, strict=True))
    assert notes == [
        "no CUDA graph, so small networks train more slowly: "
        "operation not permitted when stream is capturing"
    ]


def on_gpu(learner: ClassificationTask) -> ClassificationTask:
    device = replace(learner.device, torch_device=torch.device("cuda"))
    return replace(learner, device=device)


def test_what_cannot_be_captured_is_named() -> None:
    assert lacking(on_gpu(task())) is None
    assert lacking(task()) == "CPUs"
    for change in ("model.dropout=0.2", "model.stochastic_depth=0.5", "model.norm=noisy-batch"):
        assert lacking(on_gpu(task(change))) == "random layers"
    assert lacking(on_gpu(task("recompute=blocks"))) == "recompute=blocks"


def test_an_observed_run_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be called once, at the capture, and never again."""
    seen: list[int] = []
    learner = task()
    monkeypatch.setattr("reslab.training.replay.lacking", lambda task: None)
    update = update_of(learner, lambda iteration, net: seen.append(iteration), print)
    for k in range(3):
        update(learner.draws(k), 0.05)
    assert seen == [1, 2, 3]
