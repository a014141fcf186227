"""Evaluate classifiers, detectors and files of detections on a test set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from reslab.api.import_weights import name_outputs
from reslab.api.test_sets import (
    LoadedDetector,
    LoadedModel,
    choose_annotated_images,
    choose_images,
    open_annotations,
    resize_and_crop,
)
from reslab.data.boxes.sets import DetectionSet
from reslab.data.datasets import ImageSet
from reslab.data.location import Location, parse_location
from reslab.detection.average_precision.measure import AveragePrecision, measure
from reslab.detection.average_precision.results import read_results
from reslab.detection.inference import Detector, detect_set
from reslab.detection.predict import is_detector, load_detector
from reslab.detection.recipe import InferenceConfig
from reslab.errors import unknown_name
from reslab.evaluation.mistakes import worst_mistakes
from reslab.evaluation.predict import match_classes
from reslab.evaluation.report import Report, build_report, score_set
from reslab.evaluation.score_cache import ScoreCache, digest_set, score_cache_of
from reslab.evaluation.scoring import Scores, ensemble
from reslab.evaluation.views import protocol_named
from reslab.models.batchnorm import in_bf16
from reslab.models.model_file import Model, load_model
from reslab.runtime.device import setup_device
from reslab.runtime.events import Callback, counter, note, silent, start
from reslab.runtime.threads import usable_cores

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Evaluation:
    """The results for one model, an ensemble, or a file of detections."""

    title: str
    subject: dict[str, Any]  # what was evaluated, for JSON
    report: Report | AveragePrecision

    def as_dict(self) -> dict[str, Any]:
        return self.subject | self.report.as_dict() | self.report.details()


# evaluations on one set, and a function that writes a page on them to a folder and returns its path
Evaluations = tuple[list[Evaluation], Callable[[Path], Path]]


def evaluate(
    models: Sequence[Path],
    *,
    on: str | None = None,
    data: str | None = None,
    protocol: str | None = None,
    precision: str = "fp32",
    keep_scores: bool = False,
    classes: Path | None = None,
    refine: bool = False,
    scales: Sequence[int] | None = None,
    on_event: Callback = silent,
) -> Evaluations:
    """Evaluate models on a set, each image exactly once; several models also as an ensemble.

    `models` are run folders or model files of classifiers, or of detectors, or .json files of
    detections in COCO's results format. `on` names a set, `data` is a folder or a URL; if both are
    None, models are evaluated on their own test set.
    """
    place = parse_location(data) if data else None
    for_classifiers = {
        "--precision": precision != "fp32",
        "--keep-scores": keep_scores,
        "--classes": classes,
    }
    changes = {name: value for name, value in (("refine", refine), ("scales", scales)) if value}
    for_detectors = {f"--{name}": value for name, value in changes.items()}
    if any(is_detections(path) for path in models):
        refuse_options(for_classifiers | for_detectors | {"--on": on}, "files of detections")
        return evaluate_detections(models, place, protocol)
    if all_detectors(models):
        refuse_options(for_classifiers, "detectors")
        return evaluate_detectors(models, on, place, protocol, changes, on_event)
    refuse_options(for_detectors, "classifiers")
    loaded = load_classifiers(models, precision, classes)
    return evaluate_classifiers(loaded, on, place, protocol or "one-crop", keep_scores, on_event)


def refuse_options(options: Mapping[str, object], what: str) -> None:
    """Raise ValueError if any of `options` is given, since none applies to `what`."""
    for option, value in options.items():
        if value:
            raise ValueError(f"{option} does not go with {what}")


def is_detections(path: Path) -> bool:
    """Return whether a path names a file of detections; the file may be missing."""
    return path.suffix == ".json"


def all_detectors(models: Sequence[Path]) -> bool:
    """Return whether the models are detectors; raise ValueError if only some of them are."""
    kinds = {is_detector(path): path for path in models}
    if len(kinds) > 1:
        raise ValueError(
            f"{kinds[True]} is a detector, {kinds[False]} is not: evaluate them one at a time"
        )
    return True in kinds


def load_classifiers(
    paths: Sequence[Path], precision: str, classes: Path | None
) -> list[LoadedModel]:
    """Load classifiers with equal classes; the file `classes`, if given, names the outputs.

    Raises ValueError if the models' classes differ.
    """
    models = [(path, set_precision(load_model(path), precision)) for path in paths]
    if classes:
        models = [(path, name_outputs(model, classes)) for path, model in models]
    first, expected = models[0]
    for path, model in models[1:]:
        by_id = bool(expected.ids and model.ids)  # names may then repeat, or differ in spelling
        if expected.ids != model.ids if by_id else expected.classes != model.classes:
            raise ValueError(
                f"{path} knows other classes than {first}: their scores cannot be averaged; "
                "evaluate them one at a time"
            )
    return models


def set_precision(model: Model, precision: str) -> Model:
    """Return a model that computes in fp32 (unchanged) or in bf16."""
    if precision not in PRECISIONS:
        raise ValueError(unknown_name("precision", precision, PRECISIONS))
    return in_bf16(model) if precision == "bf16" else model


def evaluate_classifiers(
    models: Sequence[LoadedModel],
    on: str | None,
    data: Location | None,
    protocol: str,
    keep_scores: bool,
    on_event: Callback,
) -> Evaluations:
    """Evaluate classifiers one by one and, if there are several, their mean probabilities."""
    device = setup_device("fp32").torch_device
    opened = choose_images(on, data, models, on_event)
    protocols = [protocol_named(protocol, *resize_and_crop(*model, opened)) for model in models]
    images, unmatched = match_classes(opened, models[0][1].classes, models[0][1].ids)
    for line in unmatched:
        on_event(note(f"{line}; its images are left out"))
    caches = [score_cache_of(*model, keep_scores) for model in models]
    if any(cache.in_use for cache in caches):
        caches = with_digest(caches, images, on_event)
    entries, scores = [], []
    for (path, model), views, cache in zip(models, protocols, caches, strict=True):
        on_event(start(len(images), "images"))
        scores.append(
            score_set(
                model.to(device), images, views, device=device, on_event=on_event, score_cache=cache
            )
        )
        report = build_report(scores[-1], images, str(views))
        entries.append(Evaluation(str(path), {"model": str(path)}, report))
    if len(models) > 1:
        scores.append(ensemble(scores))
        report = build_report(scores[-1], images, " + ".join(dict.fromkeys(map(str, protocols))))
        subject = {"models": [str(path) for path, _ in models]}
        entries.append(Evaluation(f"mean of {len(models)} models", subject, report))
    return entries, partial(write_mistakes, entries, scores, images)


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


def evaluate_detections(
    files: Sequence[Path], data: Location | None, protocol: str | None
) -> Evaluations:
    """Measure files of detections, in COCO's results format, against the boxes in `data`."""
    for file in files:
        if not is_detections(file):
            raise ValueError(f"{file} is no .json of detections: evaluate models by themselves")
    if data is None:
        raise ValueError("--data: which annotations? a COCO or VOC folder, or an instances.json")
    images, usual = open_annotations(data)
    detections = [read_results(file, images) for file in files]
    measured = [
        (str(file), measure(images, rows, protocol or usual))
        for file, rows in zip(files, detections, strict=True)
    ]
    return precision_evaluations("detections", measured)


def evaluate_detectors(
    models: Sequence[Path],
    on: str | None,
    data: Location | None,
    protocol: str | None,
    changes: Mapping[str, object],
    on_event: Callback,
) -> Evaluations:
    """Evaluate detectors one by one and, if there are several, as an ensemble (App. B)."""
    device = setup_device("fp32").torch_device
    loaded = [(path, load_detector(path).to(device)) for path in models]
    configs = [detector.search.with_changes(changes) for _, detector in loaded]
    check_detectors_agree(loaded, configs)
    images, usual = choose_annotated_images(on, data, loaded, on_event)
    tested = [(str(path), [detector]) for path, detector in loaded]
    if len(loaded) > 1:
        together = [detector for _, detector in loaded]
        tested.append((f"ensemble of {len(loaded)} detectors", together))
    measured = [
        (title, measure_detectors(detectors, images, configs[0], protocol or usual, on_event))
        for title, detectors in tested
    ]
    return precision_evaluations("model", measured)


def check_detectors_agree(
    models: Sequence[LoadedDetector], configs: Sequence[InferenceConfig]
) -> None:
    """Raise ValueError if the detectors of an ensemble differ in classes or inference settings."""
    first, expected = models[0]
    for path, detector in models[1:]:
        if (detector.ids, detector.classes) != (expected.ids, expected.classes):
            raise ValueError(
                f"{path} knows other classes than {first}: they cannot be taken together; "
                "evaluate them one at a time"
            )
    for (path, _), config in zip(models, configs, strict=True):
        if config != configs[0]:
            raise ValueError(
                f"{path} searches images otherwise than {first}: they cannot be taken "
                "together; evaluate them one at a time"
            )


def measure_detectors(
    detectors: Sequence[Detector],
    images: DetectionSet,
    config: InferenceConfig,
    protocol: str,
    on_event: Callback,
) -> AveragePrecision:

    on_item = counter(len(images), "images", on_event)
    decoded, detections = detect_set(detectors, images, config, on_item)
    return measure(decoded, detections, protocol)


def precision_evaluations(
    what: str, measured: Sequence[tuple[str, AveragePrecision]]
) -> Evaluations:
    from reslab.studies.page.detectors import write_precision

    entries = [Evaluation(title, {what: title}, precision) for title, precision in measured]
    return entries, partial(write_precision, measured)
