"""Checkpoints that survive a kill, a full disk or a damaged file, and restore a run bit for bit."""

import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from reslab.runtime.events import Log
from reslab.runtime.files import TensorFile
from reslab.runtime.writing import atomic_write
from reslab.training.optimizer import OptimizerState
from reslab.training.schedule import PlateauState, ScheduleState, WarmupState
from reslab.training.stored import Count, Percent, Seconds, must_be

KEPT_CHECKPOINTS = 3
NAME = re.compile(r"\d{8,}\.safetensors")  # other files in the folder belong to the user
WEIGHTS, HISTORY = "weights.", "history."  # prefixes of tensor names
# version of the facts; format 1 is not recorded in its files, format 3 adds the facts of an own
# optimizer, so that older versions can still read other checkpoints
ORDINARY_FORMAT, FORMAT = 2, 3


class WarmupFacts(TypedDict):
    """The fields of `WarmupState` in JSON."""

    errors: list[Percent]
    ended_at: Count | None
    capped: bool


class PlateauFacts(TypedDict):
    """The fields of `PlateauState` in JSON."""

    drops: Count
    best: float | None
    waited: Count


class ScheduleFacts(TypedDict):
    """The fields of `ScheduleState` in JSON."""

    warmup: WarmupFacts
    plateau: PlateauFacts


class AnyFormat(TypedDict):
    """The facts of a checkpoint in any format; only checkpoints have a schedule."""

    format: NotRequired[int]
    schedule: dict[str, Any]


class Facts(TypedDict):
    """The facts of a checkpoint in the formats that are read."""

    iteration: Count
    seconds: Seconds
    learning_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    schedule: ScheduleFacts
    judged: NotRequired[bool]
    optimizer: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """The complete state of a run after some iteration.

    Order and augmentation are functions of the iteration, so no generator state is stored.
    """

    iteration: int
    seconds: float  # training time so far
    schedule: ScheduleState
    weights: dict[str, Tensor]  # parameters and batch-norm statistics
    optimizer: OptimizerState
    losses: Tensor  # since the last log line, [<= log_every]
    errors: Tensor  # over the last epoch, [<= iterations per epoch]
    evaluated: bool = True  # False: the evaluation due after this iteration is still pending

    def copied(self) -> "Checkpoint":
        """Return a copy on the CPU that further training does not change."""
        optimizer = replace(self.optimizer, tensors=copies(self.optimizer.tensors))
        return replace(self, weights=copies(self.weights), optimizer=optimizer)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors under their names in the file."""
        return (
            {WEIGHTS + name: tensor for name, tensor in self.weights.items()}
            | self.optimizer.tensors
            | {f"{HISTORY}losses": self.losses, f"{HISTORY}errors": self.errors}
        )


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep_every: int | None = None) -> Path:
    """Write a checkpoint atomically and return its path.

    All but the newest three checkpoints are deleted, except those at multiples of `keep_every`
    iterations.
    """
    folder.mkdir(exist_ok=True)
    own_facts = checkpoint.optimizer.facts
    facts = {
        "format": ORDINARY_FORMAT if own_facts is None else FORMAT,
        "iteration": checkpoint.iteration,
        "learning_rate": checkpoint.optimizer.learning_rate,
        "seconds": checkpoint.seconds,
        "schedule": asdict(checkpoint.schedule),
        "judged": checkpoint.evaluated,
        **({} if own_facts is None else {"optimizer": own_facts}),
    }
    path = folder / checkpoint_name(checkpoint.iteration)
    atomic_write(path, TensorFile(checkpoint.tensors(), facts).to_bytes())
    for old in checkpoints_in(folder)[:-KEPT_CHECKPOINTS]:
        if not is_kept(int(old.stem), keep_every):
            old.unlink()
    return path


def is_kept(iteration: int, keep_every: int | None) -> bool:
    """Return whether the checkpoint of an iteration must never be skipped or deleted."""
    return keep_every is not None and iteration % keep_every == 0


def checkpoint_name(iteration: int) -> str:
    return f"{iteration:08d}.safetensors"


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoint files in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    names = [name for name in os.listdir(folder) if NAME.fullmatch(name)]
    return [folder / name for name in sorted(names, key=lambda name: (len(name), name))]


def recover_newest_checkpoint(folder: Path, log: Log) -> Checkpoint | None:
    """Return the newest intact checkpoint, or None if there is none.

    Newer damaged checkpoints are renamed, each with a log line. A checkpoint in the format of a
    later reslab is not damaged: it is kept, and a ValueError is raised.
    """
    for path in reversed(checkpoints_in(folder)):
        try:
            file = read_file(path)
            if file.facts["iteration"] != int(path.stem):
                raise ValueError(f"checkpoint {path} is that of another iteration")
        except ValueError as error:
            log(f"{error}; using the previous one, and keeping it as {set_aside(path).name}")
        else:
            return decode(file, path)
    return None


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that it is no longer a checkpoint; return its new path."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    return path.rename(aside)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raise ValueError if it is damaged or has a later format.

    An OSError does not mean damage: the disk may respond next time.
    """
    return decode(read_file(path), path)


def read_file(path: Path) -> TensorFile:
    """Read a checkpoint file in any format; raise ValueError if it is damaged."""
    try:
        file = TensorFile.read(path)
        must_be(AnyFormat, file.facts)
        if file.facts.get("format", 1) <= FORMAT:
            must_be(Facts, file.facts)
            tensors = [file.tensors.get(f"{HISTORY}{name}") for name in ("losses", "errors")]
            if any(tensor is None or tensor.ndim != 1 for tensor in tensors):
                raise ValueError("there are no losses and errors in it")
    except ValueError as error:
        raise ValueError(f"checkpoint {path} is damaged ({error})") from None
    return file


def decode(file: TensorFile, path: Path) -> Checkpoint:
    """Return the checkpoint in an intact file; raise ValueError if it has a later format."""
    facts, tensors = file.facts, file.tensors
    if facts.get("format", 1) > FORMAT:
        raise ValueError(
            f"checkpoint {path} has format {facts['format']}, this version of reslab reads up "
            f"to {FORMAT}; resume the run with the version that wrote it"
        )
    warmup, plateau = facts["schedule"]["warmup"], facts["schedule"]["plateau"]
    return Checkpoint(
        iteration=facts["iteration"],
        seconds=facts["seconds"],
        schedule=ScheduleState(
            WarmupState(**(warmup | {"errors": tuple(warmup["errors"])})), PlateauState(**plateau)
        ),
        weights={
            name.removeprefix(WEIGHTS): tensor
            for name, tensor in tensors.items()
            if name.startswith(WEIGHTS)
        },
        optimizer=OptimizerState(
            facts["learning_rate"],
            {
                name: tensor
                for name, tensor in tensors.items()
                if not name.startswith((WEIGHTS, HISTORY))
            },
            facts.get("optimizer"),
        ),
        losses=tensors[f"{HISTORY}losses"],
        errors=tensors[f"{HISTORY}errors"],
        evaluated=facts.get("judged", True),
    )
