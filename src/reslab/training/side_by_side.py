"""Train several shares of a mini-batch at the same time on a CPU, each on threads of its own.

The layers of a small network are too short to divide one of them among threads: all threads would
wait for the slowest after every layer. Here a thread computes whole shares, with a copy of the
network that shares its weights but has gradients and batch-norm statistics of its own.
A share is the part of a mini-batch for one virtual GPU. Gradients are added in the order of the
shares, so the bits depend on the number of threads per share, but not on how many shares run at a
time.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import gcd
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, nn

from reslab.data.loader import InMemoryLoader
from reslab.models.batchnorm import NormStatistics, trained_norms
from reslab.models.complexity import convolutions
from reslab.models.resnet import ResNet
from reslab.training.classification import ClassificationTask
from reslab.training.loop import (
    Observer,
    Passes,
    Prepare,
    Update,
    at_rate,
    backward,
    eager_update_of,
    step_with,
)

MOST_VALUES = 2**29  # activations of all shares that are trained at a time: 2 GiB in fp32
MAPS = 2  # kept for the backward pass per convolution: its output, and the next one's input
# Return a faster version of a network for training, which computes with the network's own layers.
Fuse = Callable[[nn.Module], nn.Module]


def threads_per_share(task: ClassificationTask, threads: int) -> int:
    """Return how many of a process's `threads` train one share, by a rule, not by measurement.

    As many shares are trained side by side as divide both the shares and the threads evenly and
    keep at most MOST_VALUES activations; they divide the threads equally. On a GPU, or if the
    network is the user's own, all threads train one share after the other.
    """
    on_cpu = task.device.torch_device.type == "cpu"
    if not on_cpu or task.recipe.deviations.net is not None or not isinstance(task.net, ResNet):
        return threads
    shares = task.recipe.virtual_gpus
    values = values_kept(task.net, side_of(task)) * (task.recipe.batch_size // shares)
    most = gcd(shares // task.device.processes.count, threads)
    fit = [count for count in range(1, most + 1) if most % count == 0]
    return threads // max(count for count in fit if count == 1 or count * values <= MOST_VALUES)


def side_of(task: ClassificationTask) -> int:
    """Return the longer side of the training images as the network sees them, in pixels."""
    if isinstance(task.loader, InMemoryLoader):
        return max(task.loader.images.shape[-2:])
    return task.loader.augmentation.size


def values_kept(net: ResNet, side: int) -> int:
    """Return the number of activations kept for the backward pass of one image."""
    return MAPS * sum(layer.c_out * layer.side**2 for layer in convolutions(net.config, side))


@dataclass(frozen=True)
class Copy:
    """A network's copy for one thread at a time, with what it needs to compute a share."""

    loss: Callable[[Any], tuple[Tensor, Tensor]]
    weights: list[nn.Parameter]  # in the optimizer's order; they share their memory with the net's
    statistics: NormStatistics

    def train(self, share: Any, count: int) -> tuple[list[Tensor | None], Tensor]:
        """Return the gradients of one of `count` shares, and its row of the table."""
        row = backward(self.loss, share, count, self.statistics)
        gradients = [weight.grad for weight in self.weights]
        for weight in self.weights:
            weight.grad = None
        return gradients, row


def copy_of(task: ClassificationTask, fuse: Fuse) -> Copy:
    """Copy the task's network for the training of single shares."""
    twins = {
        id(weight): nn.Parameter(weight.detach(), weight.requires_grad)
        for weight in task.net.parameters()
    }
    net = copy.deepcopy(task.net, twins)  # pyrefly: ignore[bad-argument-type]
    weights = [twins[id(weight)] for weight in task.optimizer.parameters]
    statistics = NormStatistics(trained_norms(net), weights[0].device)
    for norm in statistics.norms:
        norm.momentum = 1.0  # every forward pass stores its own statistics
    return Copy(replace(task, net=fuse(net)).loss, weights, statistics)


def update_of(
    task: ClassificationTask,
    threads: int,
    observer: Observer | None = None,
    prepare: Prepare | None = None,
    fuse: Fuse = lambda net: net,
) -> Update:
    """Return the update that trains every share on `threads` of this process's threads.

    With an observer, which may look into the network, the shares use the network itself, one after
    the other, with the same bits. `prepare` may replace the task's, and `fuse` the network in its
    passes.
    """
    count = min(
        torch.get_num_threads() // threads,
        task.recipe.virtual_gpus // task.device.processes.count,
    )
    if observer is not None or count <= 1:
        fused = replace(task, net=fuse(task.net))
        return with_threads(threads, eager_update_of(fused, prepare, observer))
    statistics = NormStatistics(trained_norms(task.net), task.device.torch_device)
    step = step_with(
        passes_by([copy_of(task, fuse) for _ in range(count)], threads, task, statistics),
        prepare or task.prepare,
        task.optimizer,
        statistics,
        task.device.processes,
    )
    # one thread here: after parallel work, torch's idle threads spin, on cores the shares need
    return with_threads(1, at_rate(step, task.optimizer.set_rate))


def passes_by(
    copies: Sequence[Copy], threads: int, task: ClassificationTask, statistics: NormStatistics
) -> Passes:
    """Return passes in which each copy trains one share at a time, on `threads` threads."""
    weights = task.optimizer.parameters
    free: SimpleQueue[Copy] = SimpleQueue()
    for each in copies:
        free.put(each)
    torch.get_num_threads()  # settles the main thread's number before the others set theirs
    pool = ThreadPoolExecutor(len(copies), "reslab-shares", set_up_thread, (threads,))

    def train(share: Any, count: int) -> tuple[list[Tensor | None], Tensor]:
        taken = free.get_nowait()  # there are as many copies as threads
        try:
            return taken.train(share, count)
        finally:
            free.put(taken)

    def passes(shares: Sequence[Any], count: int) -> Iterator[Tensor]:
        futures = [pool.submit(train, share, count) for share in shares]
        try:
            for future in futures:
                gradients, row = future.result()
                add_to(weights, gradients)
                yield row
        finally:  # after an error, no further share is begun
            for future in futures:
                future.cancel()
        statistics.count(len(shares))  # the copies made these passes

    return passes


def set_up_thread(threads: int) -> None:
    """Set this thread's switches: `setup_device` set them for the main thread alone."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


@torch.no_grad()
def add_to(weights: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Add a share's gradients to `.grad`."""
    sums, added = [], []
    for weight, gradient in zip(weights, gradients, strict=True):
        if weight.grad is None:
            weight.grad = gradient
        elif gradient is not None:
            sums.append(weight.grad)
            added.append(gradient)
    if added:
        torch._foreach_add_(sums, added)  # one call, since Python holds up the threads that train


def with_threads(threads: int, update: Update) -> Update:
    """Return an update that runs on `threads` threads."""

    def limited(draws: Any, learning_rate: float) -> Tensor:
        with thread_limit(threads):
            return update(draws, learning_rate)

    return limited


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Return a context in which torch uses `threads` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
