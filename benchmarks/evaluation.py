"""Compare `reslab evaluate` with the validation loops that people write, on images like CIFAR-10's.

The first loop is that of most CIFAR scripts: a Dataset of PIL images under DataLoader, batches of
128, eager fp32, channels first, errors counted for each batch. The second leaves out all loading:
channels last, on tensors in memory. Logits come from the same weights.
"""

import copy
import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from peers import plain_cifar, with_weights_of
from reslab import evaluate
from reslab.data.datasets import ImagesInMemory
from reslab.evaluation.fuse import model_for_inference
from reslab.evaluation.predict import Predictor
from reslab.evaluation.report import Report
from reslab.models.batchnorm import recompute_statistics
from reslab.models.config import config_named
from reslab.models.layers import channels_last
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet
from reslab.runtime.device import Device, setup_device
from rows import Row, alternate, compare, path_of, print_rows
from training import BATCH, MEAN, STD, WORKERS, PlainDataset, normalised, random_images

IMAGES = {20: 5_000, 110: 1_000}  # by depth
SECONDS = 12


def errors_with_loader(net: nn.Module, images: ImagesInMemory) -> int:
    """Count wrong predictions as most scripts do."""
    dataset = PlainDataset(images, augment=False)
    wrong = 0
    for batch, labels in DataLoader(dataset, BATCH, num_workers=WORKERS):
        wrong += (net(batch).argmax(1) != labels).sum().item()
    return wrong


def errors_in_memory(net: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Count wrong predictions of preprocessed images in memory."""
    pairs = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return sum(int((net(batch).argmax(1) != truth).sum()) for batch, truth in pairs)


@torch.no_grad()
def rows_of(depth: int, device: Device) -> Iterator[Row]:
    """Compare the loops on one network; they must count the same errors."""
    images = random_images(IMAGES[depth])
    inputs = normalised(images.images.float() / 255)
    net = channels_last(build_resnet(config_named(f"resnet{depth}")))
    recompute_statistics(net, (net(batch) for batch in inputs[:BATCH].split(BATCH)))
    plain = with_weights_of(net, plain_cifar(depth)).eval()
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    predictor = Predictor(Model(net, images.classes, Preprocessing(mean, std), {}, []))
    last = channels_last(copy.deepcopy(plain))
    in_memory = inputs.contiguous(memory_format=torch.channels_last)

    def ours() -> int:
        (entry,) = evaluate(predictor, data=images, on_event=None)
        assert isinstance(entry.report, Report)
        return round(entry.report.top1_error * len(images) / 100)

    loops = {
        "reslab": ours,
        "eager, DataLoader": lambda: errors_with_loader(plain, images),
        "channels last, no loading": lambda: errors_in_memory(last, in_memory, images.labels),
    }
    errors: dict[str, int] = {}

    def turn(name: str) -> float:
        start = time.perf_counter()
        errors[name] = loops[name]()
        return len(images) / (time.perf_counter() - start)

    path = path_of(device, model_for_inference(predictor.model).net)
    speeds = alternate({name: partial(turn, name) for name in loops}, SECONDS)
    for peer in list(loops)[1:]:
        yield compare(
            f"evaluating ResNet-{depth}, {len(images):,} images", "images/s",
            reslab=speeds["reslab"], peer=peer, other=speeds[peer], path=path,
            check=f"{errors['reslab']:,} and {errors[peer]:,} errors",
        )  # fmt: skip


def rows() -> Iterator[Row]:
    device = setup_device("fp32")
    for depth in IMAGES:
        yield from rows_of(depth, device)


if __name__ == "__main__":
    print_rows(rows())
