"""The steps of `gpu.py` that measure the speed of training and its memory, on a GPU."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_setting import Notes, Setting, Trainer, available_engines, trainer, wait
from peers import plain_cifar, plain_resnet50
from reslab.data.datasets import Splits
from reslab.models.batchnorm import norms_of
from reslab.models.config import config_named
from reslab.models.layers import channels_last
from reslab.models.resnet import build_resnet
from reslab.runtime.device import Device
from reslab.training.loop import eager_update, training_steps
from reslab.training.optimizer import build_sgd
from reslab.training.schedule import Schedule
from rows import alternate, compare
from training import plain_loop, random_images

AKAMASTER = "akamaster's loop"
WARM_UP = 2  # iterations at the beginning of each turn that are not timed
CLASSES = 1000

Loop = Iterator[Any]  # one training iteration per item


@dataclass
class Turns:
    """The turns of one loop, and the memory that it takes."""

    setting: Setting
    build: Callable[[], Loop]
    block: int  # iterations between two waits for the device
    images: int  # in a mini-batch
    plain: bool = False  # runs as scripts do: TF32, and the fastest of all kernels
    mib: float | None = field(default=None, init=False)
    loop: Loop | None = field(default=None, init=False)

    def __call__(self) -> float:
        """Take a turn and return the images per second; the first one builds the loop."""
        device, sizes = self.setting.device, self.setting.sizes
        torch.backends.cudnn.deterministic = not self.plain
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = self.plain
        if self.loop is None:
            self.loop = self.first(sizes.warm_up)
        for _ in range(min(WARM_UP, sizes.warm_up)):
            next(self.loop)
        wait(device)
        begun, made = time.perf_counter(), 0
        while time.perf_counter() - begun < sizes.turn:
            for _ in range(self.block):
                next(self.loop)
            made += self.block
            wait(device)
        return made * self.images / (time.perf_counter() - begun)

    def first(self, count: int) -> Loop:
        """Build the loop, and measure the peak of its memory over `count` iterations, in MiB."""
        cuda = self.setting.device.type == "cuda"
        before = 0
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        loop = self.build()
        for _ in range(count):
            next(loop)
        if cuda:
            self.mib = (torch.cuda.max_memory_allocated() - before) / 2**20
        return loop


def reslab_loop(built: Trainer) -> Loop:
    """Yield at each iteration of `reslab train`, without its evaluations and log."""
    task = built.task
    run_recipe = task.recipe
    iterations = range(run_recipe.iterations)
    for step in training_steps(built.update, task.draws, Schedule(run_recipe), iterations):
        if step.iteration % run_recipe.log_every == 0:
            step.loss.item()
        yield


def measured(network: str, ours: dict[str, Turns], peer: str, other: Turns, notes: Notes) -> None:
    """Measure all loops in turn, and record each of ours, by its label, beside the peer."""
    speeds = alternate(ours | {peer: other}, other.setting.sizes.measuring)
    for label, turns in ours.items():
        speed = median(speeds[label])
        row = compare(
            network, "images/s", reslab=speeds[label], peer=peer, other=speeds[peer], path=label,
            check="",
        )  # fmt: skip
        notes.add(
            "speed", what=f"{network}, {label}", network=network, engine=label,
            images_per_second=speed, milliseconds=1e3 * turns.images / speed, mib=turns.mib,
            peer=peer, peer_images_per_second=row.other, peer_mib=other.mib, ratio=row.ratio,
            ratio_range=row.ratio_range, rounds=row.rounds,
        )  # fmt: skip


def cifar(depth: int) -> Callable[[Setting, Notes], None]:
    """Return a step that measures a net of Sec. 4.2."""
    return lambda setting, notes: by_engine(setting, depth, setting.sizes.block, notes)


def deep(setting: Setting, notes: Notes) -> None:
    """Measure ResNet-1202."""
    by_engine(setting, setting.sizes.deep, 1, notes)


def by_engine(setting: Setting, depth: int, block: int, notes: Notes) -> None:
    """Measure a net by each engine that is there, in bf16, beside akamaster's loop in fp32."""
    sizes, images = setting.sizes, random_images(setting.sizes.set_size)
    sets = Splits(images, images.take("test", torch.arange(len(images) // 5)))

    def ours(engine: str) -> Loop:
        built = trainer(setting, depth, engine, sets=sets)
        assert isinstance(built, Trainer)
        return reslab_loop(built)

    def plain() -> Loop:
        return plain_loop(plain_cifar(depth), images, False, setting.device, sizes.batch)

    turns = {
        f"{engine}, bf16": Turns(setting, partial(ours, engine), block, sizes.batch)
        for engine in available_engines(setting)
    }
    other = Turns(setting, plain, block, sizes.batch, plain=True)
    measured(f"ResNet-{depth}", turns, AKAMASTER, other, notes)


def photographs(setting: Setting) -> tuple[Tensor, Tensor]:
    """Make a preprocessed random mini-batch on the device: float [B, 3, S, S], and labels."""
    sizes, rng = setting.sizes, torch.Generator().manual_seed(0)
    side = sizes.photograph_side
    images = torch.randn(sizes.photograph_batch, 3, side, side, generator=rng)
    labels = torch.randint(0, CLASSES, (sizes.photograph_batch,), generator=rng)
    images = images.to(setting.device).contiguous(memory_format=torch.channels_last)
    return images, labels.to(setting.device)


def photograph_loop(setting: Setting, batch: tuple[Tensor, Tensor], shares: int) -> Loop:
    """Yield at each iteration of `reslab train imagenet-*` on a mini-batch on the device."""
    device = Device(setting.device, "bf16")
    net = build_resnet(config_named("resnet50"))
    net = channels_last(net.to(setting.device)).train()
    parts = list(zip(batch[0].chunk(shares), batch[1].chunk(shares), strict=True))

    def loss_of(share: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with device.autocast():
            scores = net(share[0]).float()
        return F.cross_entropy(scores, share[1]), scores.new_zeros(())

    optimizer = build_sgd(net, momentum=0.9, weight_decay=1e-4)
    update = eager_update(lambda draws: parts, loss_of, optimizer, norms_of(net))
    while True:
        yield update(0, 0.01)


def plain_photograph_loop(setting: Setting, batch: tuple[Tensor, Tensor]) -> Loop:
    """Yield at each iteration of a plain loop in channels last, with autocast in bf16."""
    net = channels_last(plain_resnet50().to(setting.device)).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    while True:
        with torch.autocast(setting.device.type, torch.bfloat16):
            loss = F.cross_entropy(net(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def resnet50(setting: Setting, notes: Notes) -> None:
    """Measure ResNet-50 on a mini-batch on the device, split as in the paper and whole."""
    sizes, batch = setting.sizes, photographs(setting)
    ours = {
        f"torch, bf16, {shares} virtual GPU{'s' if shares > 1 else ''}": Turns(
            setting, partial(photograph_loop, setting, batch, shares), 1, len(batch[1])
        )
        for shares in (sizes.shares, 1)
    }
    loop = partial(plain_photograph_loop, setting, batch)
    other = Turns(setting, loop, 1, len(batch[1]), plain=True)
    measured(
        f"ResNet-50, batch {len(batch[1])}", ours, "channels last, autocast in bf16", other, notes
    )
