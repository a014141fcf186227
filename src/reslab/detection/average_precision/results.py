"""Files of detections in COCO's results format: a list of image_id, category_id, bbox, score."""

import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import torch

from reslab.data.boxes.coco_values import IdTable, as_id
from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.errors import unknown_name
from reslab.runtime.events import Callback, note, silent
from reslab.runtime.files import read_json

KEYS = ("image_id", "category_id", "bbox", "score")
MAX_NUMBER = 1e30  # so that areas stay finite
MAX_QUOTED = 60  # characters of a value in a message
MAX_CLASSES_NAMED = 20  # if there are more, a message has only the range of their ids


def read_results(file: Path, images: DetectionSet, on_event: Callback = silent) -> list[Detections]:
    """Read the detections in each image of a set.

    Images are identified by the set's keys or the names of their files, classes by their ids. An
    image that is not in the file has no detections. Detections of classes that the set lacks are
    left out, with a note for `on_event`, unless all are. Raise ValueError, with the position in the
    file, for a faulty entry.
    """
    keys, labels = IdTable(images.keys), IdTable(images.ids)
    stems = IdTable(PurePath(name).stem for name in images.files)
    rows: list[list[tuple[list[float], float, int]]] = [[] for _ in images.keys]
    unknown: dict[str, int] = {}  # for each class that is left out, the position of its first entry
    left_out = 0
    entries = read_json(file)
    if isinstance(entries, dict):
        entries = entries.get("annotations")
    if not isinstance(entries, list):
        raise ValueError(f"{file} is not a list of detections, {{{', '.join(KEYS)}}}")
    for number, entry in enumerate(entries):
        place = f"{file}[{number}]"
        must_be_complete(entry, place)
        key, id_, box, score = (entry[name] for name in KEYS)
        index = find(key, keys, stems)
        if index is None:
            raise ValueError(f"{place}.image_id: {images.name} has no image {quoted(key)}")
        label = find(str(as_id(id_)), labels)
        if not is_number(score):
            raise ValueError(f"{place}.score: {quoted(score)} is not a number")
        corners = corners_of(box, place)
        if label is None:
            unknown.setdefault(quoted(id_), number)
            left_out += 1
        else:
            rows[index].append((corners, score, label))
    if left_out and left_out == len(entries):
        raise ValueError(f"{file}[0].category_id: {no_class(entries[0]['category_id'], images)}")
    if left_out:
        names = ", ".join([*unknown][:5]) + (", ..." if len(unknown) > 5 else "")
        text = f"{file}: {left_out:,} detections of classes that {images.name} lacks are left out"
        on_event(note(f"{text}: {names}"))
    return [as_detections(image_rows) for image_rows in rows]


def must_be_complete(entry: Any, place: str) -> None:
    """Raise ValueError if an entry is not a detection or lacks a key."""
    if not isinstance(entry, dict):
        raise ValueError(f"{place} is not a detection, {{{', '.join(KEYS)}}}")
    for key in KEYS:
        if key not in entry:
            raise ValueError(f"{place} has no {key}; a detection has {', '.join(KEYS)}")


def find(id_: Any, *tables: IdTable) -> int | None:
    """Return the position of an image or class in the first table that has it, or None."""
    id_ = as_id(id_)
    if not isinstance(id_, int | str) or isinstance(id_, bool):  # True would equal 1
        return None
    found = (table.find(id_) for table in tables)
    return next((position for position in found if position is not None), None)


def no_class(id_: Any, images: DetectionSet) -> str:
    """Return the error message for an unknown class id."""
    if all(known.isdecimal() for known in images.ids) and len(images.ids) > MAX_CLASSES_NAMED:
        numbers = sorted(map(int, images.ids))
        ids = f"the {len(numbers)} ids range from {numbers[0]} to {numbers[-1]}"
        return f"no class {quoted(id_)}; {ids}"
    return unknown_name("class", str(id_)[:MAX_QUOTED], images.ids)


def quoted(value: Any) -> str:
    """Return a value as JSON text, truncated if it is long."""
    text = json.dumps(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def corners_of(box: Any, place: str) -> list[float]:
    """Convert COCO's x y width height to corners."""
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        raise ValueError(f"{place}.bbox: {quoted(box)} is not four numbers: x y width height")
    x, y, width, height = box
    if width < 0 or height < 0:
        raise ValueError(f"{place}.bbox: {quoted(box)} has a negative width or height")
    return [x, y, x + width, y + height]


def is_number(value: Any) -> bool:
    """Return whether a value is a number of bounded size, not a boolean, NaN or infinity."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
    )


def as_detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    """Convert rows of box, score and label to tensors; float64 preserves the file's decimals."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor(labels, dtype=torch.int64),
    )


def as_results(images: DetectionSet, detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Convert the detections in each image of a set to COCO's results format."""
    ids = [int(id_) if id_.isdecimal() else id_ for id_ in images.ids]
    return [
        {
            "image_id": key,
            "category_id": ids[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for key, image in zip(images.keys, detections, strict=True)
        for (x0, y0, x1, y1), score, label in zip(
            image.boxes.tolist(), image.scores.tolist(), image.labels.tolist(), strict=True
        )
    ]
