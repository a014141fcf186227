"""Disks that become slow, full or unavailable during a run."""

import json
import os
from pathlib import Path
from threading import Event, Timer

import pytest
import torch
from tests.training.test_checkpoint import checkpoint, equal

from reslab.training.checkpoint import Checkpoint, checkpoints_in, read_checkpoint
from reslab.training.folder import RunFolder
from reslab.training.log import CheckpointWriter


class Disk(RunFolder):
    """A folder that saves checkpoints once `let` is set, except at the iterations `refused`."""

    def __init__(self, path: Path, refused: tuple[int, ...] = ()) -> None:
        super().__init__(path)
        self.let, self.refused = Event(), refused
        self.let.set()

    def save(self, checkpoint: Checkpoint, keep_every: int | None = None) -> None:
        self.let.wait()
        if checkpoint.iteration in self.refused:
            raise OSError(28, "No space left on device")
        super().save(checkpoint, keep_every)


def saved(disk: Disk) -> list[int]:
    return [int(path.stem) for path in checkpoints_in(disk.checkpoints)]


@pytest.fixture
def reported() -> list[str]:
    return []


def test_training_goes_on_while_a_copy_is_written(tmp_path: Path, reported: list[str]) -> None:
    disk = Disk(tmp_path)
    writer = CheckpointWriter(disk, reported.append, saved=0)
    disk.let.clear()
    now = checkpoint(10)
    writer.begin(now)
    for tensor in (*now.weights.values(), *now.optimizer.tensors.values()):
        tensor.zero_()  # as the next update does
    assert saved(disk) == []
    disk.let.set()
    writer.close()
    assert equal(read_checkpoint(disk.checkpoints / "00000010.safetensors"), checkpoint(10))
    assert (writer.saved, reported) == (10, [])


def test_a_disk_that_is_behind_costs_checkpoints_and_no_time(
    tmp_path: Path, reported: list[str]
) -> None:
    disk = Disk(tmp_path)
    writer = CheckpointWriter(disk, reported.append, saved=0, patience=0.01)
    disk.let.clear()
    for iteration in (10, 20, 30):
        writer.begin(checkpoint(iteration))
        writer.log([])
    disk.let.set()
    writer.save(checkpoint(40))
    writer.close()
    assert saved(disk) == [10, 40]
    assert reported == [
        f"no checkpoint at iteration {iteration}: the disk is still writing that of 10"
        for iteration in (20, 30)
    ]


def test_the_last_checkpoint_waits_for_the_disk(tmp_path: Path, reported: list[str]) -> None:
    disk = Disk(tmp_path)
    writer = CheckpointWriter(disk, reported.append, saved=0, patience=0.01)
    disk.let.clear()
    writer.begin(checkpoint(10))
    Timer(0.2, disk.let.set).start()
    writer.begin(checkpoint(20), wait=True)
    writer.close()
    assert (saved(disk), reported) == ([10, 20], [])


def test_a_process_that_ends_at_once_does_not_wait_for_the_disk(
    tmp_path: Path, reported: list[str]
) -> None:
    """A second signal ends a run like this: the checkpoint being written may be lost."""
    disk = Disk(tmp_path)
    disk.let.clear()
    writer = CheckpointWriter(disk, reported.append, saved=0)

    def run() -> None:
        with writer:
            writer.begin(checkpoint(10))
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        run()
    assert saved(disk) == []
    disk.let.set()
    writer.close()
    assert saved(disk) == [10]


def test_a_refusal_of_the_disk_is_reported_and_the_next_checkpoint_tried(
    tmp_path: Path, reported: list[str]
) -> None:
    disk = Disk(tmp_path, refused=(10, 30))
    writer = CheckpointWriter(disk, reported.append, saved=0)
    for iteration in (10, 20, 30, 40):
        writer.begin(checkpoint(iteration))
    writer.close()
    assert saved(disk) == [20, 40]
    assert reported == [
        "no checkpoint at iteration 10: no space left on device; none is kept yet",
        "no checkpoint at iteration 30: no space left on device; that of iteration 20 is kept",
    ]
    assert writer.saved == 40


def test_what_is_no_fault_of_the_disk_ends_the_run(tmp_path: Path, reported: list[str]) -> None:
    class Broken(Disk):
        def save(self, checkpoint: Checkpoint, keep_every: int | None = None) -> None:
            raise AssertionError("ours")

    writer = CheckpointWriter(Broken(tmp_path), reported.append, saved=0)
    writer.begin(checkpoint(10))
    with pytest.raises(AssertionError, match="ours"):
        writer.close()
    assert writer.saved == 0


def test_a_save_that_cannot_wait_raises_the_refusal(tmp_path: Path, reported: list[str]) -> None:
    writer = CheckpointWriter(Disk(tmp_path, refused=(10,)), reported.append, saved=0)
    with pytest.raises(OSError, match="No space"):
        writer.save(checkpoint(10))
    writer.close()
    assert writer.saved == 0


def test_lines_wait_for_room_and_no_checkpoint_outlives_them(
    tmp_path: Path, reported: list[str]
) -> None:
    disk = Disk(tmp_path)
    writer = CheckpointWriter(disk, reported.append, saved=0)
    writer.log([{"iteration": 1}])
    disk.metrics = tmp_path / "gone" / "metrics.jsonl"
    writer.log([{"iteration": 2}])
    writer.log([{"iteration": 3}])
    writer.begin(checkpoint(3))
    assert saved(disk) == []
    (tmp_path / "metrics.jsonl").rename(tmp_path / "before")
    (tmp_path / "gone").mkdir()
    (tmp_path / "before").rename(disk.metrics)
    writer.begin(checkpoint(4))
    writer.log([{"iteration": 5}])
    writer.close()
    lines = disk.metrics.read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3, 5]
    assert saved(disk) == [4]
    assert [line.split(":")[0] for line in reported] == [
        "no such file or directory",
        "no checkpoint at iteration 3",
    ]


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fills up in the middle of a line, the whole line is written again."""
    resource = pytest.importorskip("resource")
    import signal

    folder = RunFolder(tmp_path)
    folder.log([{"kind": "warmup", "iteration": 1}])
    size = folder.metrics.stat().st_size
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.log([{"kind": "warmup", "iteration": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert folder.metrics.stat().st_size > size
    assert [row["iteration"] for row in folder.rows()] == [1]
    folder.log([{"kind": "warmup", "iteration": 3}])
    assert [row["iteration"] for row in folder.rows()] == [1, 2, 3]


def test_a_promise_names_only_a_checkpoint_that_is_there(
    tmp_path: Path, reported: list[str]
) -> None:
    disk = Disk(tmp_path, refused=(20,))
    writer = CheckpointWriter(disk, reported.append, saved=0)
    writer.save(checkpoint(10))
    (disk.checkpoints / "00000010.safetensors").unlink()
    writer.begin(checkpoint(20))
    writer.close()
    (line,) = reported
    assert line.endswith("no space left on device; none is kept yet")


def test_another_process_of_the_run_writes_nothing(tmp_path: Path, reported: list[str]) -> None:
    writer = CheckpointWriter(RunFolder(tmp_path, writes=False), reported.append, saved=0)
    writer.log([{"iteration": 1}])
    writer.begin(checkpoint(1))
    writer.save(checkpoint(2))
    writer.close()
    assert os.listdir(tmp_path) == []
    assert reported == []


def test_a_copy_keeps_the_type_and_the_values(tmp_path: Path) -> None:
    now = checkpoint(7)
    copied = now.copied()
    assert equal(now, copied)
    assert copied.weights["count"].dtype == torch.int64
    pointers = {tensor.data_ptr() for tensor in now.weights.values()}
    assert not pointers & {tensor.data_ptr() for tensor in copied.weights.values()}
