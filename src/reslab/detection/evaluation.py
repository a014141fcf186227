"""Detectors over a whole set: what they find in each image, and how good that is."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.data.decode import BadImage
from reslab.detection.inference import detect_with_ensemble
from reslab.detection.model import Detector, prepare_for_inference
from reslab.detection.recipe import InferenceConfig
from reslab.errors import unknown_name
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.threads import cores_for, map_in_order

DECODED_AHEAD = 8  # images that are decoded before they are wanted
Hear = Callable[[str | None], None]  # after each image; with a line if it is bad


def detect_set(
    detectors: Sequence[Detector],
    images: DetectionSet,
    search: InferenceConfig,
    on_progress: Hear = lambda line: None,
    processes: Processes = SingleProcess(),
    check_stop: Callable[[], None] = lambda: None,
) -> tuple[DetectionSet, list[Detections]]:
    """What the detectors, together, find in each image; labels are the set's.

    Images that do not decode are told of and left out of the set that is returned. Images are
    dealt to the processes, and all of them have what was found in all. `beat` is called once a
    image, equally often by every process, and may raise to stop.
    """
    labels = labels_in(detectors[0], images)
    detectors = [prepare_for_inference(detector) for detector in detectors]
    threads = cores_for(processes)
    own: dict[int, Detections | str] = {}
    dealt = range(processes.rank, len(images), processes.count)
    for index, image in zip(dealt, decoded(images, dealt, threads), strict=True):
        check_stop()
        if isinstance(image, BadImage):
            line = f"{image}; left out"
            own[index] = line
            on_progress(line)
            continue
        seen = detect_with_ensemble(detectors, image, search)
        known = seen.take(labels[seen.labels] >= 0)
        own[index] = Detections(known.boxes, known.scores, labels[known.labels])
        on_progress(None)
    if processes.rank >= len(images) % processes.count > 0:
        check_stop()  # others have an image more
    of_all = {at: it for one in processes.all_gather_objects(own) for at, it in one.items()}
    good, found = [], []
    for index in range(len(images)):
        match of_all[index]:
            case str(line):
                if index not in own:
                    on_progress(line)
            case detections:
                good.append(index)
                found.append(detections)
    if not good:
        raise ValueError(f"no image of {images.name} can be decoded")
    whole = len(good) == len(images)
    return images if whole else images.take(images.name, torch.tensor(good)), found


def decoded(
    images: DetectionSet, indices: Sequence[int], threads: int
) -> Iterator[np.ndarray | BadImage]:
    """Images read by threads ahead of need; what is wrong with a bad one in its place."""

    def image_at(index: int) -> np.ndarray | BadImage:
        try:
            return images.image(index)
        except BadImage as bad:
            return bad

    with closing(map_in_order(image_at, indices, threads, DECODED_AHEAD)) as coming:
        yield from coming


def labels_in(detector: Detector, images: DetectionSet) -> torch.Tensor:
    """What a set calls each class of a detector, int64 [classes]; -1 where it has none such.

    Classes are the same if their ids and names are, or, where ids are others, their names: the
    first category of every COCO folder is 1.
    """
    theirs = list(zip(detector.ids, detector.classes, strict=True))
    own = list(zip(images.ids, images.classes, strict=True))
    if set(theirs) >= set(own):
        return places_of(theirs, own)
    for name in images.classes:
        if name not in detector.classes:
            raise ValueError(
                f"the detector does not know a class of {images.name}: "
                f"{unknown_name('class', name, detector.classes)}"
            )
    return places_of(detector.classes, images.classes)


def places_of(theirs: Sequence[Hashable], own: Sequence[Hashable]) -> torch.Tensor:
    """Where each of theirs stands among our own, -1 for nowhere."""
    places = {it: label for label, it in enumerate(own)}
    return torch.tensor([places.get(it, -1) for it in theirs], dtype=torch.int64)
