"""Estimate the cost of a run on this machine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from reslab.api.display import OnEvent, showing
from reslab.api.lines import clock, speed
from reslab.detection.recipe import DetectionRecipe
from reslab.recipes import AnyRecipe, open_recipe
from reslab.recipes.tasks import task_kind
from reslab.runtime.device import setup_device
from reslab.runtime.events import Callback
from reslab.runtime.load import allowed_cores, watch_load
from reslab.training.probe import Probe, probe
from reslab.training.recipe import Recipe
from reslab.training.setup import Inputs, inputs_at
from reslab.training.train import Job


@dataclass(frozen=True)
class Plan:
    """The estimated cost of a run on this machine."""

    recipe: Recipe | DetectionRecipe
    device: str
    precision: str
    images: int  # in the training set
    epochs: float
    hours: float  # of the whole run, evaluations included
    speeds: Probe  # images per second of each part, the peak memory, and what limits the run
    cores: float  # that the run may use
    busy: float  # how many of them were busy with other work while the speeds were measured

    def __repr__(self) -> str:
        return (
            f"Plan({self.recipe.name!r} on {self.device}: {clock(3600 * self.hours)}, "
            f"{speed(self.speeds.together)} images/s, {self.speeds.memory / 2**30:.1f} GiB, "
            f"limited by {self.speeds.limit})"
        )

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the plan for JSON."""
        recipe, speeds = self.recipe, self.speeds
        return {
            "recipe": recipe.name,
            "device": self.device,
            "precision": self.precision,
            "pictures": self.images,
            "iterations": recipe.iterations,
            "epochs": self.epochs,
            "batch_size": recipe.batch_size,
            "hours": self.hours,
            "memory": speeds.memory,
            "limit": speeds.limit,
            "pictures_per_second": {
                "training": speeds.together,
                "network": speeds.network,
                "preparing": speeds.images,
                "reading": speeds.reading,
                "evaluating": speeds.evaluating,
            },
        }


def plan(
    recipe: str | Recipe | DetectionRecipe,
    *,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    iterations: int = 20,
    on_event: OnEvent = "print",
) -> Plan:
    """Estimate the cost of a run on this machine: time, speed, memory, what limits it.

    `recipe`, `data`, `weights` and `on_event` are those of `train`. Measure for about 16 seconds
    once the data are open, at most `iterations` iterations, and write nothing.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: at least 1")
    inputs = inputs_at(data, weights)
    opened = open_recipe(recipe, inputs) if isinstance(recipe, str) else recipe
    with showing(on_event) as callback:
        return estimate(opened, inputs, iterations, callback)


def estimate(recipe: AnyRecipe, inputs: Inputs, iterations: int, on_event: Callback) -> Plan:
    """Do the work of `plan`."""
    device = setup_device(recipe.precision)
    job = Job(recipe, Path(), inputs, device, seed=1, on_event=on_event)
    job.log("opening the data and building the network")
    with closing(task_kind(recipe).probe_target(job)) as target:
        busy_elsewhere = watch_load()
        speeds = probe(target, iterations, job.log)
        return Plan(
            recipe=recipe,
            device=str(device.torch_device),
            precision=device.precision,
            images=target.images,
            epochs=round(recipe.iterations / target.task.epoch, 1),
            hours=speeds.seconds(target) / 3600,
            speeds=speeds,
            cores=allowed_cores(),
            busy=busy_elsewhere(),
        )
