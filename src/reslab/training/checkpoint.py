"""Checkpoints that survive a kill, a full disk and a damaged file; exact to the last bit."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from reslab.models.model_file import sha256_of
from reslab.training.schedule import PlateauState, ScheduleState, WarmupState

KEPT_CHECKPOINTS = 3
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """All that the rest of a run depends on. Order and augmentation are functions of the
    iteration, so no generator's state is among it."""

    iteration: int
    learning_rate: float
    seconds: float  # spent training so far
    schedule: ScheduleState
    weights: dict[str, Tensor]  # parameters and statistics
    momentum: dict[str, Tensor]
    losses: Tensor  # since the last line of the log, [<= log_every]
    errors: Tensor  # of the last epoch, [<= iterations of an epoch]
    judged: bool = True  # False: the evaluation that belongs to this iteration is still to be made

    def copied(self) -> "Checkpoint":
        """One that stays as it is when training goes on, on the CPU."""
        return replace(self, weights=copies(self.weights), momentum=copies(self.momentum))

    def tensors(self) -> dict[str, Tensor]:
        """Everything under one name each."""
        return (
            {f"weights.{name}": tensor for name, tensor in self.weights.items()}
            | {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}
            | {"history.losses": self.losses, "history.errors": self.errors}
        )


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write beside, fsync, rename; then drop all but the last three."""
    folder.mkdir(exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors().items()}
    facts = json.dumps(
        {
            "iteration": checkpoint.iteration,
            "learning_rate": checkpoint.learning_rate,
            "seconds": checkpoint.seconds,
            "schedule": asdict(checkpoint.schedule),
            "judged": checkpoint.judged,
        }
    )
    metadata = {"facts": facts, "sha256": sha256_of(tensors | {f"facts {facts}": torch.empty(0)})}
    path = folder / f"{checkpoint.iteration:08d}{SUFFIX}"
    write_atomically(path, save(tensors, metadata))
    for old in checkpoints_in(folder)[:-KEPT_CHECKPOINTS]:
        old.unlink()
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def recover_newest_checkpoint(folder: Path, on_event: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; a damaged one is told of, deleted, and passed over."""
    for path in reversed(checkpoints_in(folder)):
        try:
            return read_checkpoint(path)
        except ValueError as error:
            on_event(f"{error}; going on from the one before")
            path.unlink()
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint, checked against its own checksum."""
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            names = opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
    except SafetensorError as error:  # an OSError is no damage: the disk may answer next time
        raise ValueError(f"checkpoint {path} is damaged ({error})") from None
    text = metadata.get("facts", "")
    if sha256_of(tensors | {f"facts {text}": torch.empty(0)}) != metadata.get("sha256"):
        raise ValueError(f"checkpoint {path} is damaged (its checksum is another)")
    facts = json.loads(text)
    schedule = facts.pop("schedule")
    warmup = schedule["warmup"]
    return Checkpoint(
        **facts,
        schedule=ScheduleState(
            WarmupState(**(warmup | {"errors": tuple(warmup["errors"])})),
            PlateauState(**schedule["plateau"]),
        ),
        weights=_under("weights.", tensors),
        momentum=_under("momentum.", tensors),
        losses=tensors["history.losses"],
        errors=tensors["history.errors"],
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` as a whole or leave it as it was, whatever happens meanwhile."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)
