"""`reslab evaluate`"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.chosen import computing_in, numbers_for, test_images
from reslab.cli.console import counting, print_json, print_line, print_table, to_stderr, warn
from reslab.cli.evaluate_detections import evaluate_detections, is_detections
from reslab.cli.evaluate_detectors import evaluate_detectors
from reslab.cli.files import numbers_in
from reslab.cli.import_ import named_by

if TYPE_CHECKING:
    from reslab.data.datasets import ImageSet
    from reslab.data.location import Location
    from reslab.evaluation.report import Report
    from reslab.evaluation.score_cache import ScoreCache
    from reslab.evaluation.scoring import Scores
    from reslab.models.model_file import Model
    from reslab.runtime.events import Callback, Event

    Entry = tuple[str, dict[str, Any], Report, Scores]  # a title, its JSON, the report


LISTED = 20  # classes at most; of more, the worst ones
WORST = 10


def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Run folders or model files of classifiers or of detectors; several: together. "
            "Or .json files of detections.",
        ),
    ],
    on: Annotated[
        str | None,
        typer.Option(help="digits, cifar10 or digit-scenes; else the model's own set."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder of images by class, of shards, of CIFAR-10, COCO, VOC; or a URL of "
            "shards."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="one-crop, ten-crop, multi-scale; with numbers, ten-crop:256-224. "
            "Of boxes: coco, voc-2007, voc-2012."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16: faster.")] = "fp32",
    keep_scores: Annotated[
        bool, typer.Option("--keep-scores", help="Keep the scores of every view with the model.")
    ] = False,
    classes: Annotated[
        Path | None,
        typer.Option(help="Names of the outputs: .csv of index,id,name, or .txt, one a line."),
    ] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="Of detectors: box refinement and voting (App. B).")
    ] = False,
    scales: Annotated[
        str | None,
        typer.Option(help="Of detectors: shorter sides to look at, as 400,600,800 (App. B)."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="A page of what went wrong, written there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list of reports.")] = False,
) -> None:
    """Test trained models on a test set, each image exactly once.

    Several models are reported one by one and as the mean of their probabilities. Scores that
    were kept are used wherever they are found; only what is missing is computed. Several detectors
    are an ensemble (App. B). Detections that were written to a file, as COCO writes results, are
    measured against the boxes in --data.
    """
    from reslab.data.location import parse_location

    place = parse_location(data) if data else None
    of_classifiers = {
        "--precision": precision != "fp32",
        "--keep-scores": keep_scores,
        "--classes": classes,
    }
    of_detectors = {"--refine": refine, "--scales": scales}
    if any(map(is_detections, models)):
        must_not_be_given(of_classifiers | of_detectors | {"--on": on}, "files of detections")
        evaluate_detections(models, place, protocol, page, as_json)
        return
    if all_detectors(models):
        must_not_be_given(of_classifiers, "detectors")
        sides = numbers_in(scales)
        changes = ({"refine": True} if refine else {}) | ({"scales": sides} if sides else {})
        evaluate_detectors(models, on, place, protocol, changes, page, as_json)
        return
    must_not_be_given(of_detectors, "classifiers")
    from reslab.models.model_file import load_model

    if page and page.exists() and not page.is_dir():
        raise ValueError(f"--report {page} is a file: name a folder")
    loaded = [(path, computing_in(precision, load_model(path))) for path in models]
    if classes:
        loaded = [(path, named_by(classes, model)) for path, model in loaded]
    must_share_classes(loaded)
    show(*reports_of(loaded, on, place, protocol or "one-crop", keep_scores), page, as_json)


def must_not_be_given(options: Mapping[str, object], what: str) -> None:
    """ValueError for an option, by its name, that what is evaluated knows nothing of."""
    for option, value in options.items():
        if value:
            raise ValueError(f"{option} does not go with {what}")


def all_detectors(models: Sequence[Path]) -> bool:
    """Whether detectors are meant; ValueError if classifiers are among them."""
    from reslab.detection.model import is_detector

    kinds = {is_detector(path): path for path in models}
    if len(kinds) > 1:
        raise ValueError(
            f"{kinds[True]} is a detector, {kinds[False]} is none: evaluate them one at a time"
        )
    return True in kinds


def show(images: "ImageSet", entries: "Sequence[Entry]", page: Path | None, as_json: bool) -> None:
    """The reports on standard output, and as a page where one is wanted."""
    if as_json:
        print_json([about | row.as_dict() | row.details() for _, about, row, _ in entries])
    else:
        for title, _, row, _ in entries:
            print_line(f"{title}  {row}")
        print_classes(entries[-1][2])
    if page:
        to_stderr(f"report: {write_mistakes_page(images, entries, page)}")


def write_mistakes_page(images: "ImageSet", entries: "Sequence[Entry]", out: Path) -> Path:
    """What the models got wrong, as a page; its path."""
    from reslab.evaluation.mistakes import worst_mistakes
    from reslab.studies.page.classifiers import write_evaluations

    return write_evaluations(
        [
            (
                title,
                row.as_dict() | row.details(),
                worst_mistakes(scores.log_probabilities, images.labels, images),
            )
            for title, _, row, scores in entries
        ],
        out,
    )


def reports_of(
    models: "Sequence[tuple[Path, Model]]",
    on: str | None,
    data: "Location | None",
    protocol: str,
    keep_scores: bool,
) -> "tuple[ImageSet, list[Entry]]":
    """The images, a report a model, and one of their mean where there are several."""
    from reslab.evaluation.predict import match_classes
    from reslab.evaluation.report import build_report, score_set
    from reslab.evaluation.score_cache import digest_set
    from reslab.evaluation.scoring import ensemble
    from reslab.evaluation.views import protocol_named
    from reslab.runtime.device import setup_device
    from reslab.runtime.threads import usable_cores

    device = setup_device("fp32")
    found = test_images(on, data, models)
    protocols = [protocol_named(protocol, *numbers_for(*it, found)) for it in models]
    images, lost = match_classes(found, models[0][1].classes, models[0][1].ids)
    for line in lost:
        warn(f"{line}; its images are left out")
    vaults = [score_cache_for(*it, keep_scores) for it in models]
    if any(score_cache.in_use for score_cache in vaults):  # read once for all models
        with listening(len(images)) as on_event:
            digest = digest_set(images, usable_cores(), on_event)
        vaults = [replace(vault, images=digest) for vault in vaults]
    entries, scores = [], []
    for (path, model), chosen, vault in zip(models, protocols, vaults, strict=True):
        with listening(len(images)) as on_event:
            scores.append(
                score_set(
                    model.to(device.torch_device), images, chosen,
                    device=device.torch_device, on_event=on_event,
                    score_cache=vault,
                )
            )  # fmt: skip
        made = build_report(scores[-1], images, str(chosen))
        entries.append((str(path), {"model": str(path)}, made, scores[-1]))
    if len(models) > 1:
        shown = " + ".join(dict.fromkeys(map(str, protocols)))
        about = {"models": [str(path) for path, _ in models]}
        mean = ensemble(scores)
        entries.append(
            (f"mean of {len(models)} models", about, build_report(mean, images, shown), mean)
        )
    return images, entries


@contextmanager
def listening(total: int) -> "Iterator[Callback]":
    """A listener for what an evaluation says, with a count of the images."""
    seen = 0
    with counting(total, "images") as count:

        def on_progress(row: "Event") -> None:
            nonlocal seen
            if row["kind"] == "note":
                warn(row["text"])
            elif row["kind"] == "bad":
                seen += 1
                count(f"{row['text']}; left out")
            while row["kind"] == "progress" and seen < row["done"]:
                seen += 1
                count(None)

        yield on_progress


def must_share_classes(models: "Sequence[tuple[Path, Model]]") -> None:
    """ValueError unless the outputs of all models mean the same."""
    first, known = models[0]
    for path, model in models[1:]:
        both = bool(known.ids and model.ids)  # then names may repeat, or be written otherwise
        if known.ids != model.ids if both else known.classes != model.classes:
            raise ValueError(
                f"{path} knows other classes than {first}: their scores cannot be averaged; "
                "evaluate them one at a time"
            )


def score_cache_for(path: Path, model: "Model", keep: bool) -> "ScoreCache":
    """Where the scores of a model are kept: in its run folder, or beside its file.

    Those in bf16 have a folder of their own, so neither replaces the other.
    """
    import torch

    from reslab.evaluation.score_cache import ScoreCache
    from reslab.runtime.files import sha256_of

    # the layout and the preprocessing decide as much as the weights do
    facts = f"{model.net.config.model_dump_json()} {json.dumps(model.preprocessing.facts())}"
    tensors = model.net.state_dict() | model.preprocessing.tensors()
    kind = "scores-bf16" if model.net.fc.weight.dtype == torch.bfloat16 else "scores"
    folder = path / kind if path.is_dir() else path.with_name(f"{path.name}.{kind}")
    return ScoreCache(folder, sha256_of(tensors | {facts: torch.empty(0)}), keep)


def print_classes(report: "Report") -> None:
    """Class by class, or the worst where there are many."""
    rows = report.per_class
    if len(rows) > LISTED:
        rows = sorted(rows, key=lambda row: -row["top1_error"])[:WORST]
    lines = [
        [
            row["class"],
            str(row["n"]),
            f"{row['top1_error']:.2f}",
            ", ".join(f"{name} ({count})" for name, count in row["taken_for"]),
        ]
        for row in rows
    ]
    if lines:
        print_table("class", "n", "top-1 error", "taken for", rows=lines)
    if len(rows) < len(report.per_class):
        print_line(f"the worst {len(rows)} of {len(report.per_class)} classes; --json has all")
