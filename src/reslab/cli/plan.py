"""`reslab plan`"""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import clock, print_json, print_line, speed, warn
from reslab.cli.train import DATA_HELP

if TYPE_CHECKING:
    from reslab.training.probe import Probe, ProbeTarget
    from reslab.training.recipe import RunRecipe


LIMITS = {
    "network": "the network: images are ready before it wants them",
    "decoding": "decoding: `reslab pack --shorter-side 480` prepares smaller images once",
    "disk": "the disk: `reslab pack` puts the images into a few large files",
}


def plan(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Its name; `reslab recipes` lists them.")
    ],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    weights: Annotated[Path | None, typer.Option(help="A model file or run to start from.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field; repeatable."),
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="How many are tried.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say what a run would cost here: speed, memory, hours, what limits it; nothing is written."""
    from reslab.recipes import open_recipe, task_kind
    from reslab.runtime.device import setup_device
    from reslab.runtime.events import Event
    from reslab.training.probe import probe
    from reslab.training.setup import inputs_at
    from reslab.training.train import Job

    def on_event(event: Event) -> None:
        warn(event["text"])

    inputs = inputs_at(data, weights)
    chosen = open_recipe(name, inputs, changes or [])
    job = Job(chosen, Path(), inputs, setup_device(chosen.precision), 1, on_event)
    with closing(task_kind(chosen).probe_target(job)) as run:
        found = probe(run, iterations)
    facts = plan_facts(run, found)
    if as_json:
        print_json(facts)
        return
    print_line(plan_as_text(facts, found))
    print_line(rate_curve(chosen))


def plan_facts(it: "ProbeTarget", found: "Probe") -> dict[str, Any]:
    """What is known of a run before it is made."""
    recipe, device = it.task.recipe, it.task.device
    return {
        "recipe": recipe.name,
        "device": str(device.torch_device),
        "precision": device.precision,
        "pictures": it.images,
        "iterations": recipe.iterations,
        "epochs": round(recipe.iterations / it.task.epoch, 1),
        "batch_size": recipe.batch_size,
        "hours": found.seconds(it) / 3600,
        "memory": found.memory,
        "limit": found.limit,
        "pictures_per_second": {
            "training": found.together,
            "network": found.network,
            "preparing": found.images,
            "reading": found.reading,
            "evaluating": found.evaluating,
        },
    }


def plan_as_text(facts: dict[str, Any], found: "Probe") -> str:
    """The same for people."""
    lines = [
        f"{facts['recipe']} on {facts['device']}, {facts['precision']}",
        f"{facts['pictures']:,} images, {facts['iterations']:,} iterations of "
        f"{facts['batch_size']}: {facts['epochs']:g} epochs",
        "",
        f"time      {clock(3600 * facts['hours'])}, evaluations included",
        f"speed     {speed(found.together)} images/s; evaluating {speed(found.evaluating)}",
        f"memory    {found.memory / 2**30:.1f} GiB at most",
        f"limit     {LIMITS[found.limit]}",
    ]
    if found.images is not None and found.reading is not None:
        lines.append(
            f"          network alone {speed(found.network)} images/s, images alone "
            f"{speed(found.images)}, reading files {speed(found.reading)}"
        )
    return "\n".join([*lines, ""])


def rate_curve(recipe: "RunRecipe") -> str:
    """The learning rate over the iterations, drawn in characters; in words what listens."""
    lines = []
    if recipe.drops:
        lines.append(draw_rate(recipe))
    if recipe.warmup:
        warmup = recipe.warmup
        lines.append(
            f"first {warmup.learning_rate:g}, until the training error is below "
            f"{warmup.until_train_error:g} %, at most {warmup.cap} iterations"
        )
    if recipe.plateau:
        plateau = recipe.plateau
        lines.append(
            f"rate      {recipe.learning_rate:g}, divided by 10 after {plateau.patience} "
            f"evaluations without {plateau.threshold:g} points of improvement; one each "
            f"{recipe.eval_every} iterations"
        )
    return "\n".join(lines)


def draw_rate(recipe: "RunRecipe") -> str:
    """The rate between its drops, after any warm-up."""
    import plotext

    from reslab.training.schedule import Schedule, ScheduleState, WarmupState

    schedule = Schedule(recipe, ScheduleState(WarmupState(ended_at=0)))
    last = recipe.iterations - 1
    points = [round(part * last / 200) for part in range(201)]
    rates = [schedule.rate(point) for point in points]
    changes = [0, *(round(drop * recipe.iterations) for drop in recipe.drops), last]
    levels = sorted(set(rates))
    plotext.clear_figure()
    plotext.plot_size(72, 12)
    plotext.yscale("log")
    plotext.plot(points, rates, marker="braille")
    plotext.xticks(changes, [f"{change:,}" for change in changes])
    plotext.yticks(levels, [f"{level:g}" for level in levels])
    plotext.title("learning rate by iteration")
    return plotext.uncolorize(plotext.build())
