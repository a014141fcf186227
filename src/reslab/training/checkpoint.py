"""Checkpoints that survive a kill, a full disk and a damaged file; exact to the last bit."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from reslab.runtime.events import Log
from reslab.runtime.files import TensorFile, atomic_write
from reslab.training.schedule import PlateauState, ScheduleState, WarmupState

KEPT_CHECKPOINTS = 3
SUFFIX = ".safetensors"
FORMAT = 2  # of the facts; the first edition's files name none


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the rest of a run depends on.

    Order and augmentation are functions of the iteration, so there is no generator's state.
    """

    iteration: int
    learning_rate: float
    seconds: float  # spent training so far
    schedule: ScheduleState
    weights: dict[str, Tensor]  # parameters and statistics
    momentum: dict[str, Tensor]
    losses: Tensor  # since the last line of the log, [<= log_every]
    errors: Tensor  # of the last epoch, [<= iterations of an epoch]
    evaluated: bool = True  # False: the evaluation after this iteration is still to be made

    def copied(self) -> "Checkpoint":
        """Copy the tensors that training goes on changing, to the CPU."""
        return replace(self, weights=copies(self.weights), momentum=copies(self.momentum))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors under their names in the file."""
        return (
            {f"weights.{name}": tensor for name, tensor in self.weights.items()}
            | {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}
            | {"history.losses": self.losses, "history.errors": self.errors}
        )


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, then delete all but the newest three."""
    folder.mkdir(exist_ok=True)
    facts = {
        "format": FORMAT,
        "iteration": checkpoint.iteration,
        "learning_rate": checkpoint.learning_rate,
        "seconds": checkpoint.seconds,
        "schedule": asdict(checkpoint.schedule),
        "judged": checkpoint.evaluated,
    }
    path = folder / f"{checkpoint.iteration:08d}{SUFFIX}"
    atomic_write(path, TensorFile(checkpoint.tensors(), facts).to_bytes())
    for old in checkpoints_in(folder)[:-KEPT_CHECKPOINTS]:
        old.unlink()
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """List the checkpoints of a run, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def recover_newest_checkpoint(folder: Path, log: Log) -> Checkpoint | None:
    """Return the newest whole checkpoint; delete damaged ones that are newer, each with a line.

    One of a later reslab's format is whole: it is refused by a ValueError, and kept.
    """
    for path in reversed(checkpoints_in(folder)):
        try:
            file = read_file(path)
        except ValueError as error:
            log(f"{error}; going on from the one before")
            path.unlink()
        else:
            return decode(file, path)
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint; ValueError if it is damaged or of a later format.

    An OSError is no damage: the disk may answer next time.
    """
    return decode(read_file(path), path)


def read_file(path: Path) -> TensorFile:
    """Read the file of a checkpoint, of whatever format; ValueError if it is damaged."""
    try:
        file = TensorFile.read(path)
        file.facts["schedule"]  # other files have none
    except (ValueError, KeyError) as error:
        raise ValueError(f"checkpoint {path} is damaged ({error})") from None
    return file


def decode(file: TensorFile, path: Path) -> Checkpoint:
    """Return the checkpoint in an undamaged file; ValueError for a later format."""
    facts, tensors = file.facts, file.tensors
    if facts.get("format", 1) > FORMAT:
        raise ValueError(
            f"checkpoint {path} has format {facts['format']}, this reslab reads up to {FORMAT}; "
            "go on with the version that wrote it"
        )
    warmup, plateau = facts["schedule"]["warmup"], facts["schedule"]["plateau"]
    return Checkpoint(
        iteration=facts["iteration"],
        learning_rate=facts["learning_rate"],
        seconds=facts["seconds"],
        schedule=ScheduleState(
            WarmupState(**(warmup | {"errors": tuple(warmup["errors"])})), PlateauState(**plateau)
        ),
        weights=_under("weights.", tensors),
        momentum=_under("momentum.", tensors),
        losses=tensors["history.losses"],
        errors=tensors["history.errors"],
        evaluated=facts.get("judged", True),
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
