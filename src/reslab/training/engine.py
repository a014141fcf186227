"""The engine of a run, PyTorch or the C++ kernels: chosen once, because it decides the bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reslab.data.loader import InMemoryLoader
from reslab.kernels.build import Kernels, KernelsMissing, instructions_for, load_kernels
from reslab.models.resnet import ResNet
from reslab.runtime.device import Device
from reslab.runtime.events import Log
from reslab.training.classification import ClassificationTask
from reslab.training.graph import update_of as torch_update
from reslab.training.loop import Observer, Prepare, Update, eager_update_of
from reslab.training.native import lacking, native_net, native_update
from reslab.training.recipe import Recipe, RunRecipe
from reslab.training.task import Task


@dataclass(frozen=True)
class Engine:
    """PyTorch, or the kernels that replace it in a run's updates."""

    kernels: Kernels | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The engine's entries in environment.json: what decides the bits of the run."""
        if self.kernels is None:
            return {"engine": "torch"}
        return {"engine": "native", "kernels": self.kernels.label}


def wanted_engine(recipe: RunRecipe) -> str:
    """Return the engine that a recipe names; only classifiers have a choice."""
    return recipe.engine if isinstance(recipe, Recipe) else "auto"


def new_engine(task: Task, observer: Observer | None, log: Log) -> Engine:
    """Choose the engine of a new run: the kernels if the recipe names them and they can train it.

    Otherwise, it is PyTorch. If the recipe names them, `log` receives a line with the choice.
    """
    if wanted_engine(task.recipe) != "native":
        return Engine()
    assert isinstance(task, ClassificationTask)
    part = "observers" if observer is not None else lacking(task)
    if part is not None:
        log(f"engine: torch, because the native one does not support {part}")
        return Engine()
    try:
        kernels = kernels_for(task.device, log)
    except KernelsMissing as missing:
        log(f"engine: torch, because {missing}")
        return Engine()
    log(f"engine: native, {kernels.label}")
    return Engine(kernels)


def continued_engine(
    recipe: RunRecipe,
    begun: Mapping[str, Any],
    device: Device,
    observer: Observer | None,
    log: Log,
) -> Engine:
    """Return the engine of a run that is resumed; `begun` is the environment it began with.

    Raise ValueError if it began with the kernels and they are missing on this CPU.
    """
    if begun.get("engine", "torch") != "native" or wanted_engine(recipe) == "torch":
        return Engine()
    on_cpu = device.torch_device.type == "cpu"  # the run may have moved to a machine with a GPU
    if observer is not None or not on_cpu:
        part = "observers" if on_cpu else "GPUs"
        log(f"engine: torch, because the native one does not support {part}")
        return Engine()
    try:
        return Engine(kernels_for(device, log))
    except KernelsMissing as missing:
        raise ValueError(
            f"the run began with engine=native, which is missing here: {missing}; the command that "
            "began it continues with PyTorch if you add --set engine=torch"
        ) from None


def kernels_for(device: Device, log: Log) -> Kernels:
    """Load the kernels for the device's precision.

    Raise KernelsMissing, in all processes, if they are missing in one: some may be on a machine
    without a compiler.
    """
    kernels, missing = None, ""
    try:
        kernels = load_kernels(instructions_for(device.precision), log)
    except KernelsMissing as error:
        missing = str(error)
    reasons = [reason for reason in device.processes.all_gather_objects(missing) if reason]
    if kernels is None or reasons:
        raise KernelsMissing(reasons[0])
    return kernels


def update_of(
    task: Task,
    engine: Engine,
    observer: Observer | None,
    log: Log,
    prepare: Prepare | None = None,
) -> Update:
    """Return the engine's update for a task.

    For measurements, `prepare` may replace the task's; PyTorch's update is then eager.
    """
    if engine.kernels is None:
        return eager_update_of(task, prepare) if prepare else torch_update(task, observer, log)
    assert isinstance(task, ClassificationTask)
    assert isinstance(task.net, ResNet)
    assert isinstance(task.loader, InMemoryLoader)
    share, side = task.recipe.batch_size // task.recipe.virtual_gpus, task.loader.images.shape[-1]
    native = native_net(task.net, engine.kernels, side, share)
    return native_update(task, native, engine.kernels, prepare)
