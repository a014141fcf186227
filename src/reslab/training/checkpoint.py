"""Checkpoints that survive a kill, a full disk and a damaged file; exact to the last bit."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from reslab.runtime.files import TensorFile, atomic_write
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
    facts = {
        "iteration": checkpoint.iteration,
        "learning_rate": checkpoint.learning_rate,
        "seconds": checkpoint.seconds,
        "schedule": asdict(checkpoint.schedule),
        "judged": checkpoint.judged,
    }
    path = folder / f"{checkpoint.iteration:08d}{SUFFIX}"
    atomic_write(path, TensorFile(checkpoint.tensors(), facts).to_bytes())
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
    """One checkpoint; ValueError if it is damaged.

    An OSError is no damage: the disk may answer next time.
    """
    try:
        file = TensorFile.read(path)
        schedule = file.facts.pop("schedule")
    except (ValueError, KeyError) as error:
        raise ValueError(f"checkpoint {path} is damaged ({error})") from None
    tensors, warmup = file.tensors, schedule["warmup"]
    return Checkpoint(
        **file.facts,
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
