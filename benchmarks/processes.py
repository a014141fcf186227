"""Compare two processes of one thread each with one process of two threads, in one run.

Both train the same network on the same bytes, batches of 128 on two virtual GPUs, in fp32. They
take turns, A B A B; one JSON line gives the medians of the rounds and the ratio with its range.
Each turn is a separate command.

    python benchmarks/processes.py [--rounds 5] [--model resnet20]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from reslab.data.datasets import ImagesInMemory, MemorySplits
from reslab.recipes import recipe
from reslab.runtime.device import setup_device
from reslab.runtime.distributed import fail_together
from reslab.runtime.launch import launch
from reslab.training.loop import eager_update_of, training_steps
from reslab.training.schedule import Schedule
from reslab.training.setup import setup_classification

WARM_UP = 3  # iterations of each turn that are not timed


def measure(model: str, iterations: int, out: Path) -> None:
    """Time one turn of all processes; write the images per second to the file `out`."""
    with fail_together(lambda error: 1) as processes:
        rng = torch.Generator().manual_seed(0)
        # speed does not depend on what the images show
        pixels = torch.randint(0, 256, (10_000, 3, 32, 32), dtype=torch.uint8, generator=rng)
        labels = torch.randint(0, 10, (10_000,), generator=rng)
        images = ImagesInMemory("train", pixels, labels, tuple("0123456789"))
        run_recipe = recipe(f"cifar10-{model}")
        task = setup_classification(
            run_recipe, 1, MemorySplits(images, images), setup_device("fp32")
        )
        steps = training_steps(
            eager_update_of(task), task.draws, Schedule(run_recipe), range(WARM_UP + iterations)
        )
        start = 0.0
        for step in steps:
            if step.iteration == WARM_UP:
                processes.all_reduce_max(0)
                start = time.perf_counter()
        processes.all_reduce_max(0)
        if processes.first:
            out.write_text(str(run_recipe.batch_size * iterations / (time.perf_counter() - start)))


def turn(model: str, iterations: int, processes: int, threads: int) -> float:
    """Time one turn in a new command; return images per second."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "speed"
        command = [sys.executable, __file__, "--model", model, "--iterations", str(iterations)]
        os.environ["OMP_NUM_THREADS"] = str(threads)
        assert launch([*command, "--out", str(out)], processes, threads, print) == 0
        return float(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--iterations", type=int, default=20, help="iterations per turn")
    parser.add_argument(
        "--out", type=Path, help="time one turn in this process and write its speed to this file"
    )
    options = parser.parse_args()
    if options.out:
        measure(options.model, options.iterations, options.out)
        return
    speeds = [
        [turn(options.model, options.iterations, *how) for how in ((2, 1), (1, 2))]
        for _ in range(options.rounds)
    ]
    ratios = [two / one for two, one in speeds]
    print(json.dumps({
        "measure": "training images/s, batch 128, fp32, data and augmentation included",
        "model": options.model,
        "two_processes_of_one_thread": round(median(two for two, _ in speeds)),
        "one_process_of_two_threads": round(median(one for _, one in speeds)),
        "ratio": round(median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "rounds": options.rounds,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
