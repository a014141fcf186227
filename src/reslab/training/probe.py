"""Estimate what a run will cost on this machine from twenty of its iterations."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from reslab.data.loader import EncodedLoader
from reslab.training.loop import Update, eager_update_of, training_steps
from reslab.training.recipe import Recipe
from reslab.training.schedule import Schedule
from reslab.training.task import Task
from reslab.training.train import Job, begin_classification

WARM_UP = 3  # untimed iterations: memory is allocated, kernels are chosen
READ = 200  # image files read to time the disk
EVALUATED_IMAGES = 64
Limit = Literal["network", "decoding", "disk"]


@dataclass(frozen=True)
class ProbeTarget:
    """The parts of a planned run that determine its cost."""

    task: Task
    images: int  # in the training set
    batches: int  # mini-batches in the whole run, including those after the last update
    evaluated: int  # images evaluated in the whole run
    evaluate: Callable[[], int]  # evaluates some images and returns their number
    read: Callable[[int], int] | None  # reads at most n files; None: images in memory

    def close(self) -> None:
        self.task.close()


@dataclass(frozen=True)
class Probe:
    """Measured speeds in images per second, memory in bytes."""

    together: float  # actual training: images are prepared while the network trains
    network: float  # on a mini-batch that is already prepared
    images: float | None  # preparing mini-batches only; None: images in memory
    reading: float | None  # reading files from disk, one after another
    evaluating: float
    memory: int  # peak use by the process, or on the GPU
    limit: Limit

    def seconds(self, run: ProbeTarget) -> float:
        """Estimate the seconds of the whole run: updates, recomputed statistics, evaluations."""
        trained = run.batches * run.task.recipe.batch_size
        return trained / self.together + run.evaluated / self.evaluating


def classifier_target(job: Job[Recipe]) -> ProbeTarget:
    """Set up a new run without writing anything, and return its numbers of images and batches."""
    task = begin_classification(job)
    recipe, watched_set = task.recipe, task.watched[0]
    evaluations = (recipe.iterations - 1) // recipe.eval_every
    watched, final = (sum(map(len, sets)) for sets in (task.watched, task.final))

    def evaluate() -> int:
        task.net.eval()
        some = watched_set.take("some", torch.arange(min(len(watched_set), EVALUATED_IMAGES)))
        task.evaluate_set(some)
        task.train_mode()
        return len(some)

    train = task.loader.train if isinstance(task.loader, EncodedLoader) else None
    return ProbeTarget(
        task,
        images=task.count,
        batches=recipe.iterations + task.recomputed,
        evaluated=evaluations * watched + final,
        evaluate=evaluate,
        read=partial(read_last, train.files, train.read) if train else None,
    )


def read_last(files: Sequence[str], read: Callable[[str], bytes], most: int) -> int:
    """Read at most `most` files and return how many.

    They are taken from the end of the set, which training has hardly touched: files read a moment
    ago would come from the page cache.
    """
    for file in files[-most:]:
        read(file)
    return min(most, len(files))


def probe(
    run: ProbeTarget, iterations: int = 20, clock: Callable[[], float] = time.perf_counter
) -> Probe:
    """Train for some iterations and measure speed and memory; discard the network afterwards."""
    task = run.task
    size = task.recipe.batch_size

    def speed(update: Update, count: int) -> float:
        """Return images per second over `count` updates."""
        iterations = range(WARM_UP + count)
        begun = 0.0
        for step in training_steps(update, task.draws, Schedule(task.recipe), iterations):
            if step.iteration == WARM_UP:
                step.loss.item()  # waits for the device
                begun = clock()
        step.loss.item()
        return count * size / (clock() - begun)

    def rate(work: Callable[[], int]) -> float:
        begun = clock()
        return work() / (clock() - begun)

    def prepare() -> int:
        for iteration in range(WARM_UP, WARM_UP + iterations):
            task.prepare(task.draws(iteration))
        return iterations * size

    together = speed(eager_update_of(task), iterations)
    same = task.prepare(task.draws(0))
    network = speed(eager_update_of(task, lambda draws: same), max(iterations // 4, 1))
    images = reading = None
    if run.read is not None:
        for iteration in range(WARM_UP):  # use up the mini-batches that were prepared ahead
            task.prepare(task.draws(iteration))
        images = rate(prepare)
        reading = rate(partial(run.read, READ))
    return Probe(
        together, network, images, reading,
        evaluating=rate(run.evaluate),
        memory=peak_memory(task.device.torch_device),
        limit=limit_of(network, images, reading),
    )  # fmt: skip


def peak_memory(device: torch.device) -> int:
    """Return the peak memory use so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def limit_of(network: float, images: float | None, reading: float | None) -> Limit:
    """Return the bottleneck: the disk if reading takes over half the time to prepare an image."""
    if images is None or reading is None or network <= images:
        return "network"
    return "disk" if reading < 2 * images else "decoding"
