"""Choose the engine that computes a run's updates, once per run, because it decides the bits."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from reslab.data.loader import InMemoryLoader
from reslab.kernels.build import Kernels, KernelsMissing, instructions_for, load_kernels
from reslab.models.resnet import ResNet
from reslab.runtime.device import Device
from reslab.runtime.events import Log
from reslab.runtime.memory import kept_memory
from reslab.training import fused_norms, gpu, native, replay, side_by_side
from reslab.training.classification import ClassificationTask
from reslab.training.loop import Observer, Prepare, Update, eager_update_of
from reslab.training.recipe import EngineName, RunRecipe
from reslab.training.side_by_side import threads_per_share
from reslab.training.task import Task

ENGINE_FACTS = ("engine", "kernels", "threads_per_share")  # its entries in environment.json
# Return the update for a task. The observer, if there is one, is called in every update. For
# measurements, `Prepare` may replace the task's.
UpdateOf = Callable[[Task, Observer | None, Log, Prepare | None], Update]


def torch_update_of(
    task: Task, observer: Observer | None, log: Log, prepare: Prepare | None
) -> Update:
    """Return PyTorch's update, replayed from a CUDA graph where possible.

    If `prepare` replaces the task's, it is eager.
    """
    return eager_update_of(task, prepare) if prepare else replay.update_of(task, observer, log)


@dataclass(frozen=True)
class Engine:
    """PyTorch, or the kernels that replace it in a run's updates.

    torch: PyTorch, on any device; native: kernels in C++, on a CPU; graph: kernels in Triton,
    replayed from a CUDA graph.
    """

    name: EngineName = "torch"
    update: UpdateOf = torch_update_of
    # what else decides the bits: further entries of environment.json
    details: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""  # why it is PyTorch, if the recipe asks for another engine
    threads_per_share: int | None = None  # None: all threads, one share after the other
    prepares: bool = False  # whether the update makes its mini-batches itself, in its fastest form

    @property
    def facts(self) -> dict[str, Any]:
        """The engine's entries in environment.json: what decides the bits of the run."""
        per_share = self.threads_per_share
        shares = {"threads_per_share": per_share} if per_share is not None else {}
        return {"engine": self.name, **self.details, **shares}

    @property
    def shares_at_a_time(self) -> int:
        """The number of shares, each of one virtual GPU, that a process trains side by side."""
        return torch.get_num_threads() // self.threads_per_share if self.threads_per_share else 1

    def memory(self) -> AbstractContextManager[None]:
        """Return a context that keeps freed memory for the next update, where that saves time."""
        keeps = self.name == "native" or self.threads_per_share is not None
        return kept_memory() if keeps else nullcontext()

    @property
    def line(self) -> str:
        """Describe the choice in a line for the user."""
        shares = [f"{count} virtual GPUs at a time"] if (count := self.shares_at_a_time) > 1 else []
        reason = [f"because {self.reason}"] if self.reason else []
        return "engine: " + ", ".join([self.name, *self.details.values(), *shares, *reason])


def new_engine(task: Task, observer: Observer | None, log: Log) -> Engine:
    """Choose the engine of a new run: the recipe's, if it supports the task and is available here.

    Otherwise, the engine is PyTorch, and its `reason` says why. `auto` stands for native on a CPU,
    and for graph on a GPU. `log` receives a line before the kernels are compiled.
    """
    wanted = task.recipe.engine
    if wanted == "auto":
        wanted = "native" if task.device.torch_device.type == "cpu" else "graph"
    per_share = new_threads_per_share(task)
    if wanted == "torch":
        return torch_engine(per_share)
    if part := missing_part(wanted, task, observer):
        return torch_engine(per_share, unsupported(wanted, part))
    try:
        return load_engine(wanted, task.device, log, per_share if lacks_trunk(task) else None)
    except KernelsMissing as missing:
        return torch_engine(per_share, str(missing))


def new_threads_per_share(task: Task) -> int | None:
    """Return the threads per share of a new run; None: all, and one share after the other."""
    if not isinstance(task, ClassificationTask):
        return None
    threads = torch.get_num_threads()
    # the first process decides for all
    per_share = task.device.processes.run_on_first(lambda: threads_per_share(task, threads))
    return per_share if per_share < threads else None


def lacks_trunk(task: Task) -> bool:
    """Return whether the C++ kernels cannot compute the whole trunk of a task's network."""
    return not isinstance(task, ClassificationTask) or native.lacking(task) is not None


def torch_engine(per_share: int | None, reason: str = "") -> Engine:
    """Return PyTorch with this many threads per share; None: all of them."""
    if per_share is None:
        return Engine(reason=reason)
    update = partial(side_by_side_update_of, per_share)
    return Engine(update=update, reason=reason, threads_per_share=per_share)


def continued_engine(
    recipe: RunRecipe,
    begun: Mapping[str, Any],
    device: Device,
    observer: Observer | None,
    log: Log,
) -> Engine:
    """Return the engine of a run that is resumed; `begun` is the environment it began with.

    It is the run's first engine, but PyTorch if the recipe now says so, or with an observer, or if
    the run has moved between CPU and GPU. Raise ValueError if its kernels are missing here.
    """
    name: EngineName = begun.get("engine", "torch")
    on_cpu = device.torch_device.type == "cpu"  # the run may have moved to another machine
    if name == "torch" or recipe.engine == "torch":
        return torch_engine(begun.get("threads_per_share") if on_cpu else None)
    if observer is not None:
        return Engine(reason=unsupported(name, "observers"))
    if on_cpu != (name == "native"):
        return Engine(reason=unsupported(name, "CPUs" if on_cpu else "GPUs"))
    try:
        return load_engine(name, device, log, begun.get("threads_per_share"))
    except KernelsMissing as missing:
        raise ValueError(
            f"the run began with engine={name}, which is missing here: {missing}; to continue with "
            "PyTorch, not bit-exact from here on, repeat the command that began the run and add "
            "--set engine=torch"
        ) from None


def missing_part(name: EngineName, task: Task, observer: Observer | None) -> str | None:
    """Return the part of a run that engine `name`, not PyTorch, does not support, or None."""
    if observer is not None:
        return "observers"
    if not isinstance(task, ClassificationTask):
        return "detectors"
    if name == "graph":
        return gpu.lacking(task)
    return fused_norms.lacking(task)  # the trunk in C++ needs as much, and more


def unsupported(name: EngineName, part: str) -> str:
    """Return the reason for choosing PyTorch if the engine `name` does not support a part."""
    return f"the engine {name} does not support {part}"


def load_engine(name: EngineName, device: Device, log: Log, per_share: int | None) -> Engine:
    """Return an engine other than PyTorch; raise KernelsMissing if it is not available here.

    `per_share` is the number of threads per share; None: all of them.
    """
    if name == "graph":
        return Engine(name, gpu_update_of, {"kernels": gpu.label()}, prepares=True)
    kernels = kernels_for(device, log)
    update = partial(native_update_of, kernels, per_share)
    return Engine(name, update, {"kernels": kernels.label}, threads_per_share=per_share)


def kernels_for(device: Device, log: Log) -> Kernels:
    """Load the C++ kernels for the device's precision.

    Raise KernelsMissing in all processes if the kernels are missing in any: some processes may run
    on a machine without a compiler.
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


def side_by_side_update_of(
    threads: int,
    task: Task,
    observer: Observer | None,
    log: Log,
    prepare: Prepare | None,
) -> Update:
    """Return PyTorch's update with `threads` threads per share."""
    assert isinstance(task, ClassificationTask)
    return side_by_side.update_of(task, threads, observer, prepare)


def native_update_of(
    kernels: Kernels,
    per_share: int | None,
    task: Task,
    observer: Observer | None,
    log: Log,
    prepare: Prepare | None,
) -> Update:
    """Return the update of the C++ kernels, for the whole trunk if they can, or else its norms."""
    assert observer is None
    assert isinstance(task, ClassificationTask)
    if native.lacking(task):
        return fused_norms.fused_update(task, kernels, per_share, prepare)
    assert isinstance(task.net, ResNet)
    assert isinstance(task.loader, InMemoryLoader)
    share, side = task.recipe.batch_size // task.recipe.virtual_gpus, task.loader.images.shape[-1]
    net = native.native_net(task.net, kernels, side, share)
    return native.native_update(task, net, kernels, prepare)


def gpu_update_of(
    task: Task, observer: Observer | None, log: Log, prepare: Prepare | None
) -> Update:
    """Return the update of the Triton kernels.

    If `prepare` replaces the task's, it is PyTorch's eager one: the kernels take images by index.
    """
    assert observer is None
    assert isinstance(task, ClassificationTask)
    return eager_update_of(task, prepare) if prepare else gpu.gpu_update(task, log)


def update_of(
    task: Task,
    engine: Engine,
    observer: Observer | None,
    log: Log,
    prepare: Prepare | None = None,
) -> Update:
    """Return the engine's update for a task. For measurements, `prepare` may replace the task's."""
    return engine.update(task, observer, log, prepare)
