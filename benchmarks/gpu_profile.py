"""The steps of `gpu.py` that profile iterations on a GPU."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpu_inside as inside
from gpu_speed import WARM_UP, Loop, device, wait
from gpu_steps import Notes, Setting, gpu_is_there

TOP = 15  # kernels listed


def profile(name: str) -> Callable[[Setting, Notes], None]:
    """Return a step that profiles the training iterations of a network, in bf16."""

    def work(setting: Setting, notes: Notes) -> None:
        if name == "resnet50":
            batch = inside.photographs(setting.size(256, 8), device())
            loop = inside.photograph_loop(name, "bf16", batch, setting.size(8, 2))
        else:
            loop = inside.cifar_loop(name, "bf16", inside.random_set(1024))
        notes.add(**profiled(loop, setting.size(4, 1)))

    return work


def profiled(loop: Loop, count: int) -> dict[str, Any]:
    """Profile `count` iterations: idle share of the GPU, longest kernels, longest host calls."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    for _ in range(2 * WARM_UP if gpu_is_there() else 1):
        next(loop)
    wait()
    begun = time.perf_counter()
    for _ in range(count):
        next(loop)
    wait()
    wall = 1e3 * (time.perf_counter() - begun) / count
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with recorded(activities=kinds) as record:
        for _ in range(count):
            next(loop)
        wait()
    kernels: dict[str, list[float]] = defaultdict(list)
    host: dict[str, list[float]] = defaultdict(list)
    intervals = []
    for event in record.events() or ():
        if event.is_user_annotation or event.name.startswith("Optimizer."):
            continue
        if event.device_type == DeviceType.CUDA:
            intervals.append((event.time_range.start, event.time_range.end))
            kernels[event.name].append(event.time_range.elapsed_us())
        elif event.device_type == DeviceType.CPU:
            host[event.name].append(event.self_cpu_time_total)
    busy = covered(intervals) / 1e3 / count
    return {
        "milliseconds": round(wall, 3),
        "busy_milliseconds": round(busy, 3),
        "idle_share": round(max(1 - busy / wall, 0), 3),
        "launches": round(len(intervals) / count),
        "kernels": largest(kernels, count),
        "host": largest(host, count),
    }


def covered(intervals: list[tuple[float, float]]) -> float:
    """Return the length of the union of time intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def largest(times: dict[str, list[float]], count: int) -> list[list[Any]]:
    """Return name, milliseconds and calls per iteration of the entries that take longest."""
    order = sorted(times.items(), key=lambda entry: -sum(entry[1]))[:TOP]
    return [[n[:90], round(sum(t) / 1e3 / count, 4), round(len(t) / count, 1)] for n, t in order]


def graph(setting: Setting, notes: Notes) -> None:
    """Measure what a CUDA graph of an iteration's forward and backward passes would save."""
    if not torch.cuda.is_available():
        notes.add(skipped="there is no GPU")
        return
    for name in ("resnet20", "resnet110"):
        net = inside.network(name).to(device()).train()
        net = net.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
        images = torch.randn(2, 64, 3, 32, 32, device=device())
        labels = torch.randint(0, 10, (2, 64), device=device())
        weights = list(net.parameters())
        for weight in weights:
            weight.grad = torch.zeros_like(weight)

        def once(net: nn.Module = net, images: Tensor = images, labels: Tensor = labels) -> None:
            for share, numbers in zip(images, labels, strict=True):
                inputs = share.contiguous(memory_format=torch.channels_last)
                with torch.autocast("cuda", torch.bfloat16):
                    loss = F.cross_entropy(net(inputs).float(), numbers)
                loss.backward()

        def timed(work: Callable[[], None], count: int = 50) -> float:
            wait()
            begun = time.perf_counter()
            for _ in range(count):
                work()
            wait()
            return round(1e3 * (time.perf_counter() - begun) / count, 3)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                once()
        torch.cuda.current_stream().wait_stream(side)
        eager = timed(once, 20)
        cuda_graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(cuda_graph):
            once()
        notes.add(
            **{name: {"eager_milliseconds": eager, "graph_milliseconds": timed(cuda_graph.replay)}}
        )
