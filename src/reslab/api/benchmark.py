"""Measure what a model costs in each backend: time, memory, and what its answers lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from reslab.api.benchmark_rows import Benchmark, BenchmarkRow, Throughput
from reslab.api.benchmark_worker import EAGER, Measured, Setup, Worker, example_image
from reslab.api.display import OnEvent, showing
from reslab.api.test_sets import choose_images, resize_and_crop
from reslab.data.datasets import ImageSet
from reslab.data.location import parse_location
from reslab.deploy.backends import NAMES
from reslab.deploy.opening import is_exported
from reslab.errors import unknown_name
from reslab.evaluation.predict import match_classes
from reslab.evaluation.report import build_report, score_set
from reslab.evaluation.scoring import Reading, Scores
from reslab.evaluation.views import protocol_named
from reslab.models.model_file import model_file
from reslab.pretrained.locate import located
from reslab.runtime.device import has_bf16
from reslab.runtime.events import Callback, note, progress, start
from reslab.runtime.load import allowed_cores

ROUNDS = 5  # in which each row takes turns with the first
PERCENTILES = (50, 99)


def benchmark(
    models: str | Path | Sequence[str | Path],
    *,
    on: str | None = None,
    data: str | Path | None = None,
    backend: str = "auto",
    batches: Sequence[int] = (1, 16),
    images: int = 500,
    seconds: float = 3.0,
    on_event: OnEvent = "print",
) -> Benchmark:
    """Measure models in every backend installed, beside eager torch, on this machine's CPU.

    `models` are run folders, model files, names that `weights` lists, and exported files, which run
    in their own backend only. `backend` limits the others to one, beside eager torch. Each row has
    a process of its own, whose calls take turns with those of the first row. A measurement takes
    about `seconds`: one for a single image, and one for each size in `batches`. Errors and
    agreement are measured on at most `images` images of the set that `on` or `data` names, as in
    `evaluate`, or of the models' own test set.

    Raise ValueError for an unknown backend, if a model is a detector, or if its file is damaged.
    """
    given = [models] if isinstance(models, str | Path) else list(models)
    with showing(on_event) as callback:
        return run_benchmark(
            given, on=on, data=data, backend=backend, batches=batches,
            images=images, seconds=seconds, on_event=callback,
        )  # fmt: skip


def run_benchmark(
    models: Sequence[str | Path],
    *,
    on: str | None,
    data: str | Path | None,
    backend: str,
    batches: Sequence[int],
    images: int,
    seconds: float,
    on_event: Callback,
) -> Benchmark:
    """Do the work of `benchmark`."""
    check_numbers(models, batches, images, seconds)
    setups = list(setups_for([str(located(model)) for model in models], backend, on_event))
    chosen = choose_test_images(on, data, setups, on_event)
    on_event(start(len(setups), "rows"))
    measured = list(measure_rows(setups, batches, seconds, on_event))
    rows = [row for row, _ in measured]
    if chosen is not None:
        chosen = evenly(chosen, images)
        rows = with_answers(rows, setups, chosen, on_event)
    height, width = example_image(setups[0].open()).shape[:2]
    return Benchmark(
        rows=tuple(rows),
        image=(height, width),
        images=0 if chosen is None else len(chosen),
        set_name=None if chosen is None else chosen.name,
        cores=allowed_cores(),
        busy=float(np.mean([busy for _, busy in measured])),
    )


def check_numbers(
    models: Sequence[str | Path], batches: Sequence[int], images: int, seconds: float
) -> None:
    """Raise ValueError if there is no model, or if a number is impossible."""
    if not models:
        raise ValueError("no model given: name a run folder, a model file or an exported file")
    if not batches or min(batches) < 1:
        raise ValueError(f"`batches` {list(batches)}: sizes of at least 1, such as 1 and 16")
    if images < 1:
        raise ValueError(f"`images` {images}: at least 1")
    if not seconds > 0:
        raise ValueError(f"`seconds` {seconds}: more than 0")


def setups_for(models: Sequence[str], backend: str, on_event: Callback) -> Iterator[Setup]:
    """Yield what each row measures; eager torch first.

    A backend that is missing or cannot run a model is left out, with a note.
    """
    if backend not in NAMES:
        raise ValueError(unknown_name("backend", backend, NAMES))
    in_bf16 = has_bf16(torch.device("cpu"))
    for model in sorted(dict.fromkeys(models), key=is_exported):
        if is_exported(model):
            yield Setup(model, Setup(model, "auto").open().backend)
            continue
        Setup(model, EAGER).open()
        yield Setup(model, EAGER)
        names = NAMES[1:] if backend == "auto" else (backend,)
        for name, precision in product(names, ("fp32", "bf16") if in_bf16 else ("fp32",)):
            if (name, precision) == ("onnxruntime", "bf16"):
                continue  # it computes in fp32 on a CPU
            setup = Setup(model, name, precision)
            try:
                setup.open()
            except ValueError as error:
                on_event(note(f"{setup} is left out: {error}"))
                continue
            yield setup


def measure_rows(
    setups: Sequence[Setup], batches: Sequence[int], seconds: float, on_event: Callback
) -> Iterator[tuple[BenchmarkRow, float]]:
    """Time each setup in turns with the first; yield its row, and how many cores were busy."""
    with Worker(setups[0]) as first:
        for done, setup in enumerate(setups, 1):
            with nullcontext(first) if setup is setups[0] else Worker(setup) as other:
                pairs = {
                    batch: take_turns(first, other, batch, seconds / ROUNDS)
                    for batch in (None, *batches)
                }
                row = row_of(other, pairs)
            turns = [measured for rounds in pairs.values() for _, measured in rounds]
            yield row, float(np.mean([measured.busy for measured in turns]))
            on_event(progress(done))


def take_turns(
    first: Worker, other: Worker, batch: int | None, seconds: float
) -> list[tuple[Measured, Measured]]:
    """Measure two workers alternately, so that both see the same load of the machine."""
    if other is first:
        rounds = [first(batch, seconds) for _ in range(ROUNDS)]
        return list(zip(rounds, rounds, strict=True))
    return [(first(batch, seconds), other(batch, seconds)) for _ in range(ROUNDS)]


def row_of(
    worker: Worker, pairs: dict[int | None, list[tuple[Measured, Measured]]]
) -> BenchmarkRow:
    """Return the row of a worker, from its measurements beside the first row's."""
    alone = np.concatenate([measured.seconds for _, measured in pairs[None]])
    p50, p99 = np.percentile(alone, PERCENTILES) * 1000
    setup = worker.setup
    return BenchmarkRow(
        model=setup.model,
        backend=setup.backend,
        precision=setup.precision,
        first_answer=worker.first_answer,
        p50=p50.item(),
        p99=p99.item(),
        calls=len(alone),
        throughput=tuple(
            throughput(batch, rounds) for batch, rounds in pairs.items() if batch is not None
        ),
        memory=max(measured.memory for rounds in pairs.values() for _, measured in rounds),
        file_size=size_of(setup.model),
        resizes=worker.resizes,
    )


def throughput(batch: int, rounds: Sequence[tuple[Measured, Measured]]) -> Throughput:
    """Return the speed of the second worker of each round, and its ratio to the first's."""
    calls = np.concatenate([measured.seconds for _, measured in rounds])
    ratios = [np.median(first.seconds) / np.median(other.seconds) for first, other in rounds]
    return Throughput(batch, batch / np.median(calls).item(), np.median(ratios).item())


def size_of(model: str) -> int:
    """Return the size of a model's file, with the weights that OpenVINO keeps beside it."""
    file = Path(model) if is_exported(model) else model_file(model)
    beside = [file.with_suffix(".bin")] if file.suffix == ".xml" else []
    return sum(part.stat().st_size for part in (file, *beside))


def choose_test_images(
    on: str | None, data: str | Path | None, setups: Sequence[Setup], on_event: Callback
) -> ImageSet | None:
    """Open the set to test on; return None, with a note, if the models' own set is missing."""
    firsts = {setup.model: setup for setup in reversed(setups)}
    models = [(Path(setup.model), setup.open()) for setup in reversed(firsts.values())]
    try:
        images = choose_images(on, parse_location(data) if data else None, models, on_event)
    except ValueError as error:
        if on or data:
            raise
        on_event(note(f"errors are not measured: {error}"))
        return None
    for _, model in models:
        match_classes(images, model.classes, model.ids)  # raises an error before any work
    return images


def evenly(images: ImageSet, count: int) -> ImageSet:
    """Return at most `count` images, evenly spaced over a set that may be sorted by class."""
    if len(images) <= count:
        return images
    return images.take(images.name, torch.linspace(0, len(images) - 1, count).round().long())


@torch.no_grad()
def with_answers(
    rows: Sequence[BenchmarkRow], setups: Sequence[Setup], images: ImageSet, on_event: Callback
) -> list[BenchmarkRow]:
    """Add to each row its error on a set, and how often it gives the first row's answer."""
    completed: list[BenchmarkRow] = []
    expected: Scores | None = None
    classes = setups[0].open().classes
    for row, setup in zip(rows, setups, strict=True):
        model = setup.open()
        labelled, _ = match_classes(images, model.classes, model.ids)
        protocol = protocol_named("one-crop", *resize_and_crop(Path(setup.model), model, images))
        prepared = model.preprocessing
        scores = score_set(
            model, labelled, protocol, device=torch.device("cpu"), on_event=on_event,
            reading=Reading(prepared.interpolation, prepared.as_stored),
        )  # fmt: skip
        expected = expected or scores
        comparable = len(labelled) == len(images) and model.classes == classes
        agreement = agreement_of(scores, expected) if comparable else None
        error = build_report(scores, labelled, str(protocol)).top1_error
        completed.append(replace(row, top1_error=error, agreement=agreement))
    return completed


def agreement_of(scores: Scores, expected: Scores) -> float:
    """Return the percentage of images with the same most probable class."""
    rows = scores.log_probabilities.isfinite().all(1)
    same = scores.log_probabilities.argmax(1) == expected.log_probabilities.argmax(1)
    return 100 * same[rows].float().mean().item()
