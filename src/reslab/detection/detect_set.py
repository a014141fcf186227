"""Detect the objects in a set of images, with the set's labels."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.data.class_names import ClassIndex
from reslab.data.decode import BadImage, ScaledImage
from reslab.detection.inference import (
    AnyDetector,
    Detector,
    detect_objects,
    detect_with_ensemble,
    prepare_for_inference,
)
from reslab.detection.recipe import InferenceConfig
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.threads import cores_for, map_in_order

IMAGES_AHEAD = 8  # images decoded ahead of the detector; few, since they are held at full size

Source = TypeVar("Source")


def detect_set(
    detectors: Sequence[AnyDetector],
    images: DetectionSet,
    search: InferenceConfig,
    on_progress: Callable[[str | None], None] = lambda line: None,
    processes: Processes = SingleProcess(),
    check_stop: Callable[[], None] = lambda: None,
) -> tuple[DetectionSet, list[Detections]]:
    """Detect the objects in each image of a set, with one detector or an ensemble.

    An ensemble has no exported detectors, since they do not take proposals.
    Return the images that could be decoded and the detections in each, with the set's labels. Raise
    ValueError if no image can be decoded or the detectors lack a class of the set.
    The images are distributed over the processes, and every process returns all detections.
    `on_progress` is called after each image, with a message if the image is bad, else with None.
    `check_stop` is called once per image, equally often in every process, and may raise an
    exception to stop.
    """
    labels = labels_in(detectors[0], images)
    detect = ready_to_detect(detectors, search)
    results: dict[int, Detections | str] = {}  # of this process: index -> detections or error
    indices = range(processes.rank, len(images), processes.count)
    decoded = decode_ahead(images.scaled_image, indices, cores_for(processes))
    for index, image in zip(indices, decoded, strict=True):
        check_stop()
        if isinstance(image, BadImage):
            results[index] = line = f"{image}; left out"
            on_progress(line)
            continue
        detections = detect(image.pixels).scaled(*image.ratio)
        known = detections.take(labels[detections.labels] >= 0)
        results[index] = replace(known, labels=labels[known.labels])
        on_progress(None)
    if processes.rank >= len(images) % processes.count > 0:
        check_stop()  # other processes have one more image
    gathered = [item for part in processes.all_gather_objects(results) for item in part.items()]
    good: dict[int, Detections] = {}
    for index, result in sorted(gathered, key=lambda item: item[0]):
        if not isinstance(result, str):
            good[index] = result
        elif index not in results:
            on_progress(result)
    if not good:
        raise ValueError(f"no image of {images.name} can be decoded")
    if len(good) < len(images):
        images = images.take(images.name, torch.tensor(list(good)))
    return images, list(good.values())


def ready_to_detect(
    detectors: Sequence[AnyDetector], search: InferenceConfig
) -> Callable[[np.ndarray], Detections]:
    """Return a function that detects the objects in an image, RGB uint8 [H, W, 3]."""
    own = [prepare_for_inference(each) for each in detectors if isinstance(each, Detector)]
    if own:
        assert len(own) == len(detectors)
        return partial(detect_with_ensemble, own, search=search)
    (exported,) = detectors
    return partial(detect_objects, exported, search=search)


def decode_ahead(
    load: Callable[[Source], ScaledImage], sources: Iterable[Source], threads: int
) -> Iterator[ScaledImage | BadImage]:
    """Decode images ahead of time in threads; yield the error in place of a bad image."""

    def load_or_error(source: Source) -> ScaledImage | BadImage:
        try:
            return load(source)
        except BadImage as error:
            return error

    with closing(map_in_order(load_or_error, sources, threads, IMAGES_AHEAD)) as images:
        yield from images


def labels_in(detector: AnyDetector, images: DetectionSet) -> Tensor:
    """Map each class of a detector to the set's label, int64 [classes]; -1 if the set lacks it.

    Classes are matched by id and name if the detector has every (id, name) pair of the set, else by
    name alone, since most COCO folders number categories from 1. Raise ValueError if the detector
    lacks a class of the set.
    """
    detector_classes = list(zip(detector.ids, detector.classes, strict=True))
    set_classes = list(zip(images.ids, images.classes, strict=True))
    if set(detector_classes) >= set(set_classes):
        return positions(detector_classes, set_classes)
    index = ClassIndex(detector.classes)
    labels = index.match([(name,) for name in images.classes])
    for name, label in zip(images.classes, labels, strict=True):
        if label < 0:
            raise ValueError(
                f"the detector lacks a class of {images.name}: no class {name!r}"
                f"{index.hint(name) or '; available: ' + ', '.join(detector.classes)}"
            )
    return positions(range(len(detector.classes)), labels)


def positions(items: Sequence[Hashable], listed: Sequence[Hashable]) -> Tensor:
    """Return the index of each item in `listed`, int64 [items]; -1 if it is not listed."""
    places = {item: position for position, item in enumerate(listed)}
    return torch.tensor([places.get(item, -1) for item in items], dtype=torch.int64)
