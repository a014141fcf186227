"""Compare two processes of one thread each with one process of two threads, on one network.

Both train it on the same bytes, batches of 128 on two virtual GPUs, in fp32, by PyTorch's eager
update, which computes one virtual GPU after the other. Each turn is a command of its own: the
rounds take two minutes, so `bench.py` leaves them out.

    python benchmarks/processes.py [--model resnet20]
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reslab.data.datasets import MemorySplits
from reslab.recipes import recipe
from reslab.runtime.device import setup_device
from reslab.runtime.distributed import fail_together
from reslab.runtime.launch import launch
from reslab.training.loop import eager_update_of, training_steps
from reslab.training.schedule import Schedule
from reslab.training.setup import setup_classification
from rows import Row, alternate, apart, compare, print_rows
from training import random_images

WARM_UP = 3  # iterations of each turn that are not timed


def measure(model: str, iterations: int, out: Path) -> None:
    """Time one turn of all processes; write images per second and the last loss to `out`."""
    with fail_together(lambda error: 1) as processes:
        images = random_images(10_000)
        run_recipe = recipe(f"cifar10-{model}")
        task = setup_classification(
            run_recipe, 1, MemorySplits(images, images), setup_device("fp32")
        )
        steps = training_steps(
            eager_update_of(task), task.draws, Schedule(run_recipe), range(WARM_UP + iterations)
        )
        start = loss = 0.0
        for step in steps:
            if step.iteration == WARM_UP:
                processes.all_reduce_max(0)
                start = time.perf_counter()
            loss = step.loss.item()
        processes.all_reduce_max(0)
        if processes.first:
            speed = run_recipe.batch_size * iterations / (time.perf_counter() - start)
            out.write_text(f"{speed} {loss}")


def turn(
    model: str, iterations: int, processes: int, threads: int, losses: dict[int, float]
) -> float:
    """Time one turn in a new command; return images per second, and add its loss to `losses`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured"
        command = [sys.executable, __file__, "--model", model, "--iterations", str(iterations)]
        os.environ["OMP_NUM_THREADS"] = str(threads)
        assert launch([*command, "--out", str(out)], processes, threads, print) == 0
        speed, losses[processes] = map(float, out.read_text().split())
        return speed


def rows(model: str, iterations: int) -> Iterator[Row]:
    losses: dict[int, float] = {}  # by the number of processes
    turns = {
        name: partial(turn, model, iterations, processes, threads, losses)
        for name, processes, threads in (("two", 2, 1), ("one", 1, 2))
    }
    speeds = alternate(turns, seconds=300)
    difference = abs(losses[2] - losses[1]) / losses[1]
    yield compare(
        f"training {model} in two processes of one thread", "images/s", reslab=speeds["two"],
        peer="one process of two threads", other=speeds["one"], path="fp32",
        check=f"last losses {apart(difference)}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--iterations", type=int, default=20, help="iterations per turn")
    parser.add_argument(
        "--out", type=Path, help="time one turn in this process and write its results to this file"
    )
    options = parser.parse_args()
    if options.out:
        measure(options.model, options.iterations, options.out)
    else:
        print_rows(rows(options.model, options.iterations))


if __name__ == "__main__":
    main()
