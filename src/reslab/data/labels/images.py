"""Build sets of images from tables of labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reslab.data.class_folders import FolderReader
from reslab.data.class_list import arrange_classes, read_class_list
from reslab.data.class_names import ClassIndex
from reslab.data.datasets import EncodedImages
from reslab.data.image_finder import AMBIGUOUS, MISSING, ImageFinder
from reslab.data.labels.columns import NotLabels
from reslab.data.labels.table import LabelTable
from reslab.data.left_out import count_of, shorten
from reslab.data.part_names import Part

LONGEST_NUMBER = 1000  # digits


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One image that a table lists."""

    file: str  # relative to the opened folder
    label: str
    table: Path
    line: int
    group: str


@dataclass(frozen=True)
class Labelled:
    """The splits that tables of labels define, or all images if there is no split."""

    root: Path
    rows: dict[Part | None, list[LabelledRow]]
    notes: tuple[str, ...]


def collect(
    root: Path, tables: Sequence[LabelTable], finder: ImageFinder, *, within: str = ""
) -> Labelled:
    """Find the images that the tables list; raise ValueError if they contradict themselves.

    If `finder` has the images of further folders, `within` is the path of `root` in its files, and
    only the images there are collected.
    """
    rows: dict[Part | None, list[LabelledRow]] = {}
    notes: list[str] = []
    listed: set[int] = set()
    for table in tables:
        indices = _find(table, finder)
        notes += [*table.notes, *(() if within else _missing_note(table, indices))]
        seen: dict[tuple[int, Part | None], int] = {}
        repeated = 0
        for row, (index, part) in enumerate(zip(indices, table.parts, strict=True)):
            if index == MISSING or not _is_below(within, index, finder):
                continue
            if index == AMBIGUOUS:
                raise ValueError(
                    f"{table.path}:{table.lines[row]}: {root} has several images called "
                    f"{table.files[row]!r}: write their paths"
                )
            first = seen.setdefault((index, part), row)
            if first != row:
                _check_equal(table, first, row)
                repeated += 1
                continue
            group = (table.groups[row] or table.files[row]) if table.groups else ""
            rows.setdefault(part, []).append(
                LabelledRow(
                    finder.files[index].removeprefix(within),
                    table.labels[row],
                    table.path,
                    table.lines[row],
                    group,
                )
            )
        listed.update(index for index, _ in seen)
        if repeated:
            notes.append(f"{table.path.name}: {count_of(repeated, 'repeated row')} left out")
    files = [
        file
        for index, file in enumerate(finder.files)
        if index not in listed and file.startswith(within)
    ]
    notes += _unlisted_note([file.removeprefix(within) for file in files], tables)
    return Labelled(root, rows, tuple(notes))


def _find(table: LabelTable, finder: ImageFinder) -> list[int]:
    """Return the index of the image in each row; a group may be the name of its folder."""
    indices = finder.find(table.files, table.parts)
    unclear = [row for row, index in enumerate(indices) if index == AMBIGUOUS]
    if table.groups and unclear:
        paths = [f"{table.groups[row]}/{table.files[row]}" for row in unclear]
        found = finder.find(paths, [table.parts[row] for row in unclear])
        for row, index in zip(unclear, found, strict=True):
            indices[row] = index if index != MISSING else AMBIGUOUS
    return indices


def _missing_note(table: LabelTable, indices: Sequence[int]) -> tuple[str, ...]:
    missing = [row for row, index in enumerate(indices) if index == MISSING]
    if not missing:
        return ()
    first = f"{table.files[missing[0]]!r} on line {table.lines[missing[0]]}"
    number = count_of(len(missing), "row")
    return (f"{table.path.name}: {number} left out, as the images are missing, such as {first}",)


def _check_equal(table: LabelTable, first: int, row: int) -> None:
    """Raise ValueError if two rows for one image differ in the label, NotLabels for boxes."""
    place = f"{table.path}:{table.lines[row]}"
    file, before = table.files[row], f"on line {table.lines[first]}"
    if table.has_boxes:
        raise NotLabels(
            f"{place}: {file!r} is already {before}: the table has several boxes per image, for a "
            "detector, which reads them in COCO, VOC or YOLO format"
        )
    if table.labels[first] != table.labels[row]:
        raise ValueError(
            f"{place}: {file!r} is labelled {table.labels[row]!r}, and {table.labels[first]!r} "
            f"{before}: a net learns one class per image"
        )


def _is_below(within: str, index: int, finder: ImageFinder) -> bool:
    """Return whether a file is in a folder; one that is not found may be there."""
    return index < 0 or finder.files[index].startswith(within)


def _unlisted_note(unlisted: Sequence[str], tables: Sequence[LabelTable]) -> tuple[str, ...]:
    if not unlisted:
        return ()
    folders = Counter(file.rpartition("/")[0] + "/" for file in unlisted)
    where = shorten(f"{number:,} in {folder}" for folder, number in folders.most_common())
    where = f": {where}" if any(folder != "/" for folder in folders) else ""
    names = " and ".join(dict.fromkeys(table.path.name for table in tables))
    return (
        f"{count_of(len(unlisted), 'image')} not listed in {names} left out"
        f"{where.replace(' in /', ' at the top')}",
    )


def encoded_images(
    name: str, root: Path, rows: Sequence[LabelledRow], names: Path | None
) -> EncodedImages:
    """Build a set from rows, in the order of class and file; `names` is a class list."""
    labels = {row.label for row in rows}
    if names:
        labels_by_id = numbered(labels, names)
        rows = [replace(row, label=labels_by_id[row.label]) for row in rows]
        labels = set(labels_by_id.values())
    ids = in_order(labels)
    index = {id_: position for position, id_ in enumerate(ids)}
    rows = sorted(rows, key=lambda row: (index[row.label], row.file))
    groups = {group: number for number, group in enumerate(sorted({row.group for row in rows}))}
    images = EncodedImages(
        name,
        [row.file for row in rows],
        torch.tensor([index[row.label] for row in rows]),
        ids,
        ids,
        FolderReader(str(root)),
        groups=torch.tensor([groups[row.group] for row in rows]) if len(groups) > 1 else None,
    )
    return arrange_classes(images, root, names) if names else images


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Return labels in alphabetical order, or in the order of numbers if all are numbers."""
    if all(map(is_whole, labels)):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def is_whole(label: str) -> bool:
    """Return whether a label is a whole number, of a length that Python converts."""
    return label.removeprefix("-").isdecimal() and len(label) <= LONGEST_NUMBER


def numbered(labels: set[str], names: Path) -> Mapping[str, str]:
    """Map labels to ids of a class list; labels that are numbers may be positions in it."""
    listed = [id_ for id_, _ in read_class_list(names)]
    positions = ClassIndex(listed).match([(label,) for label in sorted(labels)])
    if max(positions, default=-1) >= 0 or not all(
        label.isdecimal() and is_whole(label) for label in labels
    ):
        return {label: label for label in labels}
    largest = max(labels, key=int)
    if int(largest) >= len(listed):
        raise ValueError(
            f"label {largest} is not a position in {names}: they go from 0 to {len(listed) - 1}"
        )
    return {label: listed[int(label)] for label in labels}
