"""Replay the update of a classifier from a CUDA graph.

The engine `torch` replays the eager update of CIFAR nets on a GPU; the engine `graph` (gpu.py)
replays its own kernels with the same classes.

A small network keeps a GPU idle most of the time: an iteration of ResNet-20 launches 875 kernels,
one after the other, from Python. A CUDA graph launches them all at once. With the kernels of the
eager update, in the same order on the same numbers, a run has the bits of an eager one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, final

import torch
from torch import Tensor, nn

from reslab.data.loader import Draws, InMemoryLoader
from reslab.models.batchnorm import trained_norms
from reslab.models.random_layers import random_layers
from reslab.runtime.events import Log
from reslab.training.classification import ClassificationTask
from reslab.training.loop import Observer, Step, Update, at_rate, eager_step, eager_update_of
from reslab.training.optimizer import AuthorsSGD
from reslab.training.task import Task

EAGER_UPDATES = 4  # before the capture, so that the libraries have allocated what they keep

Work = Callable[[], Tensor]


class Recorder(Protocol):
    """The interface for recording work on a device and replaying it."""

    def run(self, work: Work) -> Tensor:
        """Execute the work as many times as needed before it is recorded."""
        ...

    def record(self, work: Work) -> Work:
        """Record the work without executing it, and return a function that replays it.

        Every replay returns the same tensor with new values. Raise RuntimeError if the work
        cannot be recorded.
        """
        ...


def update_of(task: Task, observer: Observer | None, log: Log) -> Update:
    """Return PyTorch's update for a task, replayed if possible, else eager; the bits are the same.

    An observer looks at gradients in Python, so its run is eager. `log` receives a note if the GPU
    refuses the capture.
    """
    if observer is None and isinstance(task, ClassificationTask) and lacking(task) is None:
        return captured_update(task, CudaGraphs(), log)
    return eager_update_of(task, observer=observer)


def lacking(task: ClassificationTask) -> str | None:
    """Return the part of a task that cannot be captured, or None if all of it can.

    Every iteration must make the same calls on the same memory. The capture of recomputed blocks
    is untested.
    """
    if task.device.torch_device.type != "cuda":
        return "CPUs"
    if task.device.processes.count > 1:
        return "several processes"
    if not isinstance(task.loader, InMemoryLoader):
        return "images that are decoded during training"
    if task.recipe.deviations.parts or not isinstance(task.optimizer, AuthorsSGD):
        return "parts of your own"
    if task.recipe.recompute != "none":
        return f"recompute={task.recipe.recompute}"
    return "random layers" if random_layers(task.net) else None


def captured_update(task: ClassificationTask, recorder: Recorder, log: Log) -> Update:
    """Return an update that is eager a few times and replayed from then on.

    If it cannot be recorded, `log` receives a note, and all updates are eager.
    """
    optimizer = task.optimizer
    assert isinstance(optimizer, AuthorsSGD)
    sgd = DeviceSGD(optimizer)
    step = Replayed(
        eager_step(task.prepare, task.loss, sgd, trained_norms(task.net), task.device.processes),
        task.device.torch_device,
        recorder,
        log,
    )
    return at_rate(step, sgd.set_rate)


@final
class Replayed:
    """A step that reads its draws from fixed memory, so that a recording of it can be replayed."""

    def __init__(self, step: Step, device: torch.device, recorder: Recorder, log: Log) -> None:
        self.step, self.device, self.recorder, self.log = step, device, recorder, log
        self.eager_left = EAGER_UPDATES
        self.held: Draws | None = None  # the memory that a replay reads
        self.replay: Work | None = None

    def __call__(self, draws: Draws) -> Tensor:
        if self.eager_left > 0:
            self.eager_left -= 1
            return self.recorder.run(lambda: self.step(self.on_device(draws)))
        if self.held is None:
            self.held = self.on_device(draws)
            self.replay = self.recorded(self.held)
        else:
            copy_draws(draws, self.held)
        return self.step(self.held) if self.replay is None else self.replay().clone()

    def recorded(self, held: Draws) -> Work | None:
        try:
            return self.recorder.record(lambda: self.step(held))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            self.log(f"no CUDA graph, so small networks train more slowly: {reason}")
            return None

    def on_device(self, draws: Draws) -> Draws:
        """Return a copy of the draws on the device."""
        numbers = tuple(drawn.to(self.device, copy=True) for drawn in draws.numbers)
        return replace(draws, indices=draws.indices.to(self.device, copy=True), numbers=numbers)


def copy_draws(draws: Draws, held: Draws) -> None:
    """Overwrite the tensors of `held` with those of `draws`."""
    held.indices.copy_(draws.indices, non_blocking=True)
    for memory, drawn in zip(held.numbers, draws.numbers, strict=True):
        memory.copy_(drawn, non_blocking=True)


@final
class CudaGraphs:
    """Record work on the current GPU as CUDA graphs."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    def run(self, work: Work) -> Tensor:
        """Execute the work on a separate stream, as torch requires before a capture."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = work()
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # other threads may use the GPU at the same time
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            table = work()

        def replay() -> Tensor:
            graph.replay()
            return table

        return replay


@final
class DeviceSGD:
    """The step of the authors' SGD with learning rates that are read from the device.

    A graph keeps numbers from Python at their values during the capture.
    """

    def __init__(self, optimizer: AuthorsSGD) -> None:
        self.optimizer = optimizer
        device = optimizer.parameters[0].device
        self.rates = [torch.zeros((), device=device) for _ in optimizer.groups]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return self.optimizer.parameters

    def set_rate(self, rate: float) -> None:
        """Set the learning rate, and rescale the velocities if it has changed; not captured."""
        self.optimizer.set_rate(rate)
        for group, held in zip(self.optimizer.groups, self.rates, strict=True):
            held.fill_(rate * group.scale)

    def step(self) -> None:
        for group, rate in zip(self.optimizer.groups, self.rates, strict=True):
            self.optimizer.step_group(group, rate)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()
