"""The steps of `gpu.py` that train whole runs: repeated and interrupted ones, and Table 6."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gpu_setting import CPU, Notes, Setting, available_engines, cifar_recipe, pattern_sets
from reslab.data.datasets import ImagesInMemory, MemorySplits
from reslab.evaluation.report import Report, build_report, score_set
from reslab.evaluation.scoring import Scores
from reslab.evaluation.views import OneCrop
from reslab.models.batchnorm import in_bf16, recompute_statistics
from reslab.models.model_file import Model
from reslab.runtime.device import setup_device
from reslab.runtime.events import Event
from reslab.training.recipe import Recipe
from reslab.training.run import Interrupted, Stop
from reslab.training.setup import inputs_at
from reslab.training.train import Job, begin_classification, train, train_in_folder
from reslab.training.weights import load_classifier

SAVING = 8.0  # seconds before the end at which the last run is asked to stop
RUNS = "runs"  # the folder of Table 6's runs
# bounds, in natural logarithms of probabilities, and relative ones of statistics
EQUAL, ROUNDED, STATISTICS = 1e-4, 0.5, 1e-4
Callback = Callable[[Event], None]


class PowerCut(Exception):
    """Ends a run as a crash would: nothing is saved."""


def stop_at(calls: int) -> Stop:
    """Return a function that asks a run to stop, with a checkpoint, at its `calls`-th call."""
    numbers = count(1)
    return lambda: signal.SIGTERM if next(numbers) == calls else None


def crash_at(calls: int) -> Stop:
    """Return a function that ends a run at its `calls`-th call without saving anything."""
    numbers = count(1)

    def stop() -> None:
        if next(numbers) == calls:
            raise PowerCut

    return stop


def short_recipe(setting: Setting, engine: str) -> Recipe:
    """Return the recipe of a short run, which is evaluated once on the way."""
    length = setting.sizes.iterations
    return cifar_recipe(
        20, engine, f"iterations={length}", f"batch_size={setting.sizes.batch}",
        f"eval_every={length // 2}", f"checkpoint_every={max(length // 4, 1)}",
        "recompute_bn=10", "precision=bf16",
    )  # fmt: skip


def run(
    run_recipe: Recipe, out: Path, sets: MemorySplits, on_event: Callback, seed: int = 1,
    stop: Stop = lambda: None,
) -> Event:  # fmt: skip
    """Train on sets in memory, as `reslab train` does on those in a folder; return the result."""
    device = setup_device(run_recipe.precision)
    job = Job(run_recipe, out, inputs_at(None), device, seed, on_event, stop)
    return train_in_folder(job, partial(begin_classification, sets=sets))


def logging(notes: Notes) -> Callback:
    """Return a callback that logs notes for the user."""
    return lambda event: notes.log(event["text"]) if event["kind"] == "note" else None


def runs(setting: Setting, notes: Notes) -> None:
    """Repeat, stop and crash a run, and train it with another seed, by each engine."""
    sets, length = pattern_sets(setting.sizes), setting.sizes.iterations
    for engine in available_engines(setting):
        part = partial(run, short_recipe(setting, engine), sets=sets, on_event=logging(notes))
        where = setting.out / "short" / engine
        shutil.rmtree(where, ignore_errors=True)  # of an earlier call
        one, again, other = (
            part(where / name, seed=seed) for name, seed in (("one", 1), ("again", 1), ("other", 2))
        )
        for name, stop in {"stopped": stop_at, "crashed": crash_at}.items():
            with suppress(Interrupted, PowerCut):
                part(where / name, stop=stop(length // 2 + 1))
            assert not (where / name / "result.json").exists()
        resumed = {name: part(where / name) for name in ("stopped", "crashed")}
        bits = one["state_sha256"]
        for name, result in {"repeated": again, **resumed}.items():
            same = result["state_sha256"] == bits
            notes.check(f"run by {engine}, {name}: the same bits", same, bits[:12])
        differ = other["state_sha256"] != bits
        notes.check(f"run by {engine}, seed 2: other bits", differ, other["state_sha256"][:12])
        errors = [result["evaluation"][-1]["top1_error"] for result in (one, other)]
        notes.fact(f"run by {engine}: test error of two seeds", errors)
        for checkpoints in where.glob("*/checkpoints"):
            shutil.rmtree(checkpoints)  # most of what would be copied from the machine


def evaluated(model: Model, images: ImagesInMemory, place: torch.device) -> tuple[Report, Scores]:
    """Evaluate a model on a device."""
    protocol = OneCrop(model.preprocessing.resize, model.preprocessing.size)
    scores = score_set(model.to(place), images.to(place), protocol, device=place)
    return build_report(scores, images.to(CPU), str(protocol)), scores


def evaluation(setting: Setting, notes: Notes) -> None:
    """Evaluate a model on the GPU and on the CPU, and in bf16; recompute its statistics on both."""
    sets = pattern_sets(setting.sizes)
    folder = setting.out / "short" / "torch" / "one"
    run(short_recipe(setting, "torch"), folder, sets, logging(notes))  # only if it is not there yet
    model = load_classifier(folder)
    report, scores = evaluated(model, sets.test, setting.device)
    on_cpu, exact = evaluated(model, sets.test, CPU)
    errors = [report.top1_error, on_cpu.top1_error]
    notes.check("evaluation on GPU and CPU: errors", errors[0] == errors[1], errors)
    what = "evaluation on GPU and CPU: log-probabilities"
    notes.within(what, apart(scores, exact), EQUAL)
    _, rounded = evaluated(in_bf16(model.to(setting.device)), sets.test, setting.device)
    what = "evaluation in bf16 and fp32: log-probabilities"
    notes.within(what, apart(rounded, exact), ROUNDED)
    statistics = [recomputed(load_classifier(folder).to(place), sets.train, place)
                  for place in (setting.device, CPU)]  # fmt: skip
    difference = ((statistics[0] - statistics[1]).abs() / statistics[1].abs().max()).max().item()
    notes.within("statistics recomputed on GPU and CPU", difference, STATISTICS)


def apart(scores: Scores, others: Scores) -> float:
    """Return the largest difference of log-probabilities."""
    pair = scores.log_probabilities.cpu(), others.log_probabilities.cpu()
    return (pair[0] - pair[1]).abs().max().item()


def recomputed(model: Model, images: ImagesInMemory, place: torch.device) -> torch.Tensor:
    """Recompute the batch-norm statistics of a model over a set, and return all of them."""
    batches = model.preprocessing(images.images.to(place)).split(64)
    recompute_statistics(model.net, (model.net(batch) for batch in batches))
    buffers = [each.cpu() for each in model.net.buffers() if each.is_floating_point()]
    return torch.cat([each.flatten() for each in buffers])


def table_6(depth: int) -> Callable[[Setting, Notes], None]:
    """Return a step that trains one of the paper's recipes, or continues its run.

    The step raises Interrupted, with a checkpoint saved, when its time is up.
    """

    def work(setting: Setting, notes: Notes) -> None:
        engine = available_engines(setting)[-1]
        run_recipe = cifar_recipe(depth, engine, *setting.sizes.recipe)
        out = setting.out / RUNS / f"{run_recipe.name}-seed1"
        facts: dict[str, Any] = {"what": run_recipe.name, "depth": depth, "engine": engine}
        facts |= {"of": run_recipe.iterations, "milliseconds": None, "sha256": None}
        begun = time.monotonic()

        def on_event(event: Event) -> None:
            if event["kind"] == "eval":
                record(event["iteration"], None, event["top1_error"])
            logging(notes)(event)

        def record(iterations: int, seconds: float | None, test_error: float) -> None:
            wall = time.monotonic() - begun
            notes.add("run", **facts, iterations=iterations, seconds=seconds, wall=wall,
                      test_error=test_error)  # fmt: skip

        def stop() -> int | None:
            return signal.SIGTERM if time.time() > setting.end - SAVING else None

        if setting.data is None:  # a rehearsal
            sets = pattern_sets(setting.sizes)
            result = run(run_recipe, out, sets, on_event, stop=stop)
        else:
            place = str(setting.data)
            result = train(run_recipe, out, data=place, on_event=on_event, stop=stop)
        facts["sha256"] = result["weights_sha256"]
        facts["milliseconds"] = 1e3 * run_recipe.batch_size / median(speeds(out))
        error = result["evaluation"][-1]["top1_error"]
        record(result["iterations"], result["seconds"], error)

    return work


def speeds(out: Path) -> list[float]:
    """Return the images per second in the log of a run."""
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [row["images_per_second"] for row in rows if row["kind"] == "train"]
