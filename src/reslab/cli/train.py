"""`reslab train` and `reslab resume`"""

import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import precisions, print_json, print_line, stopping, training_display, warn

if TYPE_CHECKING:
    from reslab.recipes import AnyRecipe
    from reslab.training.setup import Inputs


Processes = Annotated[
    int,
    typer.Option(min=1, help="How many train together on this machine; not under torchrun."),
]
DATA_HELP = "The folder that holds the data set, or a URL of packed images."
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; `reslab recipes` lists them.")],
    out: Annotated[Path, typer.Option(help="The run folder; a run begun there goes on.")],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A model file or run to start from: fine-tuning.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Weights, order, augmentation.")] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a field of the recipe; repeatable."
        ),
    ] = None,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> int:
    """Train a recipe into a run folder: weights, metrics, curves, checkpoints.

    Kill it whenever you like: the same command goes on, to the same bits.
    """

    def work() -> int:
        from reslab.recipes import open_recipe
        from reslab.training.setup import inputs_at

        inputs = inputs_at(data, weights)
        chosen = open_recipe(recipe, inputs, changes or [])
        return run_training(chosen, out, seed, inputs, as_json)

    return by_processes(processes, work)


def resume(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        str | None, typer.Option(help="Where the data set is now: a folder or a URL.")
    ] = None,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> int:
    """Go on with an interrupted run from its last checkpoint, to the same bits."""

    def work() -> int:
        from reslab.recipes import recipe_in
        from reslab.training.folder import RunFolder
        from reslab.training.setup import inputs_at

        folder = RunFolder.open(run)
        begun = folder.environment()
        inputs = inputs_at(data or begun["data"])
        return run_training(recipe_in(folder), run, begun["seed"], inputs, as_json)

    return by_processes(processes, work)


def by_processes(count: int, work: Callable[[], int]) -> int:
    """Do `work` in this process, one of several if a launcher started it so, or start several of
    this command; the exit status."""
    from reslab.runtime.distributed import PeerFailed, fail_together
    from reslab.runtime.launch import launch, this_command

    if count > 1 and "RANK" in os.environ:
        raise ValueError(
            f"--processes {count} starts processes, and this is already one of torchrun's: "
            "give one of the two a number"
        )
    if count > 1:
        from reslab.runtime.threads import usable_cores

        threads = max(usable_cores() // count, 1)
        return launch(this_command("--processes"), count, threads, warn)
    try:
        with fail_together(failure_status) as processes:
            if not processes.first:
                warnings.simplefilter("ignore")  # the first has the same ones
            return work()
    except PeerFailed as ended:
        return ended.status


def failure_status(error: BaseException) -> int:
    """The exit status that `reslab.cli` gives to a failure."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, ValueError) else 1


def run_training(
    recipe: "AnyRecipe",
    out: Path,
    seed: int,
    inputs: "Inputs",
    as_json: bool,
) -> int:
    """Train with a display, and saved when a signal asks to stop; the exit status."""
    from reslab.recipes import task_kind
    from reslab.runtime.distributed import join_processes
    from reslab.runtime.events import silent
    from reslab.training.run import Interrupted

    train = task_kind(recipe).train
    first = join_processes().first
    display = training_display(recipe.iterations) if first else nullcontext(silent)
    try:
        with stopping(warn if first else lambda line: None) as stop, display as on_event:
            result = train(recipe, out, seed=seed, data=inputs, on_event=on_event, stop=stop)
    except Interrupted as interrupted:
        if first:
            warn(str(interrupted))
        return 128 + interrupted.signal
    except OSError as error:
        saved = out / "checkpoints"
        if saved.is_dir() and any(saved.iterdir()):
            from reslab.errors import os_reason

            reason = os_reason(error)
            raise RuntimeError(
                f"{reason}: {out}; what was saved is whole: mend it, then `reslab resume {out}`"
            ) from error
        raise
    if first:
        print_json(result) if as_json else print_line(training_summary(result, out))
    return 0


def training_summary(result: dict[str, Any], out: Path) -> str:
    """The result in a few lines."""
    lines = [line_of_report(report) for report in result["evaluation"]]
    lines.append(f"training error {result['train_error']:.2f} %  (last epoch, augmented)")
    lines.append(
        f"{result['iterations']} iterations in {result['seconds']:.0f} s; see {out}/curves.svg"
    )
    return "\n".join(lines)


def line_of_report(report: dict[str, Any]) -> str:
    """A final report in words."""
    from reslab.evaluation.report import Report

    if "map_50" in report:
        return f"{report['set']}: {precisions(report)}  ({report['protocol']}, n={report['n']})"
    return str(Report(**report))
