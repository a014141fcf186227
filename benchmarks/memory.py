"""Compare the memory and the time of ResNet-1202 with and without `recompute=blocks`.

Mini-batches of 128 on two virtual GPUs, as `reslab train cifar10-resnet1202 --set engine=torch`
trains. Each setting is measured once, in a process of its own: an iteration takes seconds, and its
memory hardly varies.

    python benchmarks/memory.py [none | blocks]
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from reslab.data.datasets import MemorySplits
from reslab.recipes import recipe
from reslab.runtime.device import setup_device
from reslab.training.loop import eager_update_of, training_steps
from reslab.training.schedule import Schedule
from reslab.training.setup import setup_classification
from rows import Row, apart, compare, path_of, print_rows
from training import random_images

ITERATIONS = 2  # the last one is timed
SETTINGS = ("blocks", "none")


def measure(setting: str) -> dict[str, float]:
    """Train a few iterations; return the process's peak memory in MiB, seconds and the loss."""
    run_recipe = recipe("cifar10-resnet1202").with_changes([f"recompute={setting}"])
    device, images = setup_device(), random_images(1000)
    task = setup_classification(run_recipe, 1, MemorySplits(images, images), device)
    start = seconds = loss = 0.0
    update, schedule = eager_update_of(task), Schedule(run_recipe)
    for step in training_steps(update, task.draws, schedule, range(ITERATIONS)):
        loss, seconds, start = step.loss.item(), time.perf_counter() - start, time.perf_counter()
    # kilobytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "MiB": peak / 2 ** (20 if sys.platform == "darwin" else 10), "s": seconds, "loss": loss
    }  # fmt: skip


def rows() -> Iterator[Row]:
    path = f"{path_of(setup_device())}, engine=torch"
    measured = {}
    for setting in SETTINGS:
        command = [sys.executable, __file__, setting]
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        measured[setting] = json.loads(text)
    ours, theirs = (measured[setting] for setting in SETTINGS)
    check = f"losses {apart(abs(ours['loss'] - theirs['loss']) / theirs['loss'])}, measured once"
    for unit, what in (("MiB", "peak memory"), ("s", "an iteration")):
        yield compare(
            f"ResNet-1202, batch 128, recompute=blocks: {what}", unit, reslab=[ours[unit]],
            peer="recompute=none", other=[theirs[unit]], path=path, check=check,
        )  # fmt: skip


def main() -> None:
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1])))
    else:
        print_rows(rows())


if __name__ == "__main__":
    main()
