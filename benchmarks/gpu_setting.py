"""Sizes, records, images and updates for the steps of `gpu.py`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.datasets import ImagesInMemory, MemorySplits, Splits
from reslab.recipes import recipe
from reslab.runtime.device import Device
from reslab.training.classification import ClassificationTask
from reslab.training.engine import new_engine, update_of
from reslab.training.loop import Update
from reslab.training.recipe import Recipe
from reslab.training.setup import setup_classification

# names of engines in a recipe, slowest first; the last one available here trains Table 6
ENGINES = ("torch", "graph")
CLASSES, SIDE = 10, 32
RATE = 0.01  # learning rate of the compared updates
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sizes:
    """The sizes of all steps: those for a GPU, or those of a rehearsal."""

    batch: int = 128
    compared: tuple[int, ...] = (20, 110)  # depths of the nets whose updates are compared
    updates: int = 20  # of each of them
    iterations: int = 60  # of the runs that are repeated and interrupted
    train: int = 2048  # images of these runs
    test: int = 512
    deep: int = 1202
    photograph_batch: int = 256
    photograph_side: int = 224
    shares: int = 8  # virtual GPUs of a mini-batch of photographs
    scene: int = 400  # side of the detector's images, in pixels
    detector: tuple[str, ...] = ()  # changes of its recipe
    set_size: int = 50_000  # images of CIFAR's size whose training is timed
    block: int = 10  # iterations between two reads of the loss, as in a run
    warm_up: int = 6  # iterations before the first turn; more than a graph's capture needs
    turn: float = 0.4  # seconds of a measurement
    measuring: float = 5.0  # seconds after which no further round of turns begins
    recipe: tuple[str, ...] = ()  # changes of the paper's recipes


REHEARSAL = Sizes(
    batch=8, compared=(20,), updates=2, iterations=4, train=32, test=16, deep=32,
    photograph_batch=4, photograph_side=32, shares=2, scene=64,
    detector=("sampling.regions=8", "sampling.proposals=50", "model.width=32"),
    set_size=32, block=1, warm_up=1, turn=0.01, measuring=0.01,
    recipe=("iterations=4", "batch_size=8", "eval_every=2", "recompute_bn=1", "log_every=1"),
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """The device, the folders, the sizes and the end of all steps."""

    out: Path
    data: Path | None  # CIFAR-10
    end: float  # as time.time(); everything must be saved by then
    sizes: Sizes
    device: torch.device


@dataclass(frozen=True)
class Notes:
    """The records of a step, each of which is printed at once as a line of JSON."""

    step: str

    def add(self, kind: str, **facts: Any) -> None:
        print(json.dumps({"step": self.step, "kind": kind, **facts}), flush=True)

    def fact(self, what: str, value: object) -> None:
        self.add("fact", what=what, value=value)

    def log(self, text: str) -> None:
        """Print a line of reslab's to the worker's log."""
        print(text, file=sys.stderr, flush=True)

    def check(self, what: str, passed: bool, value: object) -> None:
        """Record the result of a check, with the value that decided it."""
        self.add("check", what=what, passed=passed, value=value)

    def within(self, what: str, value: float, bound: float) -> None:
        """Check that a value is at most `bound`."""
        self.check(what, value <= bound, f"{value:.1e}, at most {bound:.0e}")


@dataclass(frozen=True)
class Trainer:
    """A task and its update by one engine."""

    task: ClassificationTask
    update: Update
    said: list[str]  # notes of the update, such as why a graph could not be captured


def pattern_set(name: str, count: int) -> ImagesInMemory:
    """Make images that can be learned, uint8 [count, 3, 32, 32]: a pattern per class, in noise."""
    rng = torch.Generator().manual_seed(1)
    patterns = F.interpolate(torch.rand(CLASSES, 3, 4, 4, generator=rng), scale_factor=SIDE // 4)
    rng = torch.Generator().manual_seed(len(name))
    labels = torch.arange(count) % CLASSES
    noise = torch.rand(count, 3, SIDE, SIDE, generator=rng)
    images = (255 * (0.3 * patterns[labels] + 0.7 * noise)).to(torch.uint8)
    return ImagesInMemory(name, images, labels, tuple("0123456789"))


def pattern_sets(sizes: Sizes) -> MemorySplits:
    return Splits(pattern_set("train", sizes.train), pattern_set("test", sizes.test))


def cifar_recipe(depth: int, engine: str, *changes: str) -> Recipe:
    """Return the recipe of a net for CIFAR-10, with an engine and other changes."""
    return recipe(f"cifar10-resnet{depth}").with_changes([f"engine={engine}", *changes])


def trainer(
    setting: Setting, depth: int, engine: str, precision: Literal["bf16", "fp32"] = "bf16", *,
    sets: MemorySplits | None = None, place: torch.device | None = None,
) -> Trainer | str:  # fmt: skip
    """Build a net's task and its update by an engine, or return why it is not available."""
    changes = (f"precision={precision}", f"batch_size={setting.sizes.batch}", "warmup=null")
    run_recipe = cifar_recipe(depth, engine, *changes, f"learning_rate={RATE}")
    device = Device(place or setting.device, precision)
    task = setup_classification(run_recipe, 1, sets or pattern_sets(setting.sizes), device)
    chosen = new_engine(task, None, lambda line: None)
    if chosen.name != engine:
        return chosen.reason
    said: list[str] = []
    return Trainer(task, update_of(task, chosen, None, said.append), said)


def available_engines(setting: Setting) -> list[str]:
    """Return the engines that can train CIFAR-10's nets in bf16 here."""
    return [name for name in ENGINES if isinstance(trainer(setting, 20, name), Trainer)]


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def distance(one: Tensor, other: Tensor) -> float:
    """Return the distance between two vectors, relative to the length of the second."""
    return ((one - other).norm() / other.norm()).item()
