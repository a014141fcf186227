"""What a task gives to a run; classification and detection differ behind this alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from reslab.data.loader import Draws
from reslab.models.model_file import model_file, read_facts
from reslab.runtime.device import Device
from reslab.runtime.events import Event
from reslab.training.folder import RunFolder
from reslab.training.recipe import RunRecipe

CheckStop = Callable[[], None]  # called now and then in long work; may raise to end it
Final = tuple[list[Event], dict[str, bytes]]  # reports in full, and files for the run folder


class Task(Protocol):
    """A recipe's network with its data on their device, ready to train."""

    @property
    def recipe(self) -> RunRecipe: ...

    @property
    def device(self) -> Device: ...

    @property
    def net(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.SGD: ...

    @property
    def epoch(self) -> int:
        """Iterations of one pass over the training set."""
        ...

    @property
    def files(self) -> Mapping[str, bytes]:
        """What was measured at the beginning, by name; the run folder keeps it from then on."""
        ...

    def draws(self, iteration: int) -> Draws:
        """Draw the mini-batch of `iteration`, counted from 0: a function of (seed, iteration)."""
        ...

    def prepare(self, draws: Draws) -> Sequence[Any]:
        """Load and augment a mini-batch: an equal share for each virtual GPU of this process."""
        ...

    def loss(self, share: Any) -> tuple[Tensor, Tensor]:
        """Return mean loss, with its graph, and training error in percent, both []."""
        ...

    def evaluate(self, check_stop: CheckStop) -> list[Event]:
        """Report on the watched sets while the run goes on; a task may have nothing to report."""
        ...

    def error_of(self, report: Event) -> float:
        """Return the error, in percent, whose plateau lets the learning rate fall."""
        ...

    def finish(self, check_stop: CheckStop) -> Final:
        """Compute final statistics and final reports after the last update."""
        ...

    def model_file(self, reports: list[Event]) -> bytes:
        """Return the model, with its reports, as the bytes of its file."""
        ...

    def close(self) -> None:
        """End the threads that prepare mini-batches."""
        ...


TaskName = Literal["classification", "detection"]


def task_of(source: RunRecipe | RunFolder | str | Path) -> TaskName:
    """Name the task of a recipe, of a run folder, or of a model file or the one in a folder."""
    if isinstance(source, RunRecipe):
        name = source.task
    elif isinstance(source, RunFolder):
        name = source.task()
    else:
        is_detector = "detector" in read_facts(model_file(source))
        name = "detection" if is_detector else "classification"
    return "detection" if name == "detection" else "classification"
