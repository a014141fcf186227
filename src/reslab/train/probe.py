"""What a run will cost on this machine, from twenty of its iterations."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from reslab.data.picture_batches import PictureBatches
from reslab.data.pictures import PictureSet
from reslab.train.classification import Classification, parts_of
from reslab.train.loop import training_steps
from reslab.train.schedule import Schedule

WARM_UP = 3  # iterations that are not counted: memory is fetched, kernels are chosen
READ = 200  # pictures whose bytes are read to time the disk
EVALUATED = 64
Limit = Literal["network", "decoding", "disk"]


@dataclass(frozen=True)
class Probe:
    """Speeds in pictures a second, memory in bytes."""

    together: float  # training as it will be: pictures are prepared while the network learns
    network: float  # on a mini-batch that is there
    pictures: float | None  # mini-batches prepared and nothing else; None: a set in memory
    reading: float | None  # bytes from the disk, one picture after the other
    evaluating: float
    memory: int  # at most in use by the process, or on the GPU
    limit: Limit

    def seconds(self, it: Classification) -> float:
        """Of the whole run: updates, recomputed statistics, evaluations."""
        recipe = it.recipe
        batches = recipe.iterations + (recipe.recompute_bn if recipe.batch_norm == "train" else 0)
        looks = (recipe.iterations - 1) // recipe.eval_every
        watched, final = (sum(map(len, sets)) for sets in (it.watched, it.final))
        shown = looks * watched + final
        return batches * recipe.batch_size / self.together + shown / self.evaluating


def probe(
    it: Classification, iterations: int = 20, clock: Callable[[], float] = time.perf_counter
) -> Probe:
    """Train `it` for some iterations; its network is spent afterwards."""
    parts = parts_of(it)
    size = it.recipe.batch_size

    def speed(shares_of: Callable[[int], list], count: int) -> float:
        steps = training_steps(
            parts.loss_of, shares_of, parts.optimizer, Schedule(it.recipe), range(WARM_UP + count)
        )
        begun = 0.0
        for step in steps:
            if step.iteration == WARM_UP:
                step.loss.item()  # all of it is done, on a GPU too
                begun = clock()
        step.loss.item()
        return count * size / (clock() - begun)

    together = speed(it.shares_of, iterations)
    same = it.shares_of(0)
    network = speed(lambda k: same, max(iterations // 4, 1))
    pictures = reading = None
    if isinstance(it.batches, PictureBatches):
        pictures = preparing(it, iterations, clock)
        reading = read_speed(it.batches.train, clock)
    return Probe(
        together, network, pictures, reading,
        evaluating=evaluation_speed(it, clock),
        memory=peak_memory(it.world.device),
        limit=limit_of(network, pictures, reading),
    )  # fmt: skip


def preparing(it: Classification, iterations: int, clock: Callable[[], float]) -> float:
    """Mini-batches made and not used."""
    begun = 0.0
    for k in range(WARM_UP + iterations):
        if k == WARM_UP:
            begun = clock()
        it.shares_of(k)
    return iterations * it.recipe.batch_size / (clock() - begun)


def read_speed(train: PictureSet, clock: Callable[[], float]) -> float:
    """Bytes of pictures from where they lie. Those read a moment ago come from memory: pictures
    from the end of the set are taken, which training has hardly touched."""
    count = min(READ, len(train))
    begun = clock()
    for file in train.files[-count:]:
        train.read(file)
    return count / (clock() - begun)


def evaluation_speed(it: Classification, clock: Callable[[], float]) -> float:
    """One range of the set that is evaluated on the way."""
    it.net.eval()
    watched = it.watched[0]
    some = watched.take(watched.name, torch.arange(min(len(watched), EVALUATED)))
    begun = clock()
    it.judge(some)
    seconds = clock() - begun
    it.train_mode()
    return len(some) / seconds


def peak_memory(device: torch.device) -> int:
    """At most in use so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def limit_of(network: float, pictures: float | None, reading: float | None) -> Limit:
    """What is slowest. A disk is to blame where reading takes half of the time of a picture."""
    if pictures is None or reading is None or network <= pictures:
        return "network"
    return "disk" if reading < 2 * pictures else "decoding"
