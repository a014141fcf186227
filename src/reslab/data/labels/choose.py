"""Find tables of labels in a folder, and choose the ones to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reslab.data.class_folders import is_folder, list_folder, subfolders
from reslab.data.image_finder import ImageFinder
from reslab.data.labels.columns import NotLabels
from reslab.data.labels.table import looks_like_table, read_columns
from reslab.data.left_out import CLASS_LIST, shorten
from reslab.data.location import TABLE_SUFFIXES
from reslab.data.part_names import Part, part_of_name, without_part
from reslab.data.parts import MAX_WRAPPERS, WRAPPERS

# words in the names of tables of labels, and of folders with tables
USUAL = {"label", "labels", "annotation", "annotations", "metadata", "meta", "classes"} | {
    "truth", "groundtruth", "gt", "solution", "target", "targets",
}  # fmt: skip
TABLE_FOLDERS = {"label", "labels", "annotation", "annotations", "csv", "csvs", "metadata", "meta"}
MANY = 50  # files in a folder
NEVER = {"submission", "submissions", "readme", "license", "requirements"}


@dataclass(frozen=True)
class Tables:
    """The tables that together hold the labels of a folder, by part; None for the whole folder."""

    paths: dict[Part | None, Path]
    unused: tuple[Path, ...] = ()  # other tables, for each of which there is a note
    notes: tuple[str, ...] = ()


class SeveralTables(ValueError):
    """Raised if several tables may have the labels; the message says how to choose one."""

    def __init__(self, tables: Sequence[Tables]) -> None:
        self.tables = tables
        paths = [next(iter(group.paths.values())) for group in tables]
        super().__init__(
            f"several files may have the labels ({shorten(map(str, paths), 3)}): name the one to "
            f"use as the data, such as {paths[0]}"
        )


def find_tables(folder: Path) -> list[Path]:
    """Return the files in a folder that may be tables of labels.

    They are at the top, in folders of parts, in folders such as `labels/`, or below an only folder.
    """
    for _ in range(MAX_WRAPPERS):
        names = subfolders(folder)
        known = [
            name
            for name in names
            if part_of_name(name) or name.lower() in TABLE_FOLDERS or name.lower() in WRAPPERS
        ]
        places = [folder, *(folder / name for name in known)]
        found = [path for place in places for path in tables_in(place)]
        if found or len(names) != 1:
            return found
        folder = folder / names[0]
    return []


def tables_in(folder: Path) -> list[Path]:
    """Return the files in one folder that may be tables of labels.

    In a folder with many, they are a file for each image, as in YOLO format.
    """
    found = [
        folder / entry.name
        for entry in list_folder(folder)
        if entry.name.lower().endswith(TABLE_SUFFIXES)
        and entry.name != CLASS_LIST
        and not NEVER & set(without_part(entry.name))
        and not is_folder(entry)
    ]
    return [] if len(found) > MANY else list(filter(looks_like_table, found))


def tables_with(path: Path, finder: ImageFinder) -> Tables:
    """Return a table of training labels with the tables beside it that have the other parts."""
    if part_of_name(path.stem) != "train":
        return Tables({part_of_name(path.stem): path})
    beside = [
        other
        for other in tables_in(path.parent)
        if part_of_name(other.stem) in ("validation", "test")
        and (without_part(other.stem), other.suffix) == (without_part(path.stem), path.suffix)
    ]
    return choose_tables([path, *beside], path.parent, finder)


def choose_tables(paths: Sequence[Path], root: Path, finder: ImageFinder) -> Tables:
    """Choose the tables that have labels of the images listed by `finder`.

    The paths are below `root`. Raise NotLabels if there are no such tables, and SeveralTables if
    more than one may be meant.
    """
    reasons: dict[Path, str] = {}
    groups: dict[tuple[str, ...], dict[Part | None, Path]] = {}
    for path in paths:
        part = part_of(path, root)
        try:
            read_columns(path, finder)
        except ValueError as error:
            reasons[path] = str(error)
            continue
        key = without_part(str(path.relative_to(root).with_suffix("")))
        group = groups.setdefault((*key, "split" if part else ""), {})
        if part in group:
            raise SeveralTables([Tables({part: group[part]}), Tables({part: path})])
        group[part] = path
    if not groups:
        raise NotLabels("; ".join(list(reasons.values())[:2]))
    candidates = [Tables(group) for group in groups.values()]
    for is_better in (can_train, _has_split, is_usual, _says_labels):
        candidates = list(filter(is_better, candidates)) or candidates
    if len(candidates) > 1:
        raise SeveralTables(candidates)
    (chosen,) = candidates
    unused = [path for path in paths if path not in chosen.paths.values()]
    notes = tuple(reasons.get(path, f"{path} has labels too, and is not read") for path in unused)
    return Tables(chosen.paths, tuple(unused), notes)


def is_usual(tables: Tables) -> bool:
    """Return whether a name says that a table has labels, or the labels of a part."""
    return any(part or USUAL & _words(path) for part, path in tables.paths.items())


def part_of(path: Path, root: Path) -> Part | None:
    """Return the part that a table's name says, or else the name of its folder below `root`."""
    part = part_of_name(path.stem)
    return part_of_name(path.parent.name) if part is None and path.parent != root else part


def can_train(tables: Tables) -> bool:
    """Return whether there is a training part, or a table for the whole folder."""
    return None in tables.paths or "train" in tables.paths


def _has_split(tables: Tables) -> bool:
    return len(tables.paths) > 1


def _says_labels(tables: Tables) -> bool:
    return any(_words(path) & {"label", "labels"} for path in tables.paths.values())


def _words(path: Path) -> set[str]:
    return set(without_part(path.stem))
