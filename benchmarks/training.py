"""Compare the training speed of reslab and of the loops that people write, on CIFAR-10's nets.

All train the same network, each from weights of its own, on the same images with the same recipe:
batches of 128, crop and flip, SGD with momentum, the loss read at each iteration. That the networks
are equal is checked on one batch, with the same weights. The first loop is that of
akamaster's pytorch_resnet_cifar10 without its calls of CUDA: a Dataset of PIL images under
DataLoader, eager fp32, channels first, the error measured at each iteration. The second is the same
in channels last, with autocast in bf16 if the processor has it.
"""

import random
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from peers import plain_cifar, with_weights_of
from reslab.data.datasets import ImagesInMemory, MemorySplits
from reslab.models.config import config_named
from reslab.models.layers import channels_last
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe
from reslab.runtime.device import Device, setup_device
from reslab.runtime.threads import usable_cores
from reslab.training.engine import Engine, new_engine, update_of
from reslab.training.loop import training_steps
from reslab.training.schedule import Schedule
from reslab.training.setup import setup_classification
from reslab.training.task import Task
from rows import Row, alternate, apart, compare, path_of, print_rows

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
ITERATIONS = {20: 8, 56: 4, 110: 3}  # timed in each turn, by depth
WARM_UP = 1  # iterations of each turn that are not timed
SECONDS = {20: 15, 56: 15, 110: 20}
BATCH, WORKERS = 128, min(usable_cores(), 4)  # 4 as published, if there are as many cores


class PlainDataset(Dataset):
    """Load images as the field's CIFAR scripts do, one at a time."""

    def __init__(self, images: ImagesInMemory, augment: bool = True) -> None:
        self.images = images.images.permute(0, 2, 3, 1).numpy()
        self.labels = images.labels.tolist()
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index])
        if self.augment and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.augment:
            image = ImageOps.expand(image, border=4)
            left, top = random.randint(0, 8), random.randint(0, 8)
            image = image.crop((left, top, left + 32, top + 32))
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return normalised(tensor), self.labels[index]


def normalised(images: Tensor) -> Tensor:
    """Subtract each channel's mean and divide by its std; [..., 3, H, W] from 0 to 1."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (images - mean) / std


def plain_loop(
    net: nn.Module,
    images: ImagesInMemory,
    bf16: bool,
    device: torch.device = torch.device("cpu"),
    size: int = BATCH,
) -> Iterator[float]:
    """Yield the loss of each iteration without end, on mini-batches of `size` images."""
    net = net.to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        PlainDataset(images), batch_size=size, shuffle=True, num_workers=WORKERS, drop_last=True,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    autocast = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    while True:
        for pixels, classes in loader:
            batch, labels = (each.to(device, non_blocking=True) for each in (pixels, classes))
            with autocast:
                output = net(batch)
            loss = F.cross_entropy(output.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            (output.argmax(1) == labels).float().mean().item()
            yield loss.item()


def reslab_loop(task: Task, engine: Engine) -> Iterator[float]:
    """Yield the loss of each iteration of the loop behind `reslab train`."""
    update = update_of(task, engine, None, print)
    recipe = task.recipe
    for step in training_steps(update, task.draws, Schedule(recipe), range(recipe.iterations)):
        yield step.loss.item()


def our_loops(
    depth: int, images: ImagesInMemory, device: Device
) -> Iterator[tuple[str, Iterator[float]]]:
    """Yield the path and the loop of each engine; the kernels need a compiler."""
    for name in ("torch", "native"):
        run_recipe = recipe(f"cifar10-resnet{depth}").with_changes([f"engine={name}"])
        task = setup_classification(run_recipe, 1, MemorySplits(images, images), device)
        engine = new_engine(task, None, lambda line: None)
        if engine.name == name:
            yield f"{path_of(device)}, engine={name}", reslab_loop(task, engine)


def difference(depth: int, images: ImagesInMemory) -> str:
    """Compare the losses of one batch in fp32."""
    batch, labels = images.images[:64].float() / 255, images.labels[:64]
    ours = channels_last(build_resnet(config_named(f"resnet{depth}"))).train()
    plain = with_weights_of(ours, plain_cifar(depth)).train()
    with torch.no_grad():
        expected = F.cross_entropy(plain(batch), labels)
        loss = F.cross_entropy(ours(batch.contiguous(memory_format=torch.channels_last)), labels)
    return f"losses {apart(abs(expected - loss).item() / expected.item())} in fp32"


def images_per_second(loop: Iterator[float], iterations: int) -> float:
    """Time one turn."""
    for _ in range(WARM_UP):
        next(loop)
    start = time.perf_counter()
    for _ in range(iterations):
        next(loop)
    return BATCH * iterations / (time.perf_counter() - start)


def rows_of(depth: int, images: ImagesInMemory, device: Device) -> Iterator[Row]:
    """Compare the loops on one network."""
    bf16 = device.precision == "bf16"
    best = "the same in channels last" + (", autocast in bf16" if bf16 else "")
    ours = dict(our_loops(depth, images, device))
    first = {path: next(loop) for path, loop in ours.items()}
    peers = {
        "akamaster's loop": plain_loop(plain_cifar(depth), images, False),
        best: plain_loop(channels_last(plain_cifar(depth)), images, bf16),
    }
    turns = {
        name: partial(images_per_second, loop, ITERATIONS[depth])
        for name, loop in (ours | peers).items()
    }
    speeds = alternate(turns, SECONDS[depth])
    of_torch, *_ = first.values()
    for path, loss in first.items():
        if path == next(iter(ours)):
            check = difference(depth, images)
        else:
            check = f"first losses {apart(abs(loss - of_torch) / of_torch)} by engine"
        for peer in peers:
            yield compare(
                f"training ResNet-{depth}, batch {BATCH}, with its data", "images/s",
                reslab=speeds[path], peer=peer, other=speeds[peer], path=path, check=check,
            )  # fmt: skip


def random_images(count: int) -> ImagesInMemory:
    """Draw images of CIFAR-10's size; speed does not depend on what they show."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 10, (count,), generator=rng)
    return ImagesInMemory("random", pixels, labels, tuple("0123456789"))


def rows() -> Iterator[Row]:
    device, images = setup_device(), random_images(50_000)
    for depth in ITERATIONS:
        yield from rows_of(depth, images, device)


if __name__ == "__main__":
    print_rows(rows())
