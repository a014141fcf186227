"""The parts of `gpu.py` that use reslab's internal modules."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

import reslab
from reslab.data.datasets import ImagesInMemory, MemorySplits
from reslab.models.batchnorm import in_bf16, norms_of, recompute_statistics
from reslab.models.config import config_named
from reslab.models.layers import channels_last
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import ResNet, build_resnet
from reslab.recipes import recipe
from reslab.runtime import device as device_module
from reslab.runtime.device import setup_device
from reslab.runtime.distributed import ProcessGroup
from reslab.runtime.files import sha256_of
from reslab.training.classification import ClassificationTask
from reslab.training.graph import update_of
from reslab.training.loop import Update, eager_update, eager_update_of, training_steps
from reslab.training.optimizer import build_sgd
from reslab.training.schedule import Schedule
from reslab.training.setup import setup_classification

LOGGED = 10  # iterations between two reads of the loss, as in a run
SIDE, CLASSES = 224, 1000


def network(name: str) -> ResNet:
    """Build a named network, channels first, on the CPU."""
    return build_resnet(config_named(name))


def random_set(count: int) -> ImagesInMemory:
    """Make random images of CIFAR's size; speed does not depend on their content."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 10, (count,), generator=rng)
    return ImagesInMemory("train", images, labels, tuple("0123456789"))


def cifar_loop(
    name: str, precision: str, images: ImagesInMemory, shares: int = 2
) -> Iterator[None]:
    """Run the update of `reslab train`, augmentation included, one iteration per turn."""
    task = cifar_task(name, precision, images, shares)
    update, run_recipe = update_of(task, None, print), task.recipe
    steps = training_steps(update, task.draws, Schedule(run_recipe), range(run_recipe.iterations))
    for step in steps:
        if step.iteration % LOGGED == 0:
            step.loss.item()
        yield


def cifar_task(
    name: str, precision: str, images: ImagesInMemory, shares: int = 2
) -> ClassificationTask:
    """Build the task of a CIFAR recipe, with the same images for training and test."""
    changes = [f"precision={precision}", f"virtual_gpus={shares}", "warmup=null"]
    run_recipe = recipe(f"cifar10-{name}").with_changes([*changes, "learning_rate=0.01"])
    splits = MemorySplits(images, images)
    return setup_classification(run_recipe, 1, splits, setup_device(run_recipe.precision))


def graph_against_eager(name: str, precision: str, count: int) -> dict[str, Any]:
    """Make the same updates eagerly and as `reslab train` does, and compare.

    Return the milliseconds of an iteration of each, and whether their states have the same bits.
    """
    images, facts, hashes = random_set(1024), {}, set()
    for form in ("eager", "graph"):
        task = cifar_task(name, precision, images)
        update: Update = eager_update_of(task) if form == "eager" else update_of(task, None, print)
        for k in range(count):
            update(task.draws(k), 0.01)
        hashes.add(sha256_of(task.net.state_dict() | task.optimizer.state().tensors))
        begun = time.perf_counter()
        for k in range(count):
            update(task.draws(k), 0.01)
        update(task.draws(count), 0.01).cpu()  # waits for the device
        facts[f"{form}_milliseconds"] = round(1e3 * (time.perf_counter() - begun) / (count + 1), 3)
    return facts | {"same_bits": len(hashes) == 1}


def photographs(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make random images, uint8 [count, 3, 224, 224], and labels on a device."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, CLASSES, (count,), generator=rng)
    return images.to(device), labels.to(device)


def photograph_loop(
    name: str, precision: str, batch: tuple[Tensor, Tensor], shares: int
) -> Iterator[None]:
    """Run the update of `reslab train imagenet-*` on one mini-batch that is on the device."""
    run_recipe = recipe(f"imagenet-{name}").with_changes(
        [f"precision={precision}", f"virtual_gpus={shares}", "learning_rate=0.01", "plateau=null",
         f"batch_size={len(batch[1])}"]
    )  # fmt: skip
    device = setup_device(run_recipe.precision)
    net = channels_last(network(name).to(device.torch_device)).train()
    images = minus_mean(torch.full((3, 1, 1), 120.0)).to(device.torch_device)(batch[0]) / 60
    parts = list(zip(images.chunk(shares), batch[1].chunk(shares), strict=True))

    def loss_of(share: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with device.autocast():
            scores = net(share[0]).float()
        return F.cross_entropy(scores, share[1]), scores.new_zeros(())

    optimizer = build_sgd(net, momentum=run_recipe.momentum, weight_decay=run_recipe.weight_decay)
    update = eager_update(lambda draws: parts, loss_of, optimizer, norms_of(net))
    steps = training_steps(update, int, Schedule(run_recipe), range(run_recipe.iterations))
    for step in steps:
        if step.iteration % LOGGED == 0:
            step.loss.item()
        yield


def inference_model(name: str, precision: str, device: torch.device) -> Model:
    """Build a model as `reslab predict` and `evaluate` use it."""
    setup_device("fp32")
    net = channels_last(network(name).to(device)).eval().requires_grad_(False)
    preprocessing = minus_mean(torch.full((3, 1, 1), 120.0)).to(device)
    model = Model(net, tuple(map(str, range(net.config.classes))), preprocessing, {}, [])
    return in_bf16(model) if precision == "bf16" else model


def devices_apart(run: Path) -> dict[str, Any]:
    """Compare a model on CPU and GPU.

    Return the largest differences of its log-probabilities, in fp32 and in bf16, and the largest
    relative difference of recomputed batch-norm statistics.
    """
    device = setup_device("fp32")
    model = reslab.load(run).model
    images = random_set(256).images[:, :, ::2, ::2].contiguous()
    cpu_net = copy.deepcopy(model.net)
    exact = model(images).log_softmax(1)
    gpu_model = Model(copy.deepcopy(model.net), model.classes, model.preprocessing, {}, [])
    gpu_model = gpu_model.to(device.torch_device)
    gpu_images = images.to(device.torch_device)
    fast = in_bf16(gpu_model)(gpu_images).log_softmax(1).cpu()
    facts = {
        "fp32": (gpu_model(gpu_images).log_softmax(1).cpu() - exact).abs().max().item(),
        "bf16": (fast - exact).abs().max().item(),
        "bf16_same_answer": (fast.argmax(1) == exact.argmax(1)).float().mean().item(),
    }
    for net, inputs in ((cpu_net, images), (gpu_model.net, gpu_images)):
        batches = model.preprocessing.to(inputs.device)(inputs).split(64)
        recompute_statistics(net, (net(batch) for batch in batches))
    apart = [
        ((a.cpu() - b).abs().max() / b.abs().max()).item()
        for a, b in zip(gpu_model.net.buffers(), cpu_net.buffers(), strict=True)
        if b.is_floating_point()
    ]
    return facts | {"statistics": max(apart)}


def grouped() -> None:
    """Make this process a process group of one, so that results go through the collectives."""
    group = ProcessGroup(dist.HashStore(), 0, 1, 60.0)
    device_module.join_processes = lambda: group  # pyrefly: ignore[bad-assignment]
