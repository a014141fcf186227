"""`reslab plan`"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import clock, complain, say, say_json, speed
from reslab.cli.train import DATA_HELP

if TYPE_CHECKING:
    from reslab.data.location import Place
    from reslab.detection.initial import Weights
    from reslab.recipes import AnyRecipe
    from reslab.training.probe import Probe, Probed
    from reslab.training.recipe import RunRecipe


LIMITS = {
    "network": "the network: pictures are ready before it wants them",
    "decoding": "decoding: `reslab pack --shorter-side 480` prepares smaller pictures once",
    "disk": "the disk: `reslab pack` puts the pictures into a few large files",
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
    from reslab.data.location import place_of
    from reslab.detection.initial import load_weights
    from reslab.recipes import any_recipe
    from reslab.training.probe import probe

    place = place_of(data) if data else None
    given = load_weights(weights) if weights else None
    chosen = any_recipe(name, data=place, weights=given).with_changes(changes or [])
    with ready(chosen, place, given) as run:
        found = probe(run, iterations)
    facts = facts_of(run, found)
    if as_json:
        say_json(facts)
        return
    say(as_text(facts, found))
    say(rate_curve(chosen))


@contextmanager
def ready(
    recipe: "AnyRecipe", data: "Place | None", weights: "Weights | None"
) -> "Iterator[Probed]":
    """The run of a recipe, its data and its network there, nothing written."""
    from reslab.detection.recipe import DetectionRecipe
    from reslab.detection.setup import prepare_detector
    from reslab.detection.task import detector_probed
    from reslab.models.model_file import Model
    from reslab.runtime.device import open_world
    from reslab.training.origin import Origin
    from reslab.training.probe import classification_probed
    from reslab.training.setup import prepare

    world = open_world(recipe.precision)
    if isinstance(recipe, DetectionRecipe):
        with closing(prepare_detector(recipe, 1, data, world, weights, complain)) as it:
            yield detector_probed(it)
        return
    assert isinstance(weights, Model | None), "such a recipe was refused"
    with closing(prepare(recipe, 1, data, world, Origin(weights), complain)) as it:
        yield classification_probed(it)


def facts_of(it: "Probed", found: "Probe") -> dict[str, Any]:
    """What is known of a run before it is made."""
    recipe = it.recipe
    return {
        "recipe": recipe.name,
        "device": str(it.world.device),
        "precision": it.world.precision,
        "pictures": it.pictures,
        "iterations": recipe.iterations,
        "epochs": round(recipe.iterations / it.parts.epoch, 1),
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
        f"speed     {speed(found.together)} images/s; evaluating {speed(found.evaluating)}",
        f"memory    {found.memory / 2**30:.1f} GiB at most",
        f"limit     {LIMITS[found.limit]}",
    ]
    if found.pictures is not None and found.reading is not None:
        lines.append(
            f"          network alone {speed(found.network)} images/s, pictures alone "
            f"{speed(found.pictures)}, reading files {speed(found.reading)}"
        )
    return "\n".join([*lines, ""])


def rate_curve(recipe: "RunRecipe") -> str:
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


def drawn(recipe: "RunRecipe") -> str:
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
