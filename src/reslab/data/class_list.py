"""Read class lists (classes.csv), which give a network's classes their order and names."""

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

import torch

from reslab.data.class_names import ClassIndex
from reslab.data.datasets import EncodedImages
from reslab.data.left_out import CLASS_LIST
from reslab.data.location import Location
from reslab.errors import os_reason
from reslab.runtime.files import MAX_BYTES, open_regular

HEADERS = (["index", "wnid", "name"], ["index", "id", "name"])
EXPECTED = "the first line must be index,wnid,name or index,id,name, or each line name,number"
OTHER_PROGRAM = "rename the file if it belongs to another program"
# names of columns in lists of other programs
NUMBERS = {"index", "idx", "id", "number", "class_id", "classid", "label_id", "category_id"}
NAMES = {"name", "class", "classes", "class_name", "classname", "label", "labels", "category"}

Rows = list[tuple[int, list[str]]]  # line numbers and stripped fields
Classes = list[tuple[str, str]]  # the id and the name of each class


def class_list(root: Path, folder: Path) -> Path | None:
    """Find a class list in `root` or a folder above it, up to `folder`; None if there is none."""
    places = [root, *(parent for parent in root.parents if parent.is_relative_to(folder))]
    return next((place / CLASS_LIST for place in places if (place / CLASS_LIST).is_file()), None)


def listed_ids(names: Path | None) -> list[str]:
    """Return the ids of a class list, if there is one; an error in it is raised when it is used."""
    try:
        return [id_ for id_, _ in read_class_list(names)] if names else []
    except ValueError:
        return []


def read_class_list(path: Path, folders: Collection[str] = ()) -> Classes:
    """Read the (id, name) of each class, in the order of a network's outputs.

    The columns are index, id (or wnid) and name. Lists of other programs are read too: names alone,
    or names and numbers in either order, with or without a header. Their names are the ids, unless
    the class folders, `folders`, are named by their numbers. Raise ValueError, naming the malformed
    line.
    """
    rows = _read_rows(path)
    if rows and [field.lower() for field in rows[0][1]] in HEADERS:
        classes = _indexed(path, rows)
    elif rows and all(len(row) <= 2 for _, row in rows):
        classes = _numbered(path, rows, folders)
    else:
        raise ValueError(f"{path}:1: {EXPECTED}; {OTHER_PROGRAM}")
    if not classes:
        raise ValueError(f"{path} lists no classes")
    return classes


def _read_rows(path: Path) -> Rows:
    try:
        # Excel writes a byte-order mark; it is not part of the first column's name
        with TextIOWrapper(open_regular(path, MAX_BYTES), "utf-8-sig", newline="") as file:
            return list(_parse(path, file))
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; save it as CSV UTF-8") from None


def _parse(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty; columns are separated as in the first line."""
    first = file.readline()
    file.seek(0)
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _indexed(path: Path, rows: Rows) -> Classes:
    """Return the classes of a list with the columns index, id and name."""
    header = rows[0][1]
    ids: dict[str, int] = {}
    classes: Classes = []
    for line, row in rows[1:]:
        place = f"{path}:{line}"
        if len(row) != 3:
            raise ValueError(f"{place}: {len(row)} columns instead of 3 (quote names with commas)")
        index, id_, name = row
        if index != str(len(classes)):
            raise ValueError(f"{place}: index {index!r} instead of {len(classes)}")
        if not id_ or not name:
            raise ValueError(f"{place}: the class has no {'name' if id_ else header[1].lower()}")
        _must_be_new(path, line, id_, ids)
        classes.append((id_, name))
    return classes


def _numbered(path: Path, rows: Rows, folders: Collection[str]) -> Classes:
    """Return the classes of a list of names and numbers, in the order of the numbers."""
    names = _names_by_number(path, rows)
    first = min(names, default=0)
    if first > 1 or max(names, default=0) - first >= max(len(names), 1):
        raise ValueError(f"{path}: the numbers must run from 0 or 1 without gaps")
    by_number = {int(folder): folder for folder in folders if folder.isdecimal()}
    if by_number and by_number.keys() <= names.keys() and not {*folders} <= {*names.values()}:
        return [(by_number.get(number, str(number)), names[number]) for number in sorted(names)]
    return [(names[number], names[number]) for number in sorted(names)]


def _names_by_number(path: Path, rows: Rows) -> dict[int, str]:
    header = [field.lower() for field in rows[0][1]]
    if set(header) <= NUMBERS | NAMES and len(set(header)) == len(header):
        rows = rows[1:]
    else:
        header = []
    if all(len(row) == 1 for _, row in rows):
        rows = [(line, [*row, str(number)]) for number, (line, row) in enumerate(rows)]
    at = _number_column(header, rows)
    if at is None:
        raise ValueError(f"{path}:1: {EXPECTED}; {OTHER_PROGRAM}")
    lines: dict[str, int] = {}
    names: dict[int, str] = {}
    for line, row in rows:
        name, number = row[1 - at], int(row[at])
        if not name:
            raise ValueError(f"{path}:{line}: the class has no name")
        _must_be_new(path, line, name, lines)
        if number in names:
            raise ValueError(f"{path}:{line}: {names[number]!r} has the number {number} already")
        names[number] = name
    return names


def _number_column(header: Sequence[str], rows: Rows) -> int | None:
    """Return the column with numbers, or None; if both have numbers, the header decides."""
    if not all(len(row) == 2 for _, row in rows):
        return None
    columns = [
        at for at in (0, 1) if all(row[at].isdecimal() and len(row[at]) < 10 for _, row in rows)
    ]
    if len(columns) == 2:
        return 0 if header and header[0] in NUMBERS else 1
    return columns[0] if columns else None


def _must_be_new(path: Path, line: int, name: str, lines: dict[str, int]) -> None:
    """Raise ValueError if an earlier line has the name; else add it to `lines`."""
    if name in lines:
        raise ValueError(f"{path}:{line}: {name!r} is already on line {lines[name]}")
    lines[name] = line


def arrange_classes(images: EncodedImages, root: Location, names: Path) -> EncodedImages:
    """Order and name a set's classes as in the class list `names`, omitting those without images.

    Raise ValueError if a class of the set is not in the list.
    """
    listed = read_class_list(names, images.ids)
    index = ClassIndex([id_ for id_, _ in listed])
    positions = index.match([(id_,) for id_ in images.ids])
    for id_, position in zip(images.ids, positions, strict=True):
        if position < 0:
            hint = f"; {OTHER_PROGRAM}" if max(positions) < 0 else index.hint(id_)
            raise ValueError(f"{root}: class {id_!r} is not in {names}{hint}")
    present = sorted(positions)
    order = torch.tensor([present.index(position) for position in positions])
    return replace(
        images,
        labels=order[images.labels],
        classes=tuple(listed[position][1] for position in present),
        ids=tuple(listed[position][0] for position in present),
    )
