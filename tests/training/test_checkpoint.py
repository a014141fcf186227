import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslab.runtime.files import TensorFile
from reslab.training.checkpoint import (
    Checkpoint,
    checkpoints_in,
    read_checkpoint,
    recover_newest_checkpoint,
    save_checkpoint,
)
from reslab.training.optimizer import OptimizerState
from reslab.training.schedule import PlateauState, ScheduleState, WarmupState


def checkpoint(iteration: int) -> Checkpoint:
    rng = torch.Generator().manual_seed(iteration)
    return Checkpoint(
        iteration=iteration,
        seconds=1.5,
        schedule=ScheduleState(WarmupState((90.0, 85.5), None), PlateauState(1, 40.5, 2)),
        weights={"a": torch.randn(5, 3, generator=rng), "count": torch.tensor(7)},
        optimizer=OptimizerState(0.1, {"momentum.a": torch.randn(5, 3, generator=rng)}),
        losses=torch.tensor([0.1, 0.2], dtype=torch.float64),
        errors=torch.tensor([], dtype=torch.float64),
    )


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    tensors, others = one.tensors(), other.tensors()
    facts = ("iteration", "seconds", "schedule")
    return (
        tensors.keys() == others.keys()
        and all(torch.equal(tensors[name], others[name]) for name in tensors)
        and one.optimizer.learning_rate == other.optimizer.learning_rate
        and all(getattr(one, fact) == getattr(other, fact) for fact in facts)
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c", checkpoint(5))
    assert equal(read_checkpoint(path), checkpoint(5))


def test_the_last_three_are_kept(tmp_path: Path) -> None:
    for iteration in (10, 20, 30, 40, 50):
        save_checkpoint(tmp_path, checkpoint(iteration))
    assert [path.stem for path in checkpoints_in(tmp_path)] == ["00000030", "00000040", "00000050"]
    assert not list(tmp_path.glob(".*"))


def test_multiples_are_kept_besides_the_last_three(tmp_path: Path) -> None:
    for iteration in range(10, 110, 10):
        save_checkpoint(tmp_path, checkpoint(iteration), keep_every=40)
    saved = [int(path.stem) for path in checkpoints_in(tmp_path)]
    assert saved == [40, 80, 90, 100]
    assert equal(read_checkpoint(tmp_path / "00000040.safetensors"), checkpoint(40))


@pytest.mark.parametrize("damage", ["cut", "empty", "one bit", "facts"])
def test_a_damaged_newest_is_reported_renamed_and_passed_over(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, checkpoint(10))
    newest = save_checkpoint(tmp_path, checkpoint(20))
    data = bytearray(newest.read_bytes())
    if damage == "cut":
        data = data[:-7]
    elif damage == "empty":
        data = bytearray()
    elif damage == "one bit":
        data[-1] ^= 1
    else:
        data = data.replace(b'iteration\\": 20', b'iteration\\": 99')
    assert bytes(data) != newest.read_bytes()
    newest.write_bytes(data)
    reported: list[str] = []
    recovered = recover_newest_checkpoint(tmp_path, reported.append)
    assert recovered is not None
    assert equal(recovered, checkpoint(10))
    assert [path.stem for path in checkpoints_in(tmp_path)] == ["00000010"]
    assert len(reported) == 1
    assert "00000020.safetensors is damaged" in reported[0]
    assert reported[0].endswith("keeping it as 00000020.safetensors.damaged")
    assert (tmp_path / "00000020.safetensors.damaged").read_bytes() == bytes(data)


def test_each_damaged_file_is_kept(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        (tmp_path / "00000020.safetensors").write_bytes(content)
        assert recover_newest_checkpoint(tmp_path, lambda line: None) is None
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept == {
        "00000020.safetensors.damaged": b"one",
        "00000020.safetensors.damaged2": b"two",
    }


def test_files_of_the_user_stay_and_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "notes.safetensors").write_bytes(b"mine")
    save_checkpoint(tmp_path, checkpoint(10))
    for name in ("best", "123", "00000010 (copy)"):
        shutil.copy(tmp_path / "00000010.safetensors", tmp_path / f"{name}.safetensors")
    for iteration in (20, 30, 40):
        save_checkpoint(tmp_path, checkpoint(iteration))
    found = recover_newest_checkpoint(tmp_path, pytest.fail)
    assert found is not None
    assert found.iteration == 40
    own = {"notes", "best", "123", "00000010 (copy)"}
    assert {path.stem for path in tmp_path.iterdir()} - own == {"00000020", "00000030", "00000040"}
    assert (tmp_path / "notes.safetensors").read_bytes() == b"mine"


def test_a_copy_under_another_number_is_not_used(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(10))
    shutil.copy(path, tmp_path / "00000099.safetensors")
    reported: list[str] = []
    found = recover_newest_checkpoint(tmp_path, reported.append)
    assert found is not None
    assert found.iteration == 10
    assert "00000099.safetensors is that of another iteration" in reported[0]


def test_a_disk_that_does_not_answer_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read error is not damage, so no checkpoint may be deleted."""
    save_checkpoint(tmp_path, checkpoint(10))

    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("safetensors.safe_open", fail)
    with pytest.raises(OSError, match="Input/output"):
        recover_newest_checkpoint(tmp_path, print)
    assert len(checkpoints_in(tmp_path)) == 1


def with_facts(path: Path, **changes: object) -> None:
    """Rewrite a checkpoint file with facts changed or, where None is given, removed."""
    file = TensorFile.read(path)
    facts = {key: fact for key, fact in (file.facts | changes).items() if fact is not None}
    path.write_bytes(TensorFile(file.tensors, facts).to_bytes())


def test_a_file_of_the_first_edition_names_no_format(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, replace(checkpoint(10), evaluated=False))
    assert TensorFile.read(path).facts["format"] == 2
    with_facts(path, format=None)
    assert equal(read_checkpoint(path), checkpoint(10))
    assert not read_checkpoint(path).evaluated


def test_a_file_of_a_later_format_is_refused_and_kept(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(10))
    path = save_checkpoint(tmp_path, checkpoint(20))
    with_facts(path, format=4, schedule={"warmup": "in another form"})
    with pytest.raises(ValueError, match="has format 4, this version of reslab reads up to 3"):
        recover_newest_checkpoint(tmp_path, print)
    assert len(checkpoints_in(tmp_path)) == 2


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert recover_newest_checkpoint(tmp_path, print) is None
