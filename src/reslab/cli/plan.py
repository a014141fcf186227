"""`reslab plan`"""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import clock, complain, say, say_json

if TYPE_CHECKING:
    from reslab.train.classification import Classification
    from reslab.train.probe import Probe
    from reslab.train.recipe import Recipe

LIMITS = {
    "network": "the network: pictures are ready before it wants them",
    "decoding": "decoding: `reslab pack --shorter-side 480` prepares smaller pictures once",
    "disk": "the disk: `reslab pack` puts the pictures into a few large files",
}


def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; `reslab recipes` lists them.")],
    data: Annotated[Path | None, typer.Option(help="The folder that holds the data set.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A model file or run to start from.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field; repeatable."),
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="How many are tried.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say what a run would cost here: speed, memory, hours, what limits it; nothing is written."""
    from reslab.models.weights import load
    from reslab.recipes import recipe as recipe_named
    from reslab.train.origin import Origin
    from reslab.train.prepare import prepare
    from reslab.train.probe import probe
    from reslab.world import open_world

    given = load(weights) if weights else None
    chosen = recipe_named(recipe, data=data, weights=given).with_changes(changes or [])
    world = open_world(chosen.precision)
    with closing(prepare(chosen, 1, data, world, Origin(given), complain)) as it:
        found = probe(it, iterations)
        facts = facts_of(it, found)
    if as_json:
        say_json(facts)
        return
    say(as_text(facts, found))
    say(rate_curve(chosen))


def facts_of(it: "Classification", found: "Probe") -> dict[str, Any]:
    """What is known of a run before it is made."""
    recipe = it.recipe
    return {
        "recipe": recipe.name,
        "device": str(it.world.device),
        "precision": it.world.precision,
        "pictures": it.count,
        "iterations": recipe.iterations,
        "epochs": round(recipe.iterations / it.epoch, 1),
        "batch_size": recipe.batch_size,
        "hours": found.seconds(it) / 3600,
        "memory": found.memory,
        "limit": found.limit,
        "pictures_per_second": {
            "training": found.together,
            "network": found.network,
            "preparing": found.pictures,
            "reading": found.reading,
            "evaluating": found.evaluating,
        },
    }


def as_text(facts: dict[str, Any], found: "Probe") -> str:
    """The same for people."""
    lines = [
        f"{facts['recipe']} on {facts['device']}, {facts['precision']}",
        f"{facts['pictures']:,} pictures, {facts['iterations']:,} iterations of "
        f"{facts['batch_size']}: {facts['epochs']:g} epochs",
        "",
        f"time      {clock(3600 * facts['hours'])}, evaluations included",
        f"speed     {found.together:.0f} images/s; evaluating {found.evaluating:.0f}",
        f"memory    {found.memory / 2**30:.1f} GiB at most",
        f"limit     {LIMITS[found.limit]}",
    ]
    if found.pictures is not None and found.reading is not None:
        lines.append(
            f"          network alone {found.network:.0f} images/s, pictures alone "
            f"{found.pictures:.0f}, reading files {found.reading:.0f}"
        )
    return "\n".join([*lines, ""])


def rate_curve(recipe: "Recipe") -> str:
    """The learning rate over the iterations, drawn in characters; in words what listens."""
    lines = []
    if recipe.drops:
        lines.append(drawn(recipe))
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


def drawn(recipe: "Recipe") -> str:
    """The rate between its drops, after any warm-up."""
    import plotext

    from reslab.train.schedule import Schedule, ScheduleState, WarmupState

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
