"""Detections in files, as COCO writes results: a list of image_id, category_id, bbox, score."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.errors import os_reason, unknown_name

KEYS = ("image_id", "category_id", "bbox", "score")
MAX_NUMBER = 1e30  # of a number, so that areas stay finite
MAX_QUOTED = 60  # letters of a value in a message
CLASSES_NAMED = 20  # classes at most in a message


def read_results(file: Path, images: DetectionSet) -> list[Detections]:
    """What a file says was found in each image of a set; ValueError names the place in the file.

    Images are named by the set's keys, classes by their ids. Images that the file does not
    name have nothing found in them.
    """
    entries = read_list(file)
    places: dict[int | str | None, int] = {key: at for at, key in enumerate(images.keys)}
    labels = {key: label for label, key in enumerate(images.ids)}
    rows: list[list[tuple[list[float], float, int]]] = [[] for _ in images.keys]
    for number, entry in enumerate(entries):
        at = f"{file}[{number}]"
        must_be_complete(entry, at)
        image, kind, box, score = (entry[key] for key in KEYS)
        index, label = places.get(is_image_key(image)), labels.get(str(kind))
        if index is None:
            raise ValueError(f"{at}.image_id: no image {quoted(image)} in {images.name}")
        if label is None:
            raise ValueError(f"{at}.category_id: {no_class(kind, images)}")
        if not is_number(score):
            raise ValueError(f"{at}.score: {quoted(score)} is not a number")
        rows[index].append((corners_of(box, at), score, label))
    return [as_detections(found) for found in rows]


def read_list(file: Path) -> list[Any]:
    """The JSON list in a file."""
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{file}: {os_reason(error)}") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}:{error.lineno}: not JSON at column {error.colno}: {error.msg.lower()}"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text, so not JSON") from None
    except ValueError as error:  # a number of too many digits
        raise ValueError(f"{file}: {error}") from None
    except RecursionError:
        raise ValueError(f"{file} is nested too deeply to be detections") from None
    if not isinstance(found, list):
        raise ValueError(f"{file} holds no list; detections are a list of {{{', '.join(KEYS)}}}")
    return found


def must_be_complete(entry: Any, at: str) -> None:
    """ValueError unless all is there."""
    if not isinstance(entry, dict):
        raise ValueError(f"{at} is no detection; one is {{{', '.join(KEYS)}}}")
    for key in KEYS:
        if key not in entry:
            raise ValueError(f"{at} has no {key}; a detection is {{{', '.join(KEYS)}}}")


def is_image_key(key: Any) -> int | str | None:
    """What may name an image."""
    return key if isinstance(key, int | str) and not isinstance(key, bool) else None


def no_class(key: Any, images: DetectionSet) -> str:
    """Which classes there are, the numbers of COCO's in short."""
    if all(id.isdecimal() for id in images.ids) and len(images.ids) > CLASSES_NAMED:
        numbers = sorted(map(int, images.ids))
        return (
            f"no class {quoted(key)}; the {len(numbers)} ids lie in {numbers[0]} to {numbers[-1]}"
        )
    return unknown_name("class", str(key)[:MAX_QUOTED], images.ids)


def quoted(value: Any) -> str:
    """A value as it is written, of a long one the beginning."""
    text = json.dumps(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def corners_of(box: Any, at: str) -> list[float]:
    """COCO's x y width height as corners."""
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        raise ValueError(f"{at}.bbox: {quoted(box)} is not four numbers: x y width height")
    x, y, width, height = box
    if width < 0 or height < 0:
        raise ValueError(f"{at}.bbox: {quoted(box)} has a negative width or height")
    return [x, y, x + width, y + height]


def is_number(value: Any) -> bool:
    """One to reckon with: neither JSON's true and false nor NaN, Infinity and the like."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
    )


def as_detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    """In float64, so that a file's decimals are compared as they were written."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor(labels, dtype=torch.int64),
    )


def as_results(images: DetectionSet, found: Sequence[Detections]) -> list[dict[str, Any]]:
    """The inverse: what was found in each image of a set, for a file."""
    kinds = [int(id) if id.isdecimal() else id for id in images.ids]
    return [
        {
            "image_id": key,
            "category_id": kinds[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for key, seen in zip(images.keys, found, strict=True)
        for (x0, y0, x1, y1), score, label in zip(
            seen.boxes.tolist(), seen.scores.tolist(), seen.labels.tolist(), strict=True
        )
    ]
