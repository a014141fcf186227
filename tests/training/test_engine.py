"""The choice of an engine, and runs with the native one: exact, resumable, recorded."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.own import adamw
from tests.training.test_classification import task
from tests.training.test_replay import on_gpu
from tests.training.test_run import after

from reslab.data.loader import InMemoryLoader
from reslab.recipes import recipe
from reslab.runtime.device import Device
from reslab.runtime.distributed import SingleProcess
from reslab.runtime.events import Event
from reslab.runtime.files import sha256_of
from reslab.training.classification import ClassificationTask
from reslab.training.engine import Engine, continued_engine, new_engine, update_of
from reslab.training.own import OwnParts
from reslab.training.probe import ProbeTarget, probe
from reslab.training.recipe import Recipe
from reslab.training.run import Interrupted
from reslab.training.side_by_side import thread_limit
from reslab.training.train import train

pytestmark = pytest.mark.usefixtures("kernels")  # skip without a compiler
NATIVE = ["engine=native", "model.widths=[16,32,64]"]
SHORT = [
    "iterations=8", "warmup=null", "eval_every=5", "checkpoint_every=3", "recompute_bn=1",
    "batch_size=36", "model.blocks=[1,1,1]", "precision=fp32",
]  # fmt: skip


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
    with thread_limit(2):
        assert bits_and_losses(task(*NATIVE), engine) == expected


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


def test_an_optimizer_of_the_users_own_continues_to_the_same_bits(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole", own=OwnParts(optimizer=adamw))
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", own=OwnParts(optimizer=adamw), stop=after(4))
    resumed, notes = trained(tmp_path / "run", own=OwnParts(optimizer=adamw))
    assert notes[0].startswith("engine: native")
    assert resumed["state_sha256"] == whole["state_sha256"]


def test_auto_is_native_on_a_cpu(tmp_path: Path) -> None:
    _, notes = trained(tmp_path / "run", "engine=auto", "iterations=1")
    assert environment(tmp_path / "run")["engine"] == "native"
    assert notes[0].startswith("engine: native, avx")
    assert "engine" not in json.loads((tmp_path / "run" / "recipe.json").read_text())


@pytest.mark.parametrize("engine", ["auto", "native"])
def test_without_a_compiler_a_new_run_uses_pytorch(
    tmp_path: Path, no_compiler: None, engine: str
) -> None:
    one, notes = trained(tmp_path / "one", f"engine={engine}", "iterations=1")
    assert notes[0].startswith("engine: torch, because there is no C++ compiler")
    assert environment(tmp_path / "one")["engine"] == "torch"
    other, notes = trained(tmp_path / "other", "engine=torch", "iterations=1")
    assert notes[0] == "engine: torch"
    assert other["state_sha256"] == one["state_sha256"]


def test_pytorch_and_the_kernels_round_differently(tmp_path: Path) -> None:
    """If they did not, no test would notice a run that continues with another engine."""
    bits = {
        trained(tmp_path / engine, f"engine={engine}")[0]["state_sha256"]
        for engine in ("torch", "native")
    }
    assert len(bits) == 2


def test_no_process_uses_kernels_that_another_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "there is no C++ compiler"
    monkeypatch.setattr(SingleProcess, "all_gather_objects", lambda self, own: [own, missing])
    engine = new_engine(task(*NATIVE), None, print)
    assert engine.facts == {"engine": "torch"}
    assert engine.line == f"engine: torch, because {missing}"
    some = task(*NATIVE)  # so that a resumed run is refused by all processes, and none waits
    with pytest.raises(ValueError, match=re.escape(missing)):
        continued_engine(some.recipe, {"engine": "native"}, some.device, None, print)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["model.norm=group"], "networks without batch norm"),
        (["model.widths=[8,16,32]"], "channels that are not multiples of 16"),
    ],
)
def test_a_part_that_the_kernels_lack_is_named(changes: list[str], part: str) -> None:
    engine = new_engine(task(*NATIVE, *changes), None, print)
    assert engine.name == "torch"
    assert engine.line == f"engine: torch, because the engine native does not support {part}"


@pytest.mark.parametrize(
    "change",
    ["model.zeros=both", "recompute=blocks", "model.widths=[16,32,48]", "model.dropout=0.1"],
)
def test_other_networks_get_the_norms_of_the_kernels(tmp_path: Path, change: str) -> None:
    """Such networks learn as with PyTorch, and a run that was stopped gets the same bits."""
    tables = []
    for engine in ("native", "torch"):
        learner = task(*NATIVE, change, f"engine={engine}")
        chosen = new_engine(learner, None, print)
        assert chosen.name == engine
        update = update_of(learner, chosen, None, print)
        tables.append(torch.stack([update(learner.draws(k), 0.02) for k in range(3)]))
    assert torch.allclose(*tables, rtol=1e-3, atol=1e-4)
    whole, _ = trained(tmp_path / "whole", change)
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", change, stop=after(4))
    resumed, notes = trained(tmp_path / "run", change)
    assert resumed["state_sha256"] == whole["state_sha256"]
    assert not [note for note in notes if "bit-exact" in note]


def test_their_virtual_gpus_are_trained_side_by_side(tmp_path: Path) -> None:
    changes, found = [*NATIVE, "model.zeros=both"], []
    for threads in (1, 2):
        with thread_limit(threads):
            learner = task(*changes)
            engine = new_engine(learner, None, print)
            assert engine.shares_at_a_time == threads
            found.append(bits_and_losses(learner, engine))
    assert found[0] == found[1]
    with thread_limit(2):
        whole, notes = trained(tmp_path / "whole", "model.zeros=both")
        with pytest.raises(Interrupted):
            trained(tmp_path / "run", "model.zeros=both", stop=after(4))
        resumed, _ = trained(tmp_path / "run", "model.zeros=both")
    assert resumed["state_sha256"] == whole["state_sha256"]
    recorded = environment(tmp_path / "run")
    assert (recorded["engine"], recorded["threads_per_share"]) == ("native", 1)
    assert f"engine: native, {recorded['kernels']}, 2 virtual GPUs at a time" in notes


def test_graphs_need_a_gpu(tmp_path: Path) -> None:
    _, notes = trained(tmp_path / "run", "engine=graph", "iterations=1")
    assert notes[0] == "engine: torch, because the engine graph does not support CPUs"
    assert environment(tmp_path / "run")["engine"] == "torch"


def test_auto_is_graph_on_a_gpu() -> None:
    pytest.importorskip("triton", reason="it is not available for this system")
    learner = on_gpu(task(*NATIVE, "engine=auto"))
    learner = replace(learner, device=Device(torch.device("cuda"), "bf16"))
    assert new_engine(learner, None, print).facts["engine"] == "graph"
    random = on_gpu(task("engine=auto", "model.dropout=0.1"))
    assert new_engine(random, None, print).line == (
        "engine: torch, because the engine graph does not support random layers"
    )


def test_an_observer_sees_the_gradients_of_pytorch(tmp_path: Path) -> None:
    seen: list[int] = []
    _, notes = trained(
        tmp_path / "run", "iterations=2", observer=lambda iteration, net: seen.append(iteration)
    )
    assert seen == [1, 2]
    assert notes[0] == "engine: torch, because the engine native does not support observers"


def test_images_whose_maps_do_not_halve_are_supported() -> None:
    learner = task(*NATIVE)
    assert isinstance(learner.loader, InMemoryLoader)
    learner.loader.images = learner.loader.images[:, :, :14, :14]
    losses = [update_of(learner, e, None, print)(learner.draws(0), 0.0)[:, -2] for e in (
        new_engine(learner, None, print), Engine()
    )]  # fmt: skip
    assert new_engine(learner, None, print).name == "native"
    assert torch.allclose(*losses, rtol=1e-4)


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


def test_a_run_that_moves_to_another_device_continues_with_pytorch() -> None:
    devices = {"native": Device(torch.device("cuda"), "fp32"), "graph": task().device}
    for name, device in devices.items():
        engine = continued_engine(native_recipe(), {"engine": name}, device, None, print)
        assert engine.name == "torch"
        other = "GPUs" if name == "native" else "CPUs"
        assert engine.reason == f"the engine {name} does not support {other}"


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_begun_by_pytorch_continues_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """It does even with auto and a compiler; a run without the entry began with PyTorch."""
    run, auto = tmp_path / "run", "engine=auto"
    with monkeypatch.context() as without:
        without.setenv("CXX", str(tmp_path / "missing"))
        with pytest.raises(Interrupted):
            trained(run, auto, stop=after(4))
    facts = environment(run)
    assert facts.pop("engine") == "torch"
    if not recorded:
        (run / "environment.json").write_text(json.dumps(facts))
    resumed, notes = trained(run, auto)
    assert notes[0] == "engine: torch"
    assert not [note for note in notes if "bit-exact" in note]
    whole, _ = trained(tmp_path / "whole", "engine=torch")
    assert resumed["state_sha256"] == whole["state_sha256"]


def test_an_unknown_engine_is_refused(stopped: Path) -> None:
    file = stopped / "environment.json"
    file.write_text(file.read_text().replace('"native"', '"steam"'))
    with pytest.raises(ValueError, match=r"environment.json is damaged: .*engine"):
        trained(stopped)


def test_a_plan_measures_the_kernels() -> None:
    """Its updates do not call the network, only the trunk in C++."""

    def fail(module: torch.nn.Module, inputs: object) -> None:
        raise AssertionError("PyTorch computes the network")

    learner = task(*NATIVE)
    learner.net.register_forward_pre_hook(fail)
    lines: list[str] = []
    measured = probe(ProbeTarget(learner, 1, 1, 1, lambda most: most, None), 1, lines.append)
    assert any(line.startswith("engine: native") for line in lines)
    assert measured.together > 0
