"""Shares that are trained side by side have the bits of shares trained one after the other."""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from threading import enumerate as enumerate_threads
from typing import Any

import pytest
import torch
from tests.training.test_classification import RANDOM, task
from tests.training.test_run import after
from torch import Tensor, nn

from reslab.models.batchnorm import norms_of, train_mode
from reslab.models.config import cifar_config
from reslab.models.resnet import ResNet
from reslab.recipes import recipe
from reslab.runtime.distributed import SingleProcess
from reslab.runtime.events import Event
from reslab.runtime.files import sha256_of
from reslab.training.classification import ClassificationTask
from reslab.training.loop import Observer, Update, eager_update_of
from reslab.training.run import Interrupted, Stop
from reslab.training.side_by_side import (
    MOST_VALUES,
    thread_limit,
    threads_per_share,
    update_of,
    values_kept,
)
from reslab.training.train import train

SMALL_NET = ["model.widths=[4,8,8]", "virtual_gpus=4"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with thread_limit(torch.get_num_threads()):
        yield


def trained(learner: ClassificationTask, update: Update, iterations: int = 3) -> tuple[Tensor, str]:
    """Return the tables of some updates, and the digest of the state after them."""
    tables = [update(learner.draws(k), 0.05 if k < 2 else 0.01) for k in range(iterations)]
    state = learner.net.state_dict() | learner.optimizer.state().tensors
    return torch.stack(tables), sha256_of(state)


def one_after_another(*changes: str, threads: int = 1) -> tuple[Tensor, str]:
    torch.set_num_threads(threads)
    learner = task(*SMALL_NET, *changes)
    return trained(learner, eager_update_of(learner))


def side_by_side(
    *changes: str, threads: int = 2, each: int = 1, observer: Observer | None = None
) -> tuple[Tensor, str]:
    torch.set_num_threads(threads)
    learner = task(*SMALL_NET, *changes)
    return trained(learner, update_of(learner, each, observer))


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["virtual_gpus=2"],
        RANDOM,
        ["recompute=blocks", "model.blocks=[5]", "model.widths=[4]"],
        ["recompute=blocks", "model.blocks=[5]", "model.widths=[4]", *RANDOM],
        ["model.norm=group", "model.widths=[32,32,32]"],
        ["model.norm=none"],
        ["balance=loss"],
        ["model.shortcut=C"],
    ],
)
def test_tables_weights_and_velocities_have_the_same_bits(changes: list[str]) -> None:
    tables, bits = one_after_another(*changes)
    others, other_bits = side_by_side(*changes)
    assert torch.equal(others, tables)
    assert other_bits == bits


def test_also_in_bf16() -> None:
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        learner = task(*SMALL_NET)
        learner = replace(learner, device=replace(learner.device, precision="bf16"))
        found.append(trained(learner, update_of(learner, 1))[1])
    assert found[0] == found[1] != one_after_another()[1]


def test_a_share_may_have_several_threads() -> None:
    """The bits depend on the threads per share alone."""
    few = ["model.blocks=[1]", "model.widths=[8]", "virtual_gpus=2"]
    _, bits = one_after_another(*few, threads=2)
    assert side_by_side(*few, threads=4, each=2)[1] == bits
    assert bits != one_after_another(*few)[1]


def test_ten_starts_have_the_same_bits() -> None:
    small = ["model.blocks=[1]", "model.widths=[4]"]
    assert len({side_by_side(*small, threads=4)[1] for _ in range(10)}) == 1


def test_threads_beyond_the_shares_are_left_idle() -> None:
    """A run that is resumed with more processes has fewer shares in each."""
    assert side_by_side("virtual_gpus=2", threads=4)[1] == one_after_another("virtual_gpus=2")[1]


def test_an_observer_sees_the_network_at_work_and_changes_no_bit() -> None:
    gradients: list[float] = []
    inputs: list[Tensor] = []

    def observe(iteration: int, net: nn.Module) -> None:
        assert isinstance(net, ResNet)
        if iteration == 1:  # the second iteration's four shares pass through the network
            net.fc.register_forward_pre_hook(lambda layer, arguments: inputs.append(arguments[0]))
        assert net.fc.weight.grad is not None
        gradients.append(net.fc.weight.grad.norm().item())

    _, bits = side_by_side(observer=observe)
    assert bits == side_by_side()[1]
    assert len(inputs) == 2 * 4
    assert len(gradients) == 3
    assert min(gradients) > 0


def test_the_networks_own_gradients_are_empty_after_an_update() -> None:
    torch.set_num_threads(2)
    learner = task(*SMALL_NET)
    update = update_of(learner, 1)
    update(learner.draws(0), 0.05)
    assert all(weight.grad is None for weight in learner.net.parameters())
    assert torch.get_num_threads() == 2


def threads_for_shares() -> list[Thread]:
    return [thread for thread in enumerate_threads() if thread.name.startswith("reslab-shares")]


def test_an_error_in_a_share_is_raised_and_the_threads_end() -> None:
    torch.set_num_threads(2)
    learner = task(*SMALL_NET)
    shares = learner.prepare(learner.draws(0))
    shares[2] = replace(shares[2], labels=shares[2].labels[1:])
    update = update_of(learner, 1, prepare=lambda draws: shares)
    with pytest.raises(RuntimeError, match="must match"):
        update(learner.draws(0), 0.05)
    assert threads_for_shares()
    del update
    gc.collect()  # the error's traceback and the future that raised it refer to each other
    end = time.monotonic() + 10
    while threads_for_shares() and time.monotonic() < end:
        time.sleep(0.01)
    assert not threads_for_shares()


@pytest.mark.parametrize(
    ("threads", "shares", "each"),
    [
        (1, 2, 1), (2, 1, 2), (2, 2, 1), (2, 8, 1), (16, 2, 8), (16, 8, 2), (4, 8, 1),
        (3, 2, 3), (6, 4, 3), (12, 8, 3),
    ],
)  # fmt: skip
def test_the_rule_keeps_all_threads_busy(threads: int, shares: int, each: int) -> None:
    learner = task(f"virtual_gpus={shares}")
    assert threads_per_share(learner, threads) == each
    assert shares % (threads // each) == 0


def test_the_rule_counts_the_shares_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = task("virtual_gpus=4")
    assert threads_per_share(learner, 4) == 1
    monkeypatch.setattr(SingleProcess, "count", 2)
    assert threads_per_share(learner, 4) == 2


def test_the_rule_counts_the_values_that_backward_needs() -> None:
    learner = task()
    side = learner.prepare(learner.draws(0))[0].images.shape[-1]
    outputs: list[int] = []

    def count(layer: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        outputs.append(output[0].numel())

    for layer in learner.net.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            layer.register_forward_hook(count)
    learner.net(torch.zeros(2, 3, side, side))
    assert isinstance(learner.net, ResNet)
    assert values_kept(learner.net, side) == sum(outputs)


@pytest.mark.parametrize(("together", "each"), [(4, 1), (3, 2), (2, 2), (1, 4), (0, 4)])
def test_fewer_shares_at_a_time_if_more_would_not_fit(
    together: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = task("virtual_gpus=4")
    assert isinstance(learner.net, ResNet)
    monkeypatch.setattr(
        "reslab.training.side_by_side.MOST_VALUES", together * 8 * values_kept(learner.net, 16)
    )
    assert learner.prepare(learner.draws(0))[0].images.shape == (8, 3, 16, 16)
    assert threads_per_share(learner, 4) == each


def test_the_nets_of_the_paper_for_cifar_fit_and_the_1202_layers_do_not() -> None:
    assert 2 * 64 * values_kept(ResNet(cifar_config(110)), 32) <= MOST_VALUES
    assert 2 * 64 * values_kept(ResNet(cifar_config(1202)), 32) > MOST_VALUES


def test_statistics_that_are_kept_stay_as_they_are() -> None:
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        learner = task(*SMALL_NET)
        train_mode(learner.net, keep_statistics=True)
        before = [norm.running_var for norm in norms_of(learner.net)]
        update = update_of(learner, 1)
        results.append(trained(learner, update))
        assert all(torch.equal(norm, torch.ones_like(norm)) for norm in before if norm is not None)
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


CHANGES = [
    "iterations=3", "warmup=null", "eval_every=9", "checkpoint_every=2", "recompute_bn=0",
    "batch_size=32", "virtual_gpus=4", "model.blocks=[1]", "model.widths=[8]", "precision=fp32",
    "engine=torch",
]  # fmt: skip
SHORT = recipe("digits-resnet20").with_changes(CHANGES)
RULE = "reslab.training.engine.threads_per_share"
LINE = "engine: torch, 2 virtual GPUs at a time"


@pytest.fixture
def two_threads(threads: None) -> None:
    torch.set_num_threads(2)


def run(
    out: Path, stop: Stop = lambda: None, observer: Observer | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return the result of a run, and the notes."""
    events: list[Event] = []
    result = train(SHORT, out, stop=stop, observer=observer, on_event=events.append)
    return result, [event["text"] for event in events if event["kind"] == "note"]


def environment(out: Path) -> dict[str, Any]:
    return json.loads((out / "environment.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was not stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with thread_limit(2):
        run(out)
    return out


def state(out: Path) -> str:
    return json.loads((out / "result.json").read_text())["state_sha256"]


def test_the_threads_of_a_share_are_recorded(whole: Path) -> None:
    recorded = environment(whole)
    assert (recorded["engine"], recorded["threads"]) == ("torch", 2)
    assert recorded["threads_per_share"] == 1


def test_a_stopped_run_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, two_threads: None
) -> None:
    """It does so even if the rule and the number of threads have changed since."""
    with pytest.raises(Interrupted):
        run(tmp_path / "run", after(2))
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RULE, lambda task, threads: threads)
        _, notes = run(tmp_path / "run")
    assert state(tmp_path / "run") == state(whole)
    assert LINE in notes
    assert not any("bit-exact" in note for note in notes)


def test_a_run_begun_one_share_after_the_other_goes_on_so(
    whole: Path, tmp_path: Path, two_threads: None
) -> None:
    """Runs of earlier editions did so: their environment has no entry for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RULE, lambda task, threads: threads)
        earlier, _ = run(tmp_path / "earlier")
        with pytest.raises(Interrupted):
            run(tmp_path / "run", after(2))
    assert "threads_per_share" not in environment(tmp_path / "run")
    result, notes = run(tmp_path / "run")
    assert result["state_sha256"] == earlier["state_sha256"] != state(whole)
    assert "engine: torch" in notes
    assert not any("bit-exact" in note for note in notes)


def test_an_observer_changes_no_bit(whole: Path, tmp_path: Path, two_threads: None) -> None:
    seen: list[int] = []
    result, _ = run(tmp_path / "run", observer=lambda iteration, net: seen.append(iteration))
    assert seen == [1, 2, 3]
    assert result["state_sha256"] == state(whole)


def test_a_damaged_entry_is_refused(tmp_path: Path, two_threads: None) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path / "run", after(2))
    path = tmp_path / "run" / "environment.json"
    path.write_text(json.dumps(environment(tmp_path / "run") | {"threads_per_share": 0}))
    with pytest.raises(ValueError, match="threads_per_share"):
        run(tmp_path / "run")


def test_processes_with_shares_side_by_side_have_the_bits_of_one(tmp_path: Path) -> None:
    """Compare two processes of two threads, four shares at a time, with one of one thread."""
    with thread_limit(1):
        train(SHORT, tmp_path / "one")
    sets = [word for change in CHANGES for word in ("--set", change)]
    subprocess.run(
        [sys.executable, "-m", "reslab", "train", "digits-resnet20", "--processes", "2",
         "--out", tmp_path / "two", *sets],
        check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert environment(tmp_path / "two")["threads_per_share"] == 1
    assert "threads_per_share" not in environment(tmp_path / "one")
    assert state(tmp_path / "two") == state(tmp_path / "one")
