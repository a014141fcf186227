"""Evaluate classifiers, detectors and files of detections on a test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from reslab.api.display import OnEvent, showing
from reslab.api.evaluate_detectors import evaluate_detections, evaluate_detectors, is_detections
from reslab.api.import_weights import name_outputs
from reslab.api.models import (
    AnyModel,
    LoadedModel,
    as_list,
    holds_detector,
    open_classifier,
    path_of,
    set_precision,
)
from reslab.api.results import Evaluation, Evaluations
from reslab.api.test_sets import choose_images, resize_and_crop
from reslab.data.datasets import EncodedImages, ImageSet, ImagesInMemory
from reslab.data.location import Location, parse_location
from reslab.evaluation.fuse import model_for_inference
from reslab.evaluation.mistakes import worst_mistakes
from reslab.evaluation.predict import match_classes
from reslab.evaluation.report import build_report, score_set
from reslab.evaluation.score_cache import ScoreCache, digest_set, score_cache_of
from reslab.evaluation.scoring import Reading, Scores, ensemble
from reslab.evaluation.views import must_be_one_crop, protocol_named
from reslab.models.model_file import Model
from reslab.runtime.device import setup_device
from reslab.runtime.events import Callback, note, start
from reslab.runtime.threads import usable_cores


def evaluate(
    models: AnyModel | Sequence[AnyModel],
    *,
    on: str | None = None,
    data: str | Path | ImageSet | None = None,
    protocol: str | None = None,
    precision: str = "fp32",
    backend: str = "auto",
    keep_scores: bool = False,
    classes: str | Path | None = None,
    refine: bool = False,
    scales: Sequence[int] = (),
    on_event: OnEvent = "print",
) -> Evaluations:
    """Evaluate models on a test set, each image exactly once; several models also as an ensemble.

    `models` are run folders, model files, exported files or loaded models, all of them classifiers
    or all of them detectors; or .json files of detections in COCO's results format. They are tested
    on their own test set, or on the set that `on` names, or on `data`: a folder, a URL, or for
    classifiers a set of images.

    `protocol` is "one-crop", "ten-crop" or "multi-scale" for classifiers, optionally with sizes
    ("ten-crop:256-224"), and "coco", "voc-2007" or "voc-2012" for detectors. Classifiers only:
    `precision` is "fp32" or "bf16", `backend` is as in `load`, `keep_scores` stores the scores of
    every view beside the model, and `classes` is a file that names the outputs. Detectors only:
    `refine` and `scales`, shorter sides in pixels, are the box refinement and the multi-scale
    testing of App. B.

    Raise ValueError for an argument that does not apply, for models that cannot be combined, and
    if the set cannot be read.
    """
    with showing(on_event) as callback:
        return run_evaluation(
            as_list(models), on=on, data=data, protocol=protocol, precision=precision,
            backend=backend, keep_scores=keep_scores, classes=Path(classes) if classes else None,
            refine=refine, scales=scales, on_event=callback,
        )  # fmt: skip


def run_evaluation(
    models: Sequence[AnyModel],
    *,
    on: str | None,
    data: str | Path | ImageSet | None,
    protocol: str | None,
    precision: str,
    backend: str,
    keep_scores: bool,
    classes: Path | None,
    refine: bool,
    scales: Sequence[int],
    on_event: Callback,
) -> Evaluations:
    """Do the work of `evaluate`."""
    for_classifiers = {
        "precision": precision != "fp32",
        "backend": backend != "auto",
        "keep_scores": keep_scores,
        "classes": classes,
    }
    changes = {name: value for name, value in (("refine", refine), ("scales", scales)) if value}
    device = setup_device("fp32").torch_device
    if any(is_detections(model) for model in models):
        refuse_arguments(for_classifiers | changes | {"on": on}, "files of detections")
        files = list(map(path_of, models))
        return evaluate_detections(files, folder_or_url(data), protocol, on_event)
    if all_detectors(models):
        refuse_arguments(for_classifiers, "detectors")
        place = folder_or_url(data)
        return evaluate_detectors(models, on, place, protocol, changes, device, on_event)
    refuse_arguments(changes, "classifiers")
    loaded = load_classifiers(models, precision, backend, classes, device)
    images = choose_set(on, data, loaded, on_event)
    return evaluate_classifiers(loaded, images, protocol or "one-crop", keep_scores, on_event)


def refuse_arguments(arguments: Mapping[str, object], what: str) -> None:
    """Raise ValueError if any of `arguments` is given, since none applies to `what`."""
    for name, value in arguments.items():
        if value:
            raise ValueError(f"`{name}` does not apply to {what}")


def folder_or_url(data: str | Path | ImageSet | None) -> Location | None:
    """Parse the location of annotated images; raise ValueError if it is a set of images."""
    if isinstance(data, ImagesInMemory | EncodedImages):
        raise ValueError(
            f"`data`: a detector is tested on a folder; the set {data.name} has no boxes"
        )
    return parse_location(data) if data else None


def choose_set(
    on: str | None,
    data: str | Path | ImageSet | None,
    models: Sequence[LoadedModel],
    on_event: Callback,
) -> ImageSet:
    """Return the set to test classifiers on; `data` may already be one."""
    if isinstance(data, ImagesInMemory | EncodedImages):
        refuse_arguments({"on": on}, "a set given as data")
        return data
    return choose_images(on, parse_location(data) if data else None, models, on_event)


def all_detectors(models: Sequence[AnyModel]) -> bool:
    """Return whether the models are detectors; raise ValueError if only some of them are."""
    kinds = {holds_detector(model): path_of(model) for model in models}
    if len(kinds) > 1:
        raise ValueError(
            f"{kinds[True]} is a detector, {kinds[False]} is not: evaluate them one at a time"
        )
    return True in kinds


def load_classifiers(
    given: Sequence[AnyModel],
    precision: str,
    backend: str,
    classes: Path | None,
    device: torch.device,
) -> list[LoadedModel]:
    """Load classifiers with equal classes; the file `classes`, if given, names the outputs.

    Raise ValueError if the models' classes differ.
    """
    loaded = [open_classifier(model, device, backend) for model in given]
    models = [(path, set_precision(model, precision)) for path, model in loaded]
    if classes:
        models = [(path, name_outputs(model, classes)) for path, model in models]
    first, expected = models[0]
    for path, model in models[1:]:
        by_id = bool(expected.ids and model.ids)  # names may then repeat, or differ in spelling
        if expected.ids != model.ids if by_id else expected.classes != model.classes:
            raise ValueError(
                f"{path} has different classes from {first}: their scores cannot be averaged; "
                "evaluate them one at a time"
            )
    return models


def must_have_named_outputs(model: Model, images: EncodedImages) -> None:
    """Raise ValueError if a model's outputs were never named, only numbered."""
    if not model.has_names:
        raise ValueError(
            f"no class of {images.name} matches an output of the model: its outputs were never "
            f"named, only numbered 0 to {len(model.classes) - 1}; name them with a file of "
            "`classes`"
        )


def evaluate_classifiers(
    models: Sequence[LoadedModel],
    opened: ImageSet,
    protocol: str,
    keep_scores: bool,
    on_event: Callback,
) -> Evaluations:
    """Evaluate classifiers one by one and, if there are several, their mean probabilities."""
    if any(model.resizes for _, model in models):
        must_be_one_crop(protocol)
    protocols = [protocol_named(protocol, *resize_and_crop(*model, opened)) for model in models]
    if isinstance(opened, EncodedImages):
        must_have_named_outputs(models[0][1], opened)
    images, unmatched = match_classes(opened, models[0][1].classes, models[0][1].ids)
    for line in unmatched:
        on_event(note(f"{line}; its images are left out"))
    for path, model in models:
        if model.preprocessing.as_stored and isinstance(images, EncodedImages):
            on_event(
                note(
                    f"{path.name}: images are read as stored, as for its published error; "
                    "otherwise reslab turns them upright"
                )
            )
    caches = [score_cache_of(*model, keep_scores) for model in models]
    if any(cache.in_use for cache in caches):
        caches = with_digest(caches, images, on_event)
    entries, scores = [], []
    for (path, model), views, cache in zip(models, protocols, caches, strict=True):
        on_event(start(len(images), "images"))
        prepared = model.preprocessing
        scores.append(
            score_set(
                model_for_inference(model), images, views,
                device=prepared.std.device, on_event=on_event, score_cache=cache,
                reading=Reading(prepared.interpolation, prepared.as_stored),
            )
        )  # fmt: skip
        report = build_report(scores[-1], images, str(views))
        if not math.isfinite(report.loss):
            raise RuntimeError(f"{path}: the network's scores are NaN: its weights are unusable")
        entries.append(Evaluation(str(path), {"model": str(path)}, report))
    if len(models) > 1:
        scores.append(ensemble(scores))
        report = build_report(scores[-1], images, " + ".join(dict.fromkeys(map(str, protocols))))
        subject: dict[str, str | list[str]] = {"models": [str(path) for path, _ in models]}
        entries.append(Evaluation(f"mean of {len(models)} models", subject, report))
    return Evaluations(tuple(entries), partial(write_mistakes, entries, scores, images))


def with_digest(
    caches: Sequence[ScoreCache], images: ImageSet, on_event: Callback
) -> list[ScoreCache]:
    """Return the caches with the digest of the images, by which they find their scores."""
    digest = digest_set(images, usable_cores(), on_event)
    return [replace(cache, images=digest) for cache in caches]


def write_mistakes(
    entries: Sequence[Evaluation], scores: Sequence[Scores], images: ImageSet, out: Path
) -> Path:
    """Write the page on the images that the models misclassified; return its path."""
    from reslab.studies.page.classifiers import write_evaluations

    return write_evaluations(
        [
            (
                entry.title,
                entry.report.as_dict() | entry.report.details(),
                worst_mistakes(member.log_probabilities, images.labels, images),
            )
            for entry, member in zip(entries, scores, strict=True)
        ],
        out,
    )
