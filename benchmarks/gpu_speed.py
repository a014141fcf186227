"""The steps of `gpu.py` that measure speed on a GPU."""

import json
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import gpu_inside as inside
from gpu_steps import Notes, Setting, command, gpu_is_there

Loop = Iterator[Any]  # one training iteration per item
WARM_UP = 5 if gpu_is_there() else 1  # iterations of each turn that are not timed
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WORKERS = 8
PRECISIONS = ("bf16", "fp32") if gpu_is_there() else ("fp32",)
SAVING = 25.0  # seconds before the deadline at which the last run is asked to stop


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Wait until the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class PlainDataset(Dataset):
    """Load images as the field's CIFAR scripts do, one at a time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = images.permute(0, 2, 3, 1).numpy(), labels.tolist()
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.pixels[index]), border=4)
        left, top = random.randint(0, 8), random.randint(0, 8)
        image = image.crop((left, top, left + 32, top + 32))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (tensor - self.mean) / self.std, self.labels[index]


def plain_batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mini-batches on the device without end, from persistent workers."""
    loader = DataLoader(
        PlainDataset(images, labels), batch_size=128, shuffle=True, drop_last=True,
        num_workers=WORKERS if gpu_is_there() else 1, persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    while True:
        for images, numbers in loader:
            yield images.to(device(), non_blocking=True), numbers.to(device(), non_blocking=True)


def plain_loop(
    net: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], *, bf16: bool, last: bool, read: bool
) -> Loop:
    """Train as in most scripts; `last`: channels last, `read`: read the loss of each iteration."""
    net = net.to(device()).train()
    if last:
        net = net.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for images, labels in batches:
        if last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if read:
            loss.item()
        yield


def endless(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one mini-batch, already on the device, without end."""
    while True:
        yield images, labels


def per_second(loop: Loop, size: int, seconds: float) -> float:
    """Return one turn's images per second."""
    for _ in range(WARM_UP):
        next(loop)
    wait()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(2 * WARM_UP):
            next(loop)
        done += 2 * WARM_UP
        wait()
    return done * size / (time.perf_counter() - begun)


def in_turn(
    loops: dict[str, Loop], size: int, rounds: int, seconds: float, plain: set[str]
) -> dict[str, list[float]]:
    """Measure all loops in turn for several rounds; return images per second of each turn.

    Loops in `plain` run under torch's defaults: fp32 convolutions may use tf32 and need not be
    deterministic.
    """
    speeds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, loop in loops.items():
            default = name in plain
            torch.backends.cudnn.deterministic = not default
            torch.backends.cudnn.allow_tf32 = default
            speeds[name].append(round(per_second(loop, size, seconds), 1))
    return speeds


def ratios(speeds: dict[str, list[float]], ours: str) -> dict[str, list[float]]:
    """Return the ratio of `ours` to each other loop over the rounds: median, minimum, maximum."""
    summary = {}
    for name, other in speeds.items():
        if name != ours:
            each = [a / b for a, b in zip(speeds[ours], other, strict=True)]
            summary[name] = [round(ratio, 2) for ratio in (median(each), min(each), max(each))]
    return summary


def cifar(name: str) -> Callable[[Setting, Notes], None]:
    """Return a step that compares training a net of Sec. 4.2 with loops as in most scripts."""

    def work(setting: Setting, notes: Notes) -> None:
        images = inside.random_set(setting.size(50_000, 512))
        rounds, seconds = setting.size(3, 1), setting.size(8, 1) / 10
        pixels = ((images.images[:128].float() - 120) / 60).to(device())
        batch = pixels, images.labels[:128].to(device())
        for precision in PRECISIONS:
            bf16 = precision == "bf16"
            plain = {
                "loader": plain_loop(
                    inside.network(name), plain_batches(images.images, images.labels),
                    bf16=bf16, last=False, read=True,
                ),
                "channels_first": plain_loop(
                    inside.network(name), endless(*batch), bf16=bf16, last=False, read=False
                ),
                "channels_last": plain_loop(
                    inside.network(name), endless(*batch), bf16=bf16, last=True, read=False
                ),
            }  # fmt: skip
            ours = {
                "reslab": inside.cifar_loop(name, precision, images),
                "reslab_one_share": inside.cifar_loop(name, precision, images, shares=1),
            }
            speeds = in_turn(ours | plain, 128, rounds, seconds, set(plain))
            notes.add(**{precision: speeds, f"{precision}_ratio": ratios(speeds, "reslab")})

    return work


def resnet50(setting: Setting, notes: Notes) -> None:
    """Measure ResNet-50, training and inference, on mini-batches of 256 that are on the device."""
    size, rounds, seconds = setting.size(256, 4), setting.size(3, 1), setting.size(15, 1) / 10
    batch = inside.photographs(size, device())
    floats = (batch[0].float() - 120) / 60
    for precision in PRECISIONS:
        bf16 = precision == "bf16"
        net = partial(inside.network, "resnet50")
        batches = partial(endless, floats, batch[1])
        plain = {
            "channels_first": plain_loop(net(), batches(), bf16=bf16, last=False, read=True),
            "channels_last": plain_loop(net(), batches(), bf16=bf16, last=True, read=True),
        }
        loop = partial(inside.photograph_loop, "resnet50", precision, batch)
        ours = {"reslab": loop(shares=min(8, size // 2)), "reslab_one_share": loop(shares=1)}
        speeds = in_turn(ours | plain, size, rounds, seconds, set(plain))
        notes.add(**{f"train_{precision}": speeds})
        notes.add(**{f"train_{precision}_ratio": ratios(speeds, "reslab")})
        shown = inference(precision, batch[0], floats)
        speeds = in_turn(shown, size, rounds, seconds / 2, {"channels_first", "channels_last"})
        notes.add(**{f"show_{precision}": speeds})
        notes.add(**{f"show_{precision}_ratio": ratios(speeds, "reslab")})


def inference(precision: str, images: Tensor, floats: Tensor) -> dict[str, Loop]:
    """Return inference loops: our model and the plain net, channels first and last."""
    ours = inside.inference_model("resnet50", precision, device())
    first = inside.network("resnet50").to(device()).eval()
    last = inside.network("resnet50").to(device()).eval()
    last = last.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    bf16 = precision == "bf16"

    def answers(net: Callable[[Tensor], Tensor], inputs: Tensor, mixed: bool) -> Loop:
        while True:
            with torch.no_grad(), torch.autocast(device().type, torch.bfloat16, enabled=mixed):
                net(inputs)
            yield

    return {
        "reslab": answers(ours, images, False),
        "channels_first": answers(first, floats, bf16),
        "channels_last": answers(
            last, floats.contiguous(memory_format=torch.channels_last), bf16
        ),
    }  # fmt: skip


def deep(setting: Setting, notes: Notes) -> None:
    """Measure speed and memory of a few iterations of ResNet-1202."""
    name = "resnet1202" if gpu_is_there() else "resnet20"
    for precision in PRECISIONS:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        loop = inside.cifar_loop(name, precision, inside.random_set(1024))
        next(loop)
        wait()
        begun = time.perf_counter()
        for _ in range(count := setting.size(4, 1)):
            next(loop)
        wait()
        speed = count * 128 / (time.perf_counter() - begun)
        gib = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        notes.add(**{precision: {"images_per_second": round(speed, 1), "gib": round(gib, 2)}})
        del loop


def whole_recipe(setting: Setting, notes: Notes) -> None:
    """Train by the paper's CIFAR-10 recipe until time is up; the run can be resumed."""
    if setting.data is None:
        notes.add(skipped="no --data")
        return
    out = setting.out / "cifar10-resnet20"
    words = ["train", "cifar10-resnet20", "--data", setting.data, "--out", out]
    run = command(setting.out / "cifar10-resnet20.log", *words)
    run.join(max(setting.deadline - time.monotonic() - SAVING, 5.0))
    if run.is_alive():
        run.send(signal.SIGTERM)
        run.join()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    evaluated = [row for row in lines if row["kind"] == "eval"]
    trained = [row for row in lines if row["kind"] == "train"]
    notes.add(
        exit_status=run.exitcode, iterations=trained[-1]["iteration"] if trained else 0,
        test_error=[[row["iteration"], row["top1_error"]] for row in evaluated],
        images_per_second=median(row["images_per_second"] for row in trained) if trained else None,
        finished=(out / "result.json").exists(), said=run.said()[-300:],
    )  # fmt: skip
