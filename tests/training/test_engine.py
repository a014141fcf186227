"""The choice of an engine, and runs with the native one: exact, resumable, recorded."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_classification import task
from tests.training.test_run import after

from reslab.data.loader import InMemoryLoader
from reslab.kernels.build import KernelsMissing, instructions_for, load_kernels
from reslab.recipes import recipe
from reslab.runtime.device import Device
from reslab.runtime.distributed import SingleProcess
from reslab.runtime.events import Event
from reslab.runtime.files import sha256_of
from reslab.training.classification import ClassificationTask
from reslab.training.engine import Engine, continued_engine, new_engine, update_of
from reslab.training.probe import ProbeTarget, probe
from reslab.training.recipe import Recipe
from reslab.training.run import Interrupted
from reslab.training.train import train

NATIVE = ["engine=native", "model.widths=[16,32,64]"]
SHORT = [
    "iterations=8", "warmup=null", "eval_every=5", "checkpoint_every=3", "recompute_bn=1",
    "batch_size=36", "model.blocks=[1,1,1]", "precision=fp32",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    """Skip where there is no compiler."""
    try:
        load_kernels(instructions_for("fp32"), print)
    except KernelsMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))


def native_recipe(*changes: str) -> Recipe:
    return recipe("digits-resnet20").with_changes([*SHORT, "engine=native", *changes])


def bits_and_losses(learner: ClassificationTask, engine: Engine) -> tuple[str, list[float]]:
    update = update_of(learner, engine, None, print)
    tables = [update(learner.draws(k), 0.1) for k in range(6)]
    state = learner.net.state_dict() | learner.optimizer.state().tensors
    return sha256_of(state), [table[:, -2].mean().item() for table in tables]


def trained(out: Path, *changes: str, **arguments: Any) -> tuple[dict[str, Any], list[str]]:
    """Train with the native engine; return the result and the notes."""
    events: list[Event] = []
    result = train(native_recipe(*changes), out, on_event=events.append, **arguments)
    return result, [event["text"] for event in events if event["kind"] == "note"]


def environment(run: Path) -> dict[str, Any]:
    return json.loads((run / "environment.json").read_text())


def test_the_native_update_is_the_update_of_pytorch() -> None:
    """Losses, statistics, weights and velocities agree to the rounding of fp32."""
    ours, torchs = task(*NATIVE), task(*NATIVE)
    update = update_of(ours, new_engine(ours, None, print), None, print)
    eager = update_of(torchs, Engine(), None, print)
    for k in range(3):
        draws = ours.draws(k)
        assert torch.allclose(update(draws, 0.02), eager(draws, 0.02), rtol=1e-3, atol=1e-4)
    for name, value in torchs.net.state_dict().items():
        assert torch.allclose(ours.net.state_dict()[name], value, rtol=1e-2, atol=1e-4), name


def test_the_loss_falls() -> None:
    learner = task(*NATIVE)
    _, losses = bits_and_losses(learner, new_engine(learner, None, print))
    assert losses[-1] < losses[0]


def test_threads_change_no_bit() -> None:
    learner = task(*NATIVE)
    engine = new_engine(learner, None, print)
    expected = bits_and_losses(learner, engine)
    torch.set_num_threads(2)
    try:
        assert bits_and_losses(task(*NATIVE), engine) == expected
    finally:
        torch.set_num_threads(1)


def test_a_run_records_and_names_its_engine(tmp_path: Path) -> None:
    result, notes = trained(tmp_path / "run")
    recorded = environment(tmp_path / "run")
    assert recorded["engine"] == "native"
    assert re.fullmatch(r"avx(2|512), [0-9a-f]{16}, .+", recorded["kernels"])
    assert f"engine: native, {recorded['kernels']}" in notes
    again, _ = trained(tmp_path / "again")
    assert again["state_sha256"] == result["state_sha256"]


@pytest.mark.parametrize("iterations", [2, 4])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, iterations: int) -> None:
    whole, _ = trained(tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", stop=after(iterations))
    resumed, notes = trained(tmp_path / "run")
    assert resumed["state_sha256"] == whole["state_sha256"]
    assert not [note for note in notes if "bit-exact" in note]


def test_two_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    one, _ = trained(tmp_path / "one")
    changes = [word for change in [*SHORT, "engine=native"] for word in ("--set", change)]
    command = [sys.executable, "-m", "reslab", "train", "digits-resnet20", "--processes", "2"]
    subprocess.run(
        [*command, "--out", str(tmp_path / "two"), *changes],
        check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    assert environment(tmp_path / "two")["processes"] == 2
    assert two["state_sha256"] == one["state_sha256"]


def test_auto_is_pytorch(tmp_path: Path) -> None:
    train(native_recipe("engine=auto", "iterations=1"), tmp_path / "run")
    assert environment(tmp_path / "run")["engine"] == "torch"
    assert "engine" not in json.loads((tmp_path / "run" / "recipe.json").read_text())


def test_without_a_compiler_a_new_run_uses_pytorch(tmp_path: Path, no_compiler: None) -> None:
    _, notes = trained(tmp_path / "run", "iterations=1")
    assert "engine: torch, because there is no C++ compiler" in notes[0]
    assert environment(tmp_path / "run")["engine"] == "torch"


def test_no_process_uses_kernels_that_another_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    missing, notes = "there is no C++ compiler", list[str]()
    monkeypatch.setattr(SingleProcess, "all_gather_objects", lambda self, own: [own, missing])
    assert new_engine(task(*NATIVE), None, notes.append) == Engine()
    assert notes == [f"engine: torch, because {missing}"]
    some = task(*NATIVE)  # so that a resumed run is refused by all processes, and none waits
    with pytest.raises(ValueError, match=re.escape(missing)):
        continued_engine(some.recipe, {"engine": "native"}, some.device, None, notes.append)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["model.norm=group"], "norms other than batch norm"),
        (["model.dropout=0.1"], "random layers"),
        (["model.zeros=both"], "option A with zeros on both sides"),
        (["model.widths=[8,16,32]"], "nets other than those of Sec. 4.2"),
        (["recompute=blocks"], "recompute=blocks"),
    ],
)
def test_a_part_that_the_kernels_lack_is_named(changes: list[str], part: str) -> None:
    notes: list[str] = []
    assert new_engine(task(*NATIVE, *changes), None, notes.append) == Engine()
    assert notes == [f"engine: torch, because the native one does not support {part}"]


def test_an_observer_sees_the_gradients_of_pytorch(tmp_path: Path) -> None:
    seen: list[int] = []
    _, notes = trained(
        tmp_path / "run", "iterations=2", observer=lambda iteration, net: seen.append(iteration)
    )
    assert seen == [1, 2]
    assert "engine: torch, because the native one does not support observers" in notes


def test_images_whose_maps_do_not_halve_are_left_to_pytorch() -> None:
    learner, notes = task(*NATIVE), list[str]()
    assert isinstance(learner.loader, InMemoryLoader)
    learner.loader.images = learner.loader.images[:, :, :14, :14]
    assert new_engine(learner, None, notes.append) == Engine()
    assert "images of 14 x 14 pixels" in notes[0]


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run with the native engine that was stopped."""
    with pytest.raises(Interrupted):
        trained(tmp_path / "stopped", stop=after(4))
    return tmp_path / "stopped"


def test_a_resumed_run_is_refused_where_the_kernels_are_missing(
    stopped: Path, no_compiler: None
) -> None:
    with pytest.raises(
        ValueError, match=r"engine=native, which is missing here: there is no C\+\+"
    ):
        trained(stopped)


def test_pytorch_can_continue_it_with_other_bits(stopped: Path, no_compiler: None) -> None:
    result, notes = trained(stopped, "engine=torch")
    assert result["iterations"] == 8
    assert any("not bit-exact" in note and "engine: native -> torch" in note for note in notes)


def test_a_finished_run_needs_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = trained(tmp_path / "run", "iterations=1")
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    again, notes = trained(tmp_path / "run", "iterations=1")
    assert again["state_sha256"] == result["state_sha256"]
    assert notes[-1] == "this run is finished"


def test_other_kernels_are_reported(stopped: Path) -> None:
    file = stopped / "environment.json"
    file.write_text(file.read_text().replace("avx", "older avx"))
    _, notes = trained(stopped)
    assert any("not bit-exact" in note and "kernels: older avx" in note for note in notes)


def test_a_run_that_moves_to_a_gpu_continues_with_pytorch() -> None:
    gpu, notes = Device(torch.device("cuda"), "fp32"), list[str]()
    began = {"engine": "native"}
    assert continued_engine(native_recipe(), began, gpu, None, notes.append) == Engine()
    assert notes == ["engine: torch, because the native one does not support GPUs"]


def test_a_run_without_the_entry_was_made_by_pytorch(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(native_recipe("engine=auto"), tmp_path / "run", stop=after(4))
    facts = environment(tmp_path / "run")
    del facts["engine"]
    (tmp_path / "run" / "environment.json").write_text(json.dumps(facts))
    notes: list[Event] = []
    train(native_recipe("engine=auto"), tmp_path / "run", on_event=notes.append)
    assert not [note for note in notes if "bit-exact" in note.get("text", "")]


def test_a_plan_measures_the_kernels() -> None:
    """Its updates do not call the network, only the trunk in C++."""

    def fail(module: torch.nn.Module, inputs: object) -> None:
        raise AssertionError("PyTorch computes the network")

    learner = task(*NATIVE)
    learner.net.register_forward_pre_hook(fail)
    lines: list[str] = []
    measured = probe(ProbeTarget(learner, 1, 1, 1, lambda most: most, None), 1, lines.append)
    assert lines[0].startswith("engine: native")
    assert measured.together > 0
