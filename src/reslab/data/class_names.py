"""Classes: their ids, their order, and the file that gives them names for people."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from reslab.data.datasets import EncodedImages
from reslab.data.location import Location
from reslab.errors import os_reason

HEADERS = (["index", "wnid", "name"], ["index", "id", "name"])


def read_class_list(path: Path) -> list[tuple[str, str]]:
    """(id, name) of each class in the order of the outputs; ValueError names the line."""
    try:
        # Excel writes a byte-order mark; it is not part of the first column's name
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_numbered_rows(path, file))
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; save it as CSV UTF-8") from None
    header = [column.strip().lower() for column in rows[0][1]] if rows else []
    if header not in HEADERS:
        raise ValueError(f"{path}:1: the first line must be index,wnid,name or index,id,name")
    classes: list[tuple[str, str]] = []
    lines: dict[str, int] = {}
    for line, row in rows[1:]:
        place = f"{path}:{line}"
        if len(row) != 3:
            raise ValueError(f"{place}: {len(row)} columns instead of 3 (a comma needs quotes)")
        index, key, name = (field.strip() for field in row)
        if index != str(len(classes)):
            raise ValueError(f"{place}: index {index!r} where {len(classes)} is next")
        if not key or not name:
            raise ValueError(f"{place}: the class has no {'name' if key else header[1]}")
        if key in lines:
            raise ValueError(f"{place}: {key!r} is already in line {lines[key]}")
        lines[key] = line
        classes.append((key, name))
    if not classes:
        raise ValueError(f"{path} names no class")
    return classes


def _numbered_rows(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def arrange_classes(images: EncodedImages, root: Location, names: Path) -> EncodedImages:
    """In the order and with the names of a file of classes; those without images fall away."""
    listed = dict(read_class_list(names))
    for name in images.ids:
        if name not in listed:
            near = get_close_matches(name, listed, n=1, cutoff=0)[0]
            raise ValueError(f"{root}: class {name!r} is not in {names}; the nearest is {near!r}")
    present = set(images.ids)
    ids = tuple(name for name in listed if name in present)
    return replace(
        images,
        labels=_relabelled(images, ids),
        classes=tuple(listed[name] for name in ids),
        ids=ids,
    )


def align_labels(train: EncodedImages, test: EncodedImages) -> EncodedImages:
    """The labels of `test` as indices into the classes of `train`, which has all of them."""
    labels = _relabelled(test, train.ids)
    return replace(test, labels=labels, classes=train.classes, ids=train.ids)


def _relabelled(images: EncodedImages, ids: tuple[str, ...]) -> Tensor:
    places = {name: place for place, name in enumerate(ids)}
    return torch.tensor([places[name] for name in images.ids])[images.labels]
