"""The only file of `gpu.py`'s that knows reslab's inner modules."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

import reslab.world
from reslab.data.images import ImageSet, Sets
from reslab.models.batchnorm import norms_of, recompute_statistics
from reslab.models.inference import in_bf16
from reslab.models.names import config_named
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import ResNet, build_resnet, channels_last
from reslab.models.weights import Model
from reslab.recipes import recipe
from reslab.train.classification import parts_of
from reslab.train.loop import training_steps
from reslab.train.optim import build_sgd
from reslab.train.prepare import prepared
from reslab.train.schedule import Schedule
from reslab.world import open_world
from reslab.world.processes import Group

LOGGED = 10  # iterations between two reads of the loss, as in a run
SIDE, CLASSES = 224, 1000


def network(name: str) -> ResNet:
    """A named network, channels first, on the CPU."""
    return build_resnet(config_named(name))


def random_set(count: int) -> ImageSet:
    """Pictures of CIFAR's size; speed does not depend on what they show."""
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 10, (count,), generator=rng)
    return ImageSet("train", pictures, labels, tuple("0123456789"))


def cifar_loop(name: str, precision: str, images: ImageSet, shares: int = 2) -> Iterator[None]:
    """The update behind `reslab train`, one iteration at a time, augmentation and all."""
    changes = [f"precision={precision}", f"virtual_gpus={shares}", "warmup=null"]
    it = recipe(f"cifar10-{name}").with_changes([*changes, "learning_rate=0.01"])
    parts = parts_of(prepared(it, 1, Sets(images, images), open_world(it.precision)))
    steps = training_steps(
        parts.loss_of, parts.shares_of, parts.optimizer, Schedule(it), range(it.iterations),
        norms=norms_of(parts.net),
    )  # fmt: skip
    for step in steps:
        if step.iteration % LOGGED == 0:
            step.loss.item()
        yield


def photographs(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bytes [count, 3, 224, 224] and labels on a device."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, CLASSES, (count,), generator=rng)
    return images.to(device), labels.to(device)


def photograph_loop(
    name: str, precision: str, batch: tuple[Tensor, Tensor], shares: int
) -> Iterator[None]:
    """The update behind `reslab train imagenet-*` on a mini-batch that is there."""
    it = recipe(f"imagenet-{name}").with_changes(
        [f"precision={precision}", f"virtual_gpus={shares}", "learning_rate=0.01", "plateau=null",
         f"batch_size={len(batch[1])}"]
    )  # fmt: skip
    world = open_world(it.precision)
    net = channels_last(network(name).to(world.device)).train()
    images = minus_mean(torch.full((3, 1, 1), 120.0)).to(world.device)(batch[0]) / 60
    dealt = list(zip(images.chunk(shares), batch[1].chunk(shares), strict=True))

    def loss_of(share: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with world.autocast():
            scores = net(share[0]).float()
        return F.cross_entropy(scores, share[1]), scores.new_zeros(())

    optimizer = build_sgd(net, momentum=it.momentum, weight_decay=it.weight_decay)
    steps = training_steps(
        loss_of, lambda k: dealt, optimizer, Schedule(it), range(it.iterations),
        norms=norms_of(net),
    )  # fmt: skip
    for step in steps:
        if step.iteration % LOGGED == 0:
            step.loss.item()
        yield


def inference_model(name: str, precision: str, device: torch.device) -> Model:
    """What `reslab predict` and `evaluate` show pictures to."""
    open_world("fp32")
    net = channels_last(network(name).to(device)).eval().requires_grad_(False)
    preprocessing = minus_mean(torch.full((3, 1, 1), 120.0)).to(device)
    model = Model(net, tuple(map(str, range(net.config.classes))), preprocessing, {}, [])
    return in_bf16(model) if precision == "bf16" else model


def devices_apart(run: Path) -> dict[str, Any]:
    """How far the answers of one model are apart on CPU and GPU; the largest differences of its
    log-probabilities in fp32 and bf16, and of recomputed statistics, relative."""
    world = open_world("fp32")
    model = reslab.load(run).model
    images = random_set(256).images[:, :, ::2, ::2].contiguous()
    own = copy.deepcopy(model.net)
    exact = model(images).log_softmax(1)
    there = Model(copy.deepcopy(model.net), model.classes, model.preprocessing, {}, [])
    there = there.to(world.device)
    moved = images.to(world.device)
    fast = in_bf16(there)(moved).log_softmax(1).cpu()
    facts = {
        "fp32": (there(moved).log_softmax(1).cpu() - exact).abs().max().item(),
        "bf16": (fast - exact).abs().max().item(),
        "bf16_same_answer": (fast.argmax(1) == exact.argmax(1)).float().mean().item(),
    }
    for net, given in ((own, images), (there.net, moved)):
        batches = model.preprocessing.to(given.device)(given).split(64)
        recompute_statistics(net, (net(batch) for batch in batches))
    apart = [
        ((a.cpu() - b).abs().max() / b.abs().max()).item()
        for a, b in zip(there.net.buffers(), own.buffers(), strict=True)
        if b.is_floating_point()
    ]
    return facts | {"statistics": max(apart)}


def grouped() -> None:
    """From here on this process is one of several, of which there is one: gradients, statistics
    and scores go through the collectives."""
    group = Group(dist.HashStore(), 0, 1, 60.0)
    reslab.world.join_processes = lambda: group  # pyrefly: ignore[bad-assignment]
