"""Estimate what a run will cost on this machine from a few seconds of its work."""

import itertools
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from reslab.data.loader import EncodedLoader
from reslab.runtime.events import Log
from reslab.training.engine import Engine, new_engine, update_of
from reslab.training.loop import Prepare, training_steps
from reslab.training.recipe import Recipe
from reslab.training.replay import EAGER_UPDATES
from reslab.training.schedule import Schedule
from reslab.training.task import Task
from reslab.training.train import Job, begin_classification

REPLAYED = EAGER_UPDATES + 1  # updates after which a captured one is replayed
WARM_UP = 3  # untimed iterations: memory is allocated, kernels are chosen
FILES = 200  # most image files read to time the disk
FEWEST, MOST = 8, 256  # images to time the evaluation
# seconds for each measurement: 16 together, since the last iteration of each may end later
TRAINING, NETWORK, PREPARING, READING, EVALUATING = 7.0, 3.0, 3.0, 1.0, 2.0
Limit = Literal["network", "decoding", "disk"]
Clock = Callable[[], float]


@dataclass(frozen=True)
class ProbeTarget:
    """The parts of a planned run that determine its cost."""

    task: Task
    images: int  # in the training set
    batches: int  # mini-batches in the whole run, including those after the last update
    evaluated: int  # images evaluated in the whole run
    evaluate: Callable[[int], int]  # evaluates at most n images and returns their number
    # reads one file per step, from the end of the set, which training has hardly touched: files
    # read a moment ago would come from the page cache; None: images in memory
    reads: Iterator[bytes] | None

    def close(self) -> None:
        self.task.close()


@dataclass(frozen=True)
class Probe:
    """Measured speeds in images per second, memory in bytes."""

    together: float  # actual training: images are prepared while the network trains
    # on a mini-batch that is already prepared; if that takes too long to measure, during training,
    # without the time spent waiting for images
    network: float
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

    def evaluate(most: int) -> int:
        task.net.eval()
        count = min(len(watched_set), MOST, most)
        task.evaluate_set(watched_set.take("some", torch.arange(count)))
        task.train_mode()
        return count

    train = task.loader.train if isinstance(task.loader, EncodedLoader) else None
    return ProbeTarget(
        task,
        images=task.count,
        batches=recipe.iterations + task.recomputed,
        evaluated=evaluations * watched + final,
        evaluate=evaluate,
        reads=map(train.read, train.files[-FILES:]) if train else None,
    )


def probe(
    run: ProbeTarget,
    iterations: int = 20,
    log: Log = lambda text: None,
    clock: Clock = time.perf_counter,
) -> Probe:
    """Train for some seconds, at most `iterations`, and measure speed and memory.

    Every part is measured at least once, however long it takes; `log` receives a line for each.
    On a GPU, PyTorch's updates are eager, so the estimate is too long for those that are replayed
    from a CUDA graph. The network is of no use afterwards.
    """
    task = run.task
    size = task.recipe.batch_size
    engine = new_engine(task, None, log)
    log(engine.line)
    log(f"measuring training, for up to {TRAINING:g} s")
    with engine.memory():
        trained = measure_updates(task, engine, task.prepare, iterations, TRAINING, clock)
    if not trained.whole:
        used = engine.shares_at_a_time
        shares = (
            f"the shares of {used} virtual GPUs" if used > 1 else "the share of one virtual GPU"
        )
        log(f"one iteration takes about {trained.seconds:.0f} s: measured on {shares}")
    network = trained.busy
    if trained.busy < NETWORK / 2 and not engine.prepares:
        log(f"measuring the network alone, for up to {NETWORK:g} s")
        same = task.prepare(task.draws(0))
        few = max(iterations // 4, 1)
        with engine.memory():
            network = measure_updates(task, engine, lambda draws: same, few, NETWORK, clock).busy
    images = reading = None
    if run.reads is not None:
        log(f"measuring the preparation of images, for up to {PREPARING:g} s")
        batches = (task.prepare(task.draws(iteration)) for iteration in itertools.count())
        images = size * rate(batches, iterations, PREPARING, clock, WARM_UP)
        log(f"measuring the disk, for up to {READING:g} s")
        reading = rate(run.reads, FILES, READING, clock)
    together = size / trained.seconds
    log(f"measuring the evaluation, for up to {EVALUATING:g} s")
    begun = clock()
    evaluated = run.evaluate(max(int(EVALUATING * together), FEWEST))  # faster than training
    return Probe(
        together, size / network, images, reading,
        evaluating=evaluated / (clock() - begun),
        memory=peak_memory(task.device.torch_device),
        limit=limit_of(size / network, images, reading),
    )  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """The seconds that one iteration takes."""

    busy: float  # training
    waiting: float  # for images
    whole: bool  # whether whole iterations were measured, or only some shares of each

    @property
    def seconds(self) -> float:
        return self.busy + self.waiting


def measure_updates(
    task: Task, engine: Engine, prepare: Prepare, most: int, seconds: float, clock: Clock
) -> Pace:
    """Time at most `most` iterations, for about `seconds`, after a warm-up if there is time for it.

    If iterations are slow, only the first shares of each are trained, as many as the engine trains
    at a time, and the time is scaled up. An engine that prepares its own mini-batches is timed as
    it trains, after it has compiled its kernels and captured its update.
    """
    waits: list[float] = []
    shares, used = 1, engine.shares_at_a_time

    def prepare_some(draws: Any) -> Sequence[Any]:
        nonlocal shares
        begun = clock()
        prepared = prepare(draws)
        waits.append(clock() - begun)
        shares = len(prepared)
        return prepared[:used]

    own = None if engine.prepares else prepare_some
    update = update_of(task, engine, None, lambda text: None, own)
    steps = training_steps(update, task.draws, Schedule(task.recipe), itertools.count())
    if engine.prepares:
        for _ in range(REPLAYED):
            next(steps)

    def measure(count: int) -> Pace:
        waits.clear()
        begun = clock()
        *_, last = itertools.islice(steps, count)
        last.loss.item()  # waits for the device
        waiting = sum(waits)
        busy = (clock() - begun - waiting) * shares / used
        return Pace(busy / count, waiting / count, used == shares)

    end = clock() + seconds
    pace = measure(1)
    if pace.whole or pace.seconds * (WARM_UP + 1) < seconds:
        used = shares

    def left() -> int:
        """Return how many more updates fit into the time."""
        return int((end - clock()) / (pace.busy * used / shares + pace.waiting))

    for _ in range(WARM_UP - 1):
        if left() < 1:
            return pace
        pace = measure(1)
    return measure(min(left(), most)) if left() >= 1 else pace


def rate(
    work: Iterator[object], most: int, seconds: float, clock: Clock, warm_up: int = 0
) -> float:
    """Return the steps of `work` per second, at most `most`, for about `seconds`, at least one.

    The first `warm_up` steps are not counted, unless they take all the time.
    """
    begun = clock()
    end = begun + seconds
    done = 0
    for number, _ in enumerate(work):
        if number < warm_up and clock() < end:
            begun = clock()
            continue
        done += 1
        if done == most or clock() >= end:
            break
    return max(done, 1) / (clock() - begun)


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
