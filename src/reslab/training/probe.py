"""What a run will cost on this machine, from twenty of its iterations."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from reslab.data.loader import EncodedLoader
from reslab.models.batchnorm import norms_of
from reslab.runtime.device import Device
from reslab.training.classification import ClassificationTask, parts_of
from reslab.training.loop import updates
from reslab.training.recipe import RunRecipe
from reslab.training.run import Task
from reslab.training.schedule import Schedule

WARM_UP = 3  # iterations that are not counted: memory is fetched, kernels are chosen
READ = 200  # images whose bytes are read to time the disk
EVALUATED_IMAGES = 64
Limit = Literal["network", "decoding", "disk"]


@dataclass(frozen=True)
class ProbeTarget:
    """A run that is not made yet, as far as its cost is concerned."""

    recipe: RunRecipe
    device: Device
    parts: Task
    images: int  # in the training set
    batches: int  # mini-batches shown in the whole run, those after the last update included
    evaluated: int  # images that are evaluated in the whole run
    evaluate: Callable[[], int]  # evaluates some images; how many
    read: Callable[[int], int] | None  # reads the files of so many at most; None: set in memory


@dataclass(frozen=True)
class Probe:
    """Speeds in images a second, memory in bytes."""

    together: float  # training as it will be: images are prepared while the network learns
    network: float  # on a mini-batch that is there
    images: float | None  # mini-batches prepared and nothing else; None: a set in memory
    reading: float | None  # bytes from the disk, one image after the other
    evaluating: float
    memory: int  # at most in use by the process, or on the GPU
    limit: Limit

    def seconds(self, run: ProbeTarget) -> float:
        """Of the whole run: updates, recomputed statistics, evaluations."""
        trained = run.batches * run.recipe.batch_size
        return trained / self.together + run.evaluated / self.evaluating


def classification_probed(it: ClassificationTask) -> ProbeTarget:
    """What a run of a classifier will show, and how."""
    recipe = it.recipe
    looks = (recipe.iterations - 1) // recipe.eval_every
    watched, final = (sum(map(len, sets)) for sets in (it.watched, it.final))
    more = recipe.recompute_bn if recipe.batch_norm == "train" else 0

    def evaluate() -> int:
        it.net.eval()
        some = it.watched[0].take("some", torch.arange(min(len(it.watched[0]), EVALUATED_IMAGES)))
        it.evaluate_set(some)
        it.train_mode()
        return len(some)

    train = it.batches.train if isinstance(it.batches, EncodedLoader) else None
    return ProbeTarget(
        recipe, it.device, parts_of(it), it.count,
        batches=recipe.iterations + more,
        evaluated=looks * watched + final,
        evaluate=evaluate,
        read=(lambda most: read_last(train.files, train.read, most)) if train else None,
    )  # fmt: skip


def read_last(files: Sequence[str], read: Callable[[str], bytes], most: int) -> int:
    """Read bytes from where they lie; how many files. Those read a moment ago would come from
    memory: files from the end of the set are taken, which training has hardly touched."""
    chosen = files[-most:]
    for file in chosen:
        read(file)
    return len(chosen)


def probe(
    run: ProbeTarget, iterations: int = 20, clock: Callable[[], float] = time.perf_counter
) -> Probe:
    """Train for some iterations; the run's network is spent afterwards."""
    parts = run.parts
    size = run.recipe.batch_size

    def speed(shares_of: Callable[[int], Sequence[Any]], count: int) -> float:
        steps = updates(
            parts.loss_of, shares_of, parts.optimizer, Schedule(run.recipe), range(WARM_UP + count),
            norms=[norm for norm in norms_of(parts.net) if norm.training],
        )  # fmt: skip
        begun = 0.0
        for step in steps:
            if step.iteration == WARM_UP:
                step.loss.item()  # all of it is done, on a GPU too
                begun = clock()
        step.loss.item()
        return count * size / (clock() - begun)

    def rate(work: Callable[[], int]) -> float:
        begun = clock()
        return work() / (clock() - begun)

    def prepare() -> int:
        for k in range(WARM_UP, WARM_UP + iterations):
            parts.shares_of(k)
        return iterations * size

    together = speed(parts.shares_of, iterations)
    same = parts.shares_of(0)
    network = speed(lambda k: same, max(iterations // 4, 1))
    images = reading = None
    if run.read is not None:
        for k in range(WARM_UP):  # what was prepared ahead is used up
            parts.shares_of(k)
        images = rate(prepare)
        reading = rate(partial(run.read, READ))
    return Probe(
        together, network, images, reading,
        evaluating=rate(run.evaluate),
        memory=peak_memory(run.device.torch_device),
        limit=limit_of(network, images, reading),
    )  # fmt: skip


def peak_memory(device: torch.device) -> int:
    """At most in use so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def limit_of(network: float, images: float | None, reading: float | None) -> Limit:
    """What is slowest. A disk is to blame where reading takes half of the time of an image."""
    if images is None or reading is None or network <= images:
        return "network"
    return "disk" if reading < 2 * images else "decoding"
