"""Compare the training speed of reslab and of a plain training loop, in one run.

Both train the same network from the same weights on the same bytes with the same recipe: batches
of 128, crop and flip, SGD with momentum, the loss read at each iteration. The plain loop is a
Dataset of PIL images, DataLoader with two workers, eager fp32. The two take turns, A B A B; one
JSON line per network gives the median ratio of the rounds, its range, and the relative difference
of the losses of one batch.

    python benchmarks/training.py [--rounds 5] [--models resnet20 resnet56 resnet110]
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reslab.data.datasets import ImagesInMemory, MemorySplits
from reslab.models.config import config_named
from reslab.models.layers import channels_last
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe
from reslab.runtime.device import Device, setup_device
from reslab.training.loop import eager_update_of, training_steps
from reslab.training.schedule import Schedule
from reslab.training.setup import setup_classification

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
ITERATIONS = {"resnet20": 16, "resnet56": 8, "resnet110": 5}  # of one turn
WARM_UP = 3  # iterations of each turn that are not timed
WORKERS = 2


class PlainDataset(Dataset):
    """Load images as the field's CIFAR scripts do, one at a time."""

    def __init__(self, images: ImagesInMemory) -> None:
        self.images = images.images.permute(0, 2, 3, 1).numpy()
        self.labels = images.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index]), border=4)
        left, top = random.randint(0, 8), random.randint(0, 8)
        image = image.crop((left, top, left + 32, top + 32))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return normalised(tensor), self.labels[index]


def normalised(images: Tensor) -> Tensor:
    """Subtract each channel's mean and divide by its std; [..., 3, H, W] from 0 to 1."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (images - mean) / std


def plain_loop(name: str, images: ImagesInMemory) -> Iterator[float]:
    """Yield the loss of each iteration without end: eager, fp32, as in most scripts."""
    net = build_resnet(config_named(name)).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        PlainDataset(images), batch_size=128, shuffle=True, num_workers=WORKERS, drop_last=True,
        persistent_workers=True,
    )  # fmt: skip
    while True:
        for batch, labels in loader:
            loss = F.cross_entropy(net(batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


def reslab_loop(name: str, images: ImagesInMemory, device: Device) -> Iterator[float]:
    """Yield the loss of each iteration of the loop behind `reslab train`."""
    run_recipe = recipe(f"cifar10-{name}")
    task = setup_classification(run_recipe, 1, MemorySplits(images, images), device)
    update, schedule = eager_update_of(task), Schedule(run_recipe)
    for step in training_steps(update, task.draws, schedule, range(run_recipe.iterations)):
        yield step.loss.item()


def difference(name: str, images: ImagesInMemory) -> float:
    """Return the relative difference of the losses of one batch, both in fp32."""
    batch, labels = images.images[:64].float(), images.labels[:64]
    plain = build_resnet(config_named(name)).train()
    ours = channels_last(build_resnet(config_named(name))).train()
    with torch.no_grad():
        expected = F.cross_entropy(plain(batch), labels)
        loss = F.cross_entropy(ours(batch.contiguous(memory_format=torch.channels_last)), labels)
    return abs(expected - loss).item() / expected.item()


def images_per_second(loop: Iterator[float], iterations: int) -> float:
    """Time one turn."""
    for _ in range(WARM_UP):
        next(loop)
    start = time.perf_counter()
    for _ in range(iterations):
        next(loop)
    return 128 * iterations / (time.perf_counter() - start)


def compare(name: str, rounds: int, images: ImagesInMemory, device: Device) -> dict[str, object]:
    """Time the two loops in turn."""
    loops: list[Iterator[float]] = [reslab_loop(name, images, device), plain_loop(name, images)]

    def turn(loop: Iterator[float]) -> float:
        return images_per_second(loop, ITERATIONS[name])

    speeds = [[turn(loop) for loop in loops] for _ in range(rounds)]
    ratios = [ours / plain for ours, plain in speeds]
    return {
        "measure": "training images/s, batch 128, data and augmentation included",
        "model": name,
        "precision": device.precision,
        "threads": torch.get_num_threads(),
        "reslab": round(median(ours for ours, _ in speeds)),
        "plain_loop": round(median(plain for _, plain in speeds)),
        "ratio": round(median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "rounds": rounds,
        "loss_difference": difference(name, images),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(ITERATIONS), choices=list(ITERATIONS))
    arguments = parser.parse_args()
    device = setup_device()
    rng = torch.Generator().manual_seed(0)
    # speed does not depend on what the images show
    pixels = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 10, (50_000,), generator=rng)
    images = ImagesInMemory("train", pixels, labels, tuple("0123456789"))
    for name in arguments.models:
        print(json.dumps(compare(name, arguments.rounds, images, device)), flush=True)


if __name__ == "__main__":
    main()
