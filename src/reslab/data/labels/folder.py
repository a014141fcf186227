"""Open a folder whose images are labelled in a file, or the file itself.

If the images are in class folders as well, and these agree with the table, the folders give the
classes, unless only the table has a split. If they disagree, the table is right if its name says
that it has labels (labels.csv, train.csv), or if the folders are only numbered.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reslab.data.class_names import ClassIndex, fold
from reslab.data.datasets import EncodedImages
from reslab.data.image_finder import ImageFinder, list_files
from reslab.data.labels.choose import (
    SeveralTables,
    Tables,
    can_train,
    choose_tables,
    find_tables,
    is_usual,
    tables_with,
)
from reslab.data.labels.columns import NotLabels
from reslab.data.labels.images import Labelled, LabelledRow, collect, encoded_images
from reslab.data.labels.table import read_labels
from reslab.data.left_out import CLASS_LIST, count_of, count_suffixes, shorten, suffix_of
from reslab.data.location import ARRAY_SUFFIXES, TABLE_SUFFIXES, is_table
from reslab.data.part_names import Part, part_of_name
from reslab.data.parts import WHOLE_FOLDER, WRAPPERS, divide
from reslab.data.shards.reader import is_packed


@dataclass(frozen=True)
class LabelledFolder:
    """Images labelled in a file: train and validation, one of them, or WHOLE_FOLDER alone."""

    root: Path  # the files are relative to it
    parts: dict[str, EncodedImages]
    notes: tuple[str, ...]


def open_labelled(place: Path, names: Path | None, listed: Sequence[str]) -> LabelledFolder | None:
    """Open images whose labels are in a file; return None if class folders give the labels.

    `place` is a table of labels or a folder. `names` is a class list, and `listed` has its ids.
    Raises ValueError if there are labels that cannot be used.
    """
    if place.is_file():
        if not is_table(place):
            raise ValueError(
                f"{place} is not a folder of images, nor a table of their labels or arrays of both "
                f"({', '.join((*TABLE_SUFFIXES, *ARRAY_SUFFIXES))})"
            )
        root = place.parent
        finder = ImageFinder(*list_files(root))
        tables = tables_with(place, finder)
        return _build(root, tables, _collect(root, tables, finder), names)
    paths = find_tables(place) if place.is_dir() and not is_packed(place) else []
    if not paths:
        return None
    finder = ImageFinder(*list_files(place))
    if not finder.files:
        return None
    folders = _class_folders(finder.files)
    if folders and _are_listed(folders, listed):
        return None
    chosen = _choose(place, paths, finder, bool(folders))
    if chosen is None:
        return None
    tables, labelled = chosen
    if folders and (_is_for_testing(tables, labelled) or _are_right(place, tables, labelled)):
        return None
    if not can_train(tables) and "train" in divide(place, lambda problem: None).parts:
        return None  # a part to test on, beside class folders further down
    if _class_folders(row.file for row in _all_rows(labelled)):
        note = f"{next(iter(tables.paths.values()))} gives the labels, not the class folders"
        labelled = replace(labelled, notes=(note, *labelled.notes))
    return _build(place, tables, labelled, names)


def _choose(
    place: Path, paths: Sequence[Path], finder: ImageFinder, has_folders: bool
) -> tuple[Tables, Labelled] | None:
    """Choose tables and read them; return None if there are class folders and no usable table."""
    tables = Tables({})
    try:
        tables = choose_tables(paths, place, finder)
        return tables, _collect(place, tables, finder)
    except NotLabels as error:
        if has_folders:
            return None
        line = f"{place} has no class folders, and no labels in a file: {error}"
        raise ValueError(line) from None
    except SeveralTables as error:
        if has_folders and not any(map(can_train, error.tables)):
            return None
        read = [_collect(place, group, finder) for group in error.tables]
        if has_folders and any(map(_agree, read)):
            return None
        if any(_answers(other) != _answers(read[0]) for other in read):
            raise
        return error.tables[0], read[0]
    except ValueError:
        if has_folders and not is_usual(tables):  # a table about something else
            return None
        raise


def _collect(root: Path, tables: Tables, finder: ImageFinder) -> Labelled:
    """Read tables; one of test images that has no labels is noted and left out."""
    read, notes = [], list(tables.notes)
    for part, path in tables.paths.items():
        try:
            read.append(read_labels(path, finder, part))
        except NotLabels as error:
            if part != "test" or len(tables.paths) == 1:
                raise
            notes.append(str(error))
    labelled = collect(root, read, finder)
    notes += (*labelled.notes, *_other_files_note(root, tables, finder))
    return replace(labelled, notes=tuple(notes))


def _other_files_note(root: Path, tables: Tables, finder: ImageFinder) -> tuple[str, ...]:
    """Return a line about the files that are neither images nor tables in use."""
    known = {root / CLASS_LIST, *tables.paths.values(), *tables.unused}
    others = Counter(suffix_of(file) for file in finder.others if root / file not in known)
    return (count_suffixes(others, ""),) if others else ()


def _build(root: Path, tables: Tables, labelled: Labelled, names: Path | None) -> LabelledFolder:
    """Build the sets of the parts that a run reads, with notes on what it does not read."""
    rows, notes = dict(labelled.rows), list(labelled.notes)
    test = rows.pop("test", None)
    where = {part: _where(part, tables) for part in labelled.rows}
    if test and "validation" not in rows:
        rows["validation"], where["validation"] = test, where["test"]
    elif test:
        notes.append(f"{where['test']} are left out: {count_of(len(test), 'test image')}")
    if "train" in rows and "validation" in rows:
        notes += _shared_notes(rows["train"], rows["validation"])
    notes += _spelling_notes({row.label for listed in rows.values() for row in listed})
    parts = {}
    for part, listed in rows.items():
        images = encoded_images(part or root.resolve().name, root, listed, names)
        parts[part or WHOLE_FOLDER] = replace(images, source=where[part])
    if "validation" not in parts and any(part.groups is not None for part in parts.values()):
        notes.append("a split keeps the images of each group, such as a patient, in one part")
    order = [name for name in ("train", "validation", WHOLE_FOLDER) if name in parts]
    return LabelledFolder(root, {name: parts[name] for name in order}, tuple(notes))


def _where(part: Part | None, tables: Tables) -> str:
    """Return which rows of which table are a part, for a message."""
    table = tables.paths.get(part) or next(iter(tables.paths.values()))
    return (
        f"the {part} rows of {table}"
        if part and part not in tables.paths
        else f"the rows of {table}"
    )


def _spelling_notes(labels: Iterable[str]) -> Iterator[str]:
    """Yield a line about each pair of classes that differ only in case, spaces or hyphens."""
    by_form: dict[str, str] = {}
    for label in sorted(labels):
        other = by_form.setdefault(fold(label), label)
        if other != label:
            yield f"{other!r} and {label!r} are two classes: if they are one, correct the labels"


def _shared_notes(train: Sequence[LabelledRow], validation: Sequence[LabelledRow]) -> Iterator[str]:
    """Yield a line about images in both parts, and about groups (patients) in both parts."""
    files = {row.file for row in train} & {row.file for row in validation}
    if files:
        number = count_of(len(files), "image")
        yield f"{number} in training and in validation, such as {min(files)}: a leak"
    groups = {row.group for row in train} & {row.group for row in validation} - {""}
    if groups:
        yield (
            f"{count_of(len(groups), 'group')} of images with a part in training and a part in "
            f"validation, such as {min(groups)}: a leak"
        )


def _class_folders(files: Iterable[str]) -> set[str]:
    """Return the folders of files below the folders of parts; fewer than two are no classes."""
    folders = {_class_folder(file) for file in files} - {""}
    return folders if len(folders) > 1 else set()


def _class_folder(file: str) -> str:
    """Return the first folder in a path that is not a part or a wrapper, or ""."""
    for folder in file.split("/")[:-1]:
        if part_of_name(folder) is None and folder.lower() not in WRAPPERS:
            return folder
    return ""


def _are_listed(folders: Iterable[str], listed: Sequence[str]) -> bool:
    """Return whether all folders are in a class list."""
    return min(ClassIndex(listed).match([(name,) for name in folders])) >= 0


def _is_for_testing(tables: Tables, labelled: Labelled) -> bool:
    """Return whether tables have only labels of a part to test on, such as ImageNet's val/."""
    rows = _all_rows(labelled)
    parts = {next(filter(None, map(part_of_name, row.file.split("/")[:-1])), None) for row in rows}
    return not can_train(tables) or parts <= {"validation", "test"}


def _are_right(place: Path, tables: Tables, labelled: Labelled) -> bool:
    """Return whether class folders give the labels; raise ValueError if that is uncertain."""
    if _agree(labelled):
        has_split = len(labelled.rows) > 1
        return not has_split or "validation" in divide(place, lambda problem: None).parts
    rows = _all_rows(labelled)
    folders = sorted(_class_folders(row.file for row in rows))
    if not folders or _are_numbered(folders) or is_usual(tables):
        return False
    table, row = next(iter(tables.paths.values())), rows[0]
    raise ValueError(
        f"{place} has folders ({shorten(folders)}), and {table} has other labels ({row.file}: "
        f"{row.label!r}): name {table} as the data to learn its labels, or list the folders in "
        "classes.csv to learn them"
    )


def _agree(labelled: Labelled) -> bool:
    """Return whether images have the same class by their folders and by their labels."""
    rows = _all_rows(labelled)
    pairs = {(_class_folder(row.file), row.label) for row in rows}
    folders, labels = ({pair[at] for pair in pairs} for at in (0, 1))
    if len(folders) == len(labels) == len(pairs) and not _are_numbered(folders):
        return "" not in folders
    return all(fold(row.label) in map(fold, row.file.split("/")[:-1]) for row in rows)


def _answers(labelled: Labelled) -> set[tuple[str, str, Part | None]]:
    """Return the label and the part of each file."""
    return {(row.file, row.label, part) for part, rows in labelled.rows.items() for row in rows}


def _are_numbered(folders: Iterable[str]) -> bool:
    """Return whether folders differ only in a number after a word: `part_1`, `part_2`."""
    words = {re.sub(r"\d+", "", name) for name in folders}
    return len(words) == 1 and words != {""}


def _all_rows(labelled: Labelled) -> list[LabelledRow]:
    return [row for rows in labelled.rows.values() for row in rows]
