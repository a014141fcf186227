"""Detectors over a whole set: what they find in each picture, and how good that is."""

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

DECODED_AHEAD = 8  # pictures that are decoded before they are wanted
Hear = Callable[[str | None], None]  # after each picture; with a line if it is bad


def detect_set(
    detectors: Sequence[Detector],
    pictures: DetectionSet,
    search: InferenceConfig,
    hear: Hear = lambda line: None,
    processes: Processes = SingleProcess(),
    beat: Callable[[], None] = lambda: None,
) -> tuple[DetectionSet, list[Detections]]:
    """What the detectors, together, find in each picture; labels are the set's.

    Pictures that do not decode are told of and left out of the set that is returned. Pictures are
    dealt to the processes, and all of them have what was found in all. `beat` is called once a
    picture, equally often by every process, and may raise to stop.
    """
    labels = labels_in(detectors[0], pictures)
    detectors = [prepare_for_inference(detector) for detector in detectors]
    threads = cores_for(processes)
    own: dict[int, Detections | str] = {}
    dealt = range(processes.rank, len(pictures), processes.count)
    for index, picture in zip(dealt, decoded(pictures, dealt, threads), strict=True):
        beat()
        if isinstance(picture, BadImage):
            line = f"{picture}; left out"
            own[index] = line
            hear(line)
            continue
        seen = detect_with_ensemble(detectors, picture, search)
        known = seen.take(labels[seen.labels] >= 0)
        own[index] = Detections(known.boxes, known.scores, labels[known.labels])
        hear(None)
    if processes.rank >= len(pictures) % processes.count > 0:
        beat()  # others have a picture more
    of_all = {at: it for one in processes.all_gather_objects(own) for at, it in one.items()}
    good, found = [], []
    for index in range(len(pictures)):
        match of_all[index]:
            case str(line):
                if index not in own:
                    hear(line)
            case detections:
                good.append(index)
                found.append(detections)
    if not good:
        raise ValueError(f"no picture of {pictures.name} can be decoded")
    whole = len(good) == len(pictures)
    return pictures if whole else pictures.take(pictures.name, torch.tensor(good)), found


def decoded(
    pictures: DetectionSet, indices: Sequence[int], threads: int
) -> Iterator[np.ndarray | BadImage]:
    """Pictures read by threads ahead of need; what is wrong with a bad one in its place."""

    def picture_at(index: int) -> np.ndarray | BadImage:
        try:
            return pictures.image(index)
        except BadImage as bad:
            return bad

    with closing(map_in_order(picture_at, indices, threads, DECODED_AHEAD)) as coming:
        yield from coming


def labels_in(detector: Detector, pictures: DetectionSet) -> torch.Tensor:
    """What a set calls each class of a detector, int64 [classes]; -1 where it has none such.

    Classes are the same if their ids and names are, or, where ids are others, their names: the
    first category of every COCO folder is 1.
    """
    theirs = list(zip(detector.ids, detector.classes, strict=True))
    own = list(zip(pictures.ids, pictures.classes, strict=True))
    if set(theirs) >= set(own):
        return places_of(theirs, own)
    for name in pictures.classes:
        if name not in detector.classes:
            raise ValueError(
                f"the detector does not know a class of {pictures.name}: "
                f"{unknown_name('class', name, detector.classes)}"
            )
    return places_of(detector.classes, pictures.classes)


def places_of(theirs: Sequence[Hashable], own: Sequence[Hashable]) -> torch.Tensor:
    """Where each of theirs stands among our own, -1 for nowhere."""
    places = {it: label for label, it in enumerate(own)}
    return torch.tensor([places.get(it, -1) for it in theirs], dtype=torch.int64)
