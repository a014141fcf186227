"""The interface between a run and its task: classification or detection."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from reslab.data.loader import Draws
from reslab.models.model_file import model_file, read_facts
from reslab.runtime.device import Device
from reslab.runtime.events import Event
from reslab.training.folder import RunFolder
from reslab.training.optimizer import Optimizer
from reslab.training.recipe import RunRecipe, TaskName

CheckStop = Callable[[], None]  # called regularly in long work; may raise to end it
Final = tuple[list[Event], dict[str, bytes]]  # full reports, and files for the run folder


class Task(Protocol):
    """A recipe's network and data on their device, ready to train."""

    @property
    def recipe(self) -> RunRecipe: ...

    @property
    def device(self) -> Device: ...

    @property
    def net(self) -> nn.Module: ...

    @property
    def optimizer(self) -> Optimizer: ...

    @property
    def epoch(self) -> int:
        """Iterations per pass over the training set."""
        ...

    @property
    def files(self) -> Mapping[str, bytes]:
        """Files with statistics measured at the start, by name, to be kept in the run folder."""
        ...

    def draws(self, iteration: int) -> Draws:
        """Sample the mini-batch of `iteration`, counted from 0: a function of (seed, iteration)."""
        ...

    def prepare(self, draws: Draws) -> Sequence[Any]:
        """Load and augment a mini-batch; return one share per virtual GPU of this process.

        A share is one virtual GPU's part of the mini-batch; all shares have the same size.
        """
        ...

    def loss(self, share: Any) -> tuple[Tensor, Tensor]:
        """Return the mean loss, with its graph, and the training error in percent, both []."""
        ...

    def evaluate(self, check_stop: CheckStop) -> list[Event]:
        """Return reports on the sets monitored during training; the list may be empty."""
        ...

    def error_of(self, report: Event) -> float:
        """Return the error, in percent, whose plateau lowers the learning rate."""
        ...

    def finish(self, check_stop: CheckStop) -> Final:
        """Compute the final batch-norm statistics and reports after the last update."""
        ...

    def model_file(self, reports: list[Event]) -> bytes:
        """Return the bytes of a model file with the network and `reports`."""
        ...

    def close(self) -> None:
        """Stop the threads that prepare mini-batches."""
        ...


def task_of(source: RunRecipe | RunFolder | str | Path) -> TaskName:
    """Return the task of a recipe, a run folder, or a model file (a path to it or its folder)."""
    if isinstance(source, RunRecipe):
        name = source.task
    elif isinstance(source, RunFolder):
        name = source.task()
    else:
        is_detector = "detector" in read_facts(model_file(source))
        name = "detection" if is_detector else "classification"
    return "detection" if name == "detection" else "classification"
