"""`reslab plan`"""

from typing import TYPE_CHECKING, Annotated

import typer

from reslab.api.display import progress_display
from reslab.api.lines import clock, speed
from reslab.cli.console import AsJson, Changes, DataSet, WeightsOption, print_json, print_line

if TYPE_CHECKING:
    from reslab.api.plan import Plan
    from reslab.training.recipe import RunRecipe

NOTABLE_LOAD = 0.1  # cores
LIMITS = {
    "network": "the network: images are ready before it needs them",
    "decoding": "decoding: `reslab pack --shorter-side 480` prepares smaller images once",
    "disk": "the disk: `reslab pack` puts the images into a few large files",
}


def plan(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name; `reslab recipes` lists them.")
    ],
    data: DataSet = None,
    weights: WeightsOption = None,
    changes: Changes = None,
    iterations: Annotated[
        int, typer.Option(min=1, help="Measure at most this many, for about 16 seconds.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Estimate a run's hours, speed, memory and bottleneck. Writes nothing."""
    from reslab.api.plan import estimate
    from reslab.api.train import request_run

    with progress_display() as on_event:
        recipe, inputs = request_run(name, data, weights, changes or [])
        estimated = estimate(recipe, inputs, iterations, on_event)
    if as_json:
        print_json(estimated.as_dict())
        return
    print_line(plan_as_text(estimated))
    print_line(rate_curve(recipe))


def plan_as_text(plan: "Plan") -> str:
    recipe, speeds = plan.recipe, plan.speeds
    lines = [
        f"{recipe.name} on {plan.device}, {plan.precision}",
        f"{plan.images:,} images, {recipe.iterations:,} iterations of {recipe.batch_size}: "
        f"{plan.epochs:g} epochs",
        "",
        f"time      {clock(3600 * plan.hours)}, evaluations included",
        f"speed     {speed(speeds.together)} images/s; evaluating {speed(speeds.evaluating)}",
        f"memory    {speeds.memory / 2**30:.1f} GiB at most",
        f"limit     {LIMITS[speeds.limit]}",
    ]
    if speeds.images is not None and speeds.reading is not None:
        lines.append(
            f"          network alone {speed(speeds.network)} images/s, images alone "
            f"{speed(speeds.images)}, reading files {speed(speeds.reading)}"
        )
    return "\n".join([*lines, cores_line(plan), ""])


def cores_line(plan: "Plan") -> str:
    """Return a line on the cores that the run may use, and on other work that slowed it."""
    if plan.busy < NOTABLE_LOAD:
        return f"cores     {plan.cores:g}, none of them busy with other work"
    return (
        f"cores     {plan.busy:.1f} of {plan.cores:g} were busy with other work: without it, the "
        "run would be faster"
    )


def rate_curve(recipe: "RunRecipe") -> str:
    """Return a plot of the learning rate, and text for the parts that depend on errors."""
    lines = []
    if recipe.drops:
        lines.append(draw_rate(recipe))
    if warmup := recipe.warmup:
        lines.append(
            f"first {warmup.learning_rate:g}, until the training error is below "
            f"{warmup.until_train_error:g} %, at most {warmup.cap} iterations"
        )
    if plateau := recipe.plateau:
        lines.append(
            f"rate      {recipe.learning_rate:g}, divided by 10 after {plateau.patience} "
            f"evaluations without {plateau.threshold:g} points of improvement; one every "
            f"{recipe.eval_every} iterations"
        )
    return "\n".join(lines)


def draw_rate(recipe: "RunRecipe") -> str:
    """Return a character plot of the learning rate and its drops, without the warm-up."""
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
