"""The steps of `gpu.py` that profile iterations on a GPU."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

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
    """Compare the update in a CUDA graph with the eager one: time and bits."""
    for name in ("resnet20", "resnet110") if gpu_is_there() else ("resnet20",):
        for precision in ("bf16", "fp32") if gpu_is_there() else ("fp32",):
            facts = inside.graph_against_eager(name, precision, setting.size(40, 6))
            notes.add(**{f"{name}_{precision}": facts})
