"""`reslab train` and `reslab resume`"""

import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.api.display import progress_display
from reslab.api.lines import warn
from reslab.api.signals import exit_at_signal, stopping
from reslab.cli.console import AsJson, Changes, DataSet, WeightsOption, print_json, print_line

if TYPE_CHECKING:
    from reslab.recipes import AnyRecipe
    from reslab.training.setup import Inputs


Processes = Annotated[
    int, typer.Option(min=1, help="Number of processes on this machine; not under torchrun.")
]


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; `reslab recipes` lists them.")],
    out: Annotated[Path, typer.Option(help="The run folder; an unfinished run in it is resumed.")],
    data: DataSet = None,
    weights: WeightsOption = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the initial weights, data order and augmentation.")
    ] = 1,
    changes: Changes = None,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> int:
    """Train a recipe into a run folder, or resume the run in it.

    Writes weights, metrics, curves and checkpoints. Training can be interrupted at any time: the
    same command resumes it, with bit-identical results.
    """

    def work() -> int:
        from reslab.api.train import request_run

        opened, inputs = request_run(recipe, data, weights, changes or [], out)
        return run_training(opened, inputs, seed, out, as_json)

    return by_processes(processes, work)


def resume(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        str | None, typer.Option(help="The data set's new folder or URL, if it has moved.")
    ] = None,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> int:
    """Resume an interrupted run, with bit-identical results."""

    def work() -> int:
        from reslab.api.train import interrupted_run

        return run_training(*interrupted_run(run, data), run, as_json)

    return by_processes(processes, work)


def by_processes(count: int, work: Callable[[], int]) -> int:
    """Run `work` in this process, or start `count` processes of this command; return the status.

    This process may itself be one of several started by a launcher.
    """
    from reslab.runtime.distributed import PeerFailed, fail_together
    from reslab.runtime.launch import launch, this_command

    if count > 1 and "RANK" in os.environ:
        raise ValueError(
            f"--processes {count} would start processes, but torchrun has already started this "
            "one: use only one of the two"
        )
    if count > 1:
        from reslab.runtime.threads import usable_cores

        threads = max(usable_cores() // count, 1)
        return launch(this_command("--processes"), count, threads, warn)
    try:
        with fail_together(failure_status) as processes:
            if not processes.first:
                warnings.simplefilter("ignore")  # the first process prints the same warnings
            return work()
    except PeerFailed as failed:
        return failed.status


def failure_status(error: BaseException) -> int:
    """Return the exit status for an exception, the same as in `reslab.cli.main`."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, ValueError) else 1


def run_training(recipe: "AnyRecipe", inputs: "Inputs", seed: int, out: Path, as_json: bool) -> int:
    """Train with a progress display, saving at a signal; return the exit status."""
    from reslab.api.train import run
    from reslab.runtime.distributed import join_processes
    from reslab.runtime.events import silent
    from reslab.training.run import Interrupted

    first = join_processes().first
    display = progress_display() if first else nullcontext(silent)
    log = warn if first else lambda line: None
    try:
        with stopping(log, exit_at_signal) as stop, display as on_event:
            result = run(recipe, inputs, out, seed=seed, on_event=on_event, stop=stop)
    except Interrupted as interrupted:
        if first:
            warn(str(interrupted))
        return 128 + interrupted.signal
    if first:
        print_json(result.as_dict()) if as_json else print_line(str(result))
    return 0
