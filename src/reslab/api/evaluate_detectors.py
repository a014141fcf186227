"""Evaluate detectors, and files of detections, on images with boxes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from reslab.api.models import AnyModel, LoadedDetector, open_detector
from reslab.api.results import Evaluation, Evaluations
from reslab.api.test_sets import choose_annotated_images, open_annotations
from reslab.data.boxes.sets import DetectionSet
from reslab.data.location import Location
from reslab.detection.average_precision.measure import AveragePrecision, measure
from reslab.detection.average_precision.results import read_results
from reslab.detection.detect_set import detect_set
from reslab.detection.exported import ExportedDetector
from reslab.detection.inference import AnyDetector
from reslab.detection.recipe import InferenceConfig
from reslab.runtime.events import Callback, counter


def is_detections(model: AnyModel) -> bool:
    """Return whether a model is the path of a file of detections; the file may be missing."""
    return isinstance(model, str | Path) and Path(model).suffix == ".json"


def evaluate_detections(
    files: Sequence[Path], data: Location | None, protocol: str | None, on_event: Callback
) -> Evaluations:
    """Compute the average precision of files of detections, in COCO's results format."""
    for file in files:
        if not is_detections(file):
            raise ValueError(
                f"{file} is not a .json file of detections: evaluate models separately"
            )
    if data is None:
        raise ValueError(
            "`data`: which annotations? name a folder of images with boxes, or a COCO file"
        )
    images, usual = open_annotations(data)
    detections = [read_results(file, images, on_event) for file in files]
    measured = [
        (str(file), measure(images, rows, protocol or usual))
        for file, rows in zip(files, detections, strict=True)
    ]
    return precision_evaluations("detections", measured)


def evaluate_detectors(
    models: Sequence[AnyModel],
    on: str | None,
    data: Location | None,
    protocol: str | None,
    changes: Mapping[str, object],
    device: torch.device,
    on_event: Callback,
) -> Evaluations:
    """Evaluate detectors one by one and, if there are several, as an ensemble (App. B)."""
    loaded = [open_detector(model, device) for model in models]
    configs = [detector.search_with(changes) for _, detector in loaded]
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
    if len(models) == 1:
        return
    for path, detector in models:
        if isinstance(detector, ExportedDetector):
            raise ValueError(
                f"{path} is an exported detector, which cannot join an ensemble: evaluate it alone"
            )
    first, expected = models[0]
    for path, detector in models[1:]:
        if (detector.ids, detector.classes) != (expected.ids, expected.classes):
            raise ValueError(
                f"{path} has different classes from {first}: they cannot form an ensemble; "
                "evaluate them one at a time"
            )
    for (path, _), config in zip(models, configs, strict=True):
        if config != configs[0]:
            raise ValueError(
                f"{path} has different inference settings from {first}: they cannot form an "
                "ensemble; evaluate them one at a time"
            )


def measure_detectors(
    detectors: Sequence[AnyDetector],
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

    entries = tuple(Evaluation(title, {what: title}, precision) for title, precision in measured)
    return Evaluations(entries, partial(write_precision, measured))
