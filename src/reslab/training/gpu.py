"""Train a 6n+2 net with the Triton kernels, replayed from a CUDA graph: the engine `graph`."""

import os
import shutil
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from reslab import kernels
from reslab.data.loader import Draws, InMemoryLoader
from reslab.kernels.build import KernelsMissing
from reslab.models.batchnorm import NormStatistics, norms_of
from reslab.models.resnet import ResNet
from reslab.runtime.events import Log
from reslab.training import replay
from reslab.training.classification import ClassificationTask
from reslab.training.loop import LOSS, Step, Update, at_rate
from reslab.training.native import lacking_for, trunk_layers
from reslab.training.optimizer import AuthorsSGD
from reslab.training.replay import CudaGraphs, DeviceSGD, Recorder, Replayed

PREPARED_AT_ONCE = 4096  # images
C_COMPILERS = ("gcc", "clang")  # where Triton looks for one, if CC is not set
MOST_PIXELS = 2**30  # of all preprocessed images, which are kept in memory: 8 GiB
SOURCE = Path(kernels.__file__).parent / "gpu"


def lacking(task: ClassificationTask) -> str | None:
    """Return the part of a task that the Triton kernels do not support, or None."""
    if part := replay.lacking(task):
        return part
    if task.device.precision != "bf16":
        return f"precision={task.device.precision}"
    if not isinstance(task.net, ResNet):
        return "networks of your own"
    if task.recipe.batch_norm != "train":
        return "frozen batch norm"
    if task.class_weights is not None:
        return "balance=loss"
    assert isinstance(task.loader, InMemoryLoader)
    height, width = task.loader.images.shape[-2:]
    if height != width:
        return f"images of {height} x {width} pixels"
    if task.count * height * width > MOST_PIXELS:
        return f"more than {MOST_PIXELS // (height * width):,} images of this size"
    if task.net.config.shortcut in ("B", "C"):
        return "projection shortcuts"
    return lacking_for(task.net.config)


def label() -> str:
    """Return Triton's version and a digest of the kernels' source, which decide their bits.

    Raise KernelsMissing if Triton is not installed, or lacks the C compiler that it starts with.
    """
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        raise KernelsMissing("Triton is not installed") from None
    if not os.environ.get("CC") and not any(map(shutil.which, C_COMPILERS)):
        raise KernelsMissing(f"Triton needs a C compiler, {' or '.join(C_COMPILERS)}")
    source = b"".join(path.read_bytes() for path in sorted(SOURCE.glob("*.py")))
    return f"triton {version}, {sha256(source).hexdigest()[:16]}"


def gpu_update(task: ClassificationTask, log: Log, recorder: Recorder | None = None) -> Update:
    """Return an update by the Triton kernels: eager at first, then replayed from a CUDA graph."""
    assert isinstance(task.optimizer, AuthorsSGD)
    sgd = DeviceSGD(task.optimizer)
    step = Replayed(gpu_step(task, sgd), task.device.torch_device, recorder or CudaGraphs(), log)
    return at_rate(step, sgd.set_rate)


def gpu_step(task: ClassificationTask, sgd: DeviceSGD) -> Step:
    """Return the step at the current learning rate: all shares in one pass of kernels.

    Every share has its own batch-norm statistics, as in the eager step.
    """
    from reslab.kernels.gpu.step import GpuStep  # Triton is not installed on every machine

    net, loader, shares = task.net, task.loader, task.recipe.virtual_gpus
    assert isinstance(net, ResNet)
    assert isinstance(loader, InMemoryLoader)
    dtype = torch.bfloat16 if task.device.precision == "bf16" else torch.float32
    share = task.recipe.batch_size // shares
    passes = GpuStep(
        trunk_layers(net), net.fc.weight, net.fc.bias, prepared_images(loader, dtype),
        loader.labels, shares=shares, share=share, pad=loader.pad,
    )  # fmt: skip
    norms = norms_of(net)
    statistics = NormStatistics(norms, net.fc.weight.device)
    momentum = norms[0].momentum
    assert momentum is not None

    def table() -> Tensor:
        """Return one row per share, as `Update` says, and update the moving averages."""
        facts = torch.stack([passes.losses, 100 * passes.errors]).view(2, shares, share).mean(2).T
        rows = torch.cat([passes.unbiased_statistics(), facts.double()], 1)
        averages = statistics.row()
        for row in rows:
            averages.lerp_(row[:LOSS], momentum)
        statistics.write(averages, shares)
        return rows

    @torch.no_grad()
    def step(draws: Draws) -> Tensor:
        numbers = iter(draws.numbers)
        offsets = next(numbers) if loader.pad else None
        flips = next(numbers) if loader.flip else None
        passes.forward(draws.indices, offsets, flips)
        with passes.branch:
            rows = table()
        passes.backward()
        for weight, gradient in passes.gradients():
            weight.grad = gradient
        sgd.step()
        return rows

    return step


def prepared_images(loader: InMemoryLoader, dtype: torch.dtype) -> Tensor:
    """Return the preprocessed training images with a fourth channel of zeros, [N, S, S, 4]."""
    images = loader.images
    side = images.shape[-1]
    prepared = torch.zeros(len(images), side, side, 4, dtype=dtype, device=images.device)
    for first in range(0, len(images), PREPARED_AT_ONCE):
        part = slice(first, first + PREPARED_AT_ONCE)
        prepared[part, ..., :3] = loader.prepare(images[part]).permute(0, 2, 3, 1)
    return prepared
