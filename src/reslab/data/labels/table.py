"""Read tables of labels: CSV, TSV or text, with or without a header, one row per image."""

import csv
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path

from reslab.data.class_names import clean
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.image_finder import ImageFinder
from reslab.data.labels.columns import (
    Columns,
    NotLabels,
    choose_columns,
    is_header,
    is_number,
    is_true,
)
from reslab.data.left_out import count_of, shorten
from reslab.data.part_names import Part, part_of_name
from reslab.errors import os_reason
from reslab.runtime.files import MAX_LIST_BYTES, open_regular

SAMPLE = 1000  # rows from which the columns are chosen
UNLABELLED = ("", "nan")
_WNID_AND_BOXES = re.compile(r"(n\d{8})(?: (?:n\d{8}|\d+))+")  # as in ImageNet's LOC_val_solution
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)(?:\.0*)?")


@dataclass(frozen=True)
class LabelTable:
    """The labelled rows of a table."""

    path: Path
    files: list[str]  # as written
    labels: list[str]
    lines: Sequence[int]
    parts: list[Part | None]
    groups: list[str] | None  # such as patients, whose images belong in one part
    has_boxes: bool
    notes: tuple[str, ...]


Row = tuple[int, list[str]]  # with its line


def read_labels(path: Path, finder: ImageFinder, part: Part | None = None) -> LabelTable:
    """Read the labels in a table; `part` is the part of rows that do not name theirs.

    Raise NotLabels if the table does not have a label for each image, and ValueError, naming the
    line, if a row is malformed.
    """
    columns, first = read_columns(path, finder)
    rows = islice(_rows(path, finder), first, None)
    try:
        return _read_rows(path, rows, columns, part)
    except NotLabels as error:
        raise NotLabels(f"{path}: {error}") from None


def read_columns(path: Path, finder: ImageFinder) -> tuple[Columns, int]:
    """Choose a table's columns, and return them with the number of header rows.

    Raise NotLabels if the table does not have a label for each image.
    """
    rows = [row for _, row in islice(_rows(path, finder), SAMPLE + 1)]
    try:
        if not rows:
            raise NotLabels("it is empty")
        named = is_header(rows[0], rows[1:], finder)
        body = [row for row in rows[named:] if len(row) >= len(rows[0])]
        if not body:
            raise NotLabels("it has a header and no rows" if named else "its rows are malformed")
        columns = choose_columns(rows[0] if named else (), body, finder)
        names = (row[columns.file] for row in body)
        rest = (row[columns.file] for _, row in _rows(path, finder) if len(row) > columns.file)
        if not any(map(finder.has, chain(names, rest))):
            there = f"; the images there are {shorten(finder.files, 2)}" if finder.files else ""
            raise NotLabels(
                f"none of its files is below this folder, such as {body[0][columns.file]!r}{there}"
            )
        return columns, int(named)
    except NotLabels as error:
        raise NotLabels(f"{path}: {error}") from None


def _read_rows(path: Path, rows: Iterator[Row], columns: Columns, part: Part | None) -> LabelTable:
    files, labels, lines, parts = [], [], array("L"), []
    groups: list[str] = []
    known: dict[str, str] = {}
    unlabelled: Counter[Part | None] = Counter()
    for line, row in rows:
        if (len(row) != columns.count and any(row[columns.count :])) or len(row) < columns.count:
            raise ValueError(
                f"{path}:{line}: {count_of(len(row), 'column')} instead of {columns.count} (quote "
                "names with commas)"
            )
        file = row[columns.file].strip()
        if not file:
            raise ValueError(f"{path}:{line}: the row has no file name")
        own_part = _part(row, columns, f"{path}:{line}") if columns.part is not None else part
        label = _label(row, columns, f"{path}:{line}")
        if label.lower() in UNLABELLED:
            unlabelled[own_part] += 1
            continue
        files.append(file)
        labels.append(known.setdefault(label, _without_fraction(label)))
        lines.append(line)
        parts.append(own_part)
        if columns.group is not None:
            groups.append(row[columns.group].strip())
    notes = [f"{path.name}: {note}" for note in columns.notes]
    for own_part, number in unlabelled.items():
        where = f" of the {own_part} part" if own_part else ""
        notes.append(f"{path.name}: {count_of(number, 'row')}{where} without a label left out")
    _check_labels(known)
    return LabelTable(
        path=path,
        files=files,
        labels=labels,
        lines=lines,
        parts=parts,
        groups=groups if any(groups) else None,
        has_boxes=columns.boxes,
        notes=tuple(notes),
    )


def _label(row: list[str], columns: Columns, place: str) -> str:
    if columns.label is not None:
        label = clean(row[columns.label])
        with_boxes = _WNID_AND_BOXES.fullmatch(label)
        return with_boxes[1] if with_boxes else label
    names = [name for at, name in columns.classes.items() if is_true(row[at])]
    if len(names) > 1:
        raise ValueError(
            f"{place}: the image has several classes ({', '.join(names)}); a net learns one class "
            "per image"
        )
    return clean(names[0]) if names else ""


def _without_fraction(label: str) -> str:
    """Return 3 for 3.0, as pandas writes whole numbers in a column with gaps."""
    number = _WHOLE_NUMBER.fullmatch(label)
    return number[1] if number else label


def _part(row: list[str], columns: Columns, place: str) -> Part:
    assert columns.part is not None
    value = row[columns.part].strip()
    if columns.flags:
        return columns.flags[0 if is_true(value) else 1]
    part = part_of_name(value)
    if part is None:
        raise ValueError(f"{place}: the part {value!r} is not train, val or test")
    return part


def _check_labels(labels: Mapping[str, str]) -> None:
    """Raise NotLabels if the labels are measurements, or several in one cell."""
    if not labels:
        raise NotLabels("no row has a label")
    numbers = [label for label in labels if is_number(label)]
    fractions = [label for label in numbers if not _WHOLE_NUMBER.fullmatch(label)]
    if fractions and len(numbers) == len(labels):
        raise NotLabels(f"its labels are numbers with fractions ({fractions[0]}), not classes")
    for label in labels:
        pieces = [clean(piece) for piece in re.split(r"[|;,]", label)]
        if len(pieces) > 1 and all(piece in labels for piece in pieces):
            raise NotLabels(f"{label!r} is several classes; a net learns one class per image")


def looks_like_table(path: Path) -> bool:
    """Return whether a file has rows of at least two columns, whatever they hold."""
    try:
        lines = [line for _, line in islice(lines_of(path), 20)]
    except ValueError:
        return True  # it is reported when it is opened
    if len(lines) < 2:
        return False
    if path.suffix.lower() != ".txt" or _delimiter(lines):
        return True
    words = [line.split() for line in lines]
    named = [any(w.lower().endswith(IMAGE_SUFFIXES) for w in line) for line in words]
    return len(words[0]) > 1 and (all(named) or len({len(line) for line in words}) == 1)


def _rows(path: Path, finder: ImageFinder) -> Iterator[Row]:
    """Yield each row with its line; raise ValueError if the table cannot be read."""
    lines = [line for _, line in islice(lines_of(path), SAMPLE)]
    delimiter = _delimiter(lines if path.suffix.lower() == ".txt" else lines[:1])
    if delimiter is None:
        yield from _spaced_rows(path, lines, finder)
        return
    reader = csv.reader((line for _, line in lines_of(path, keep_empty=True)), delimiter=delimiter)
    try:
        for row in reader:
            if any(row):
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _spaced_rows(path: Path, lines: Sequence[str], finder: ImageFinder) -> Iterator[Row]:
    """Yield rows of a file and a label, which may contain spaces, in this order or the other."""
    splits = (_first_word, _last_word, _words)
    found = [sum(any(map(finder.has, split(line))) for line in lines) for split in splits]
    split = splits[found[1] > found[0]]
    words = list(map(_words, lines))
    if len({len(line) for line in words}) == 1 and all(map(is_number, words[0][2:])):
        split = _words  # columns of numbers are not a name with spaces
    for number, line in lines_of(path):
        yield number, split(line)


def _first_word(line: str) -> list[str]:
    return line.split(None, 1)


def _words(line: str) -> list[str]:
    return line.split()


def _last_word(line: str) -> list[str]:
    return line.rsplit(None, 1)


def _delimiter(lines: Sequence[str]) -> str | None:
    """Return the separator that is in every line, the most frequent if there are several."""
    counts = {mark: min(line.count(mark) for line in lines) for mark in "\t,;|"} if lines else {}
    best = max(counts, key=counts.__getitem__, default=None)
    return best if best and counts[best] else None


def lines_of(path: Path, *, keep_empty: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers, without comments."""
    try:
        with open_regular(path, MAX_LIST_BYTES) as file:
            wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")  # Excel's "Unicode text"
            file.seek(0)
            text = TextIOWrapper(file, "utf-16" if wide else "utf-8-sig", newline="")
            for number, line in enumerate(text, 1):
                if number == 1 and line.lower().startswith("sep="):  # written by Excel
                    continue
                if keep_empty or (line.strip() and not line.startswith("#")):
                    yield number, line.rstrip("\r\n") if not keep_empty else line
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except UnicodeError:
        raise ValueError(f"{path} is not UTF-8 text; save it as CSV UTF-8") from None
