"""Decide how a folder of images is divided: which of its folders are parts, and which are classes.

Parts are recognised by name (`part_names.py`), and confirmed by structure: a part has class folders
or is packed. `archive/archive/train`, `seg_train/seg_train` and `train/images` are followed to the
folder that holds the classes.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from reslab.data.class_folders import (
    OnProblem,
    Problem,
    count_files,
    holds_images,
    inner_folders,
    is_folder,
    is_system_folder,
    list_folder,
    subfolders,
)
from reslab.data.class_names import ClassIndex, fold
from reslab.data.left_out import LeftOut, shorten
from reslab.data.location import TABLE_SUFFIXES, Location, Url
from reslab.data.part_names import Part, is_plain, part_of_name
from reslab.data.shards.foreign import NAME_FILES, NAME_LISTS, foreign_parts, is_foreign
from reslab.data.shards.reader import is_indexed, is_packed, remote_parts

WHOLE_FOLDER = "whole"  # the name for the images of an unsplit folder
PREFERRED = ("train", "training", "val", "validation", "valid", "test")  # of several for one part
WRAPPERS = ("images", "imgs", "photos", "data", "dataset")  # never classes
MAX_WRAPPERS = 4  # folders to follow, each the only one in its parent


@dataclass(frozen=True)
class Division:
    """The parts of a folder, and the folders beside them that are not read, with the reasons."""

    parts: dict[str, Location]  # "train" and "validation", or WHOLE_FOLDER alone
    beside: dict[Path, str] = field(default_factory=dict)


def divide(place: Location, on_problem: OnProblem) -> Division:
    """Find the parts of a folder: training and validation, one of them, or the folder as a whole.

    If the parts are ambiguous, that is a problem, and the folder is then treated as a whole.
    """
    if isinstance(place, Url):
        train, validation = remote_parts(place)
        found = {"train": train, "validation": validation}
        return Division({n: root for n, root in found.items() if root} or {WHOLE_FOLDER: place})
    try:
        division = _divide(_unwrap(place))
        return replace(division, beside=_beside_wrappers(division, place) | division.beside)
    except AmbiguousFolder as error:
        on_problem(Problem("ambiguous parts", ".", str(error), str(error)))
        return Division({WHOLE_FOLDER: place})


class AmbiguousFolder(ValueError):
    """Raised if folders may be parts or classes; the message says how to make it clear."""


def _divide(folder: Path) -> Division:
    if is_packed(folder):
        divided = None if is_indexed(folder) else foreign_parts(folder)
        return Division(dict.fromkeys(divided or (WHOLE_FOLDER,), folder))
    names = subfolders(folder)
    named = _named_parts(folder, names)
    if not _are_parts(folder, names, named):
        return Division({WHOLE_FOLDER: folder})
    train = _preferred(folder, named["train"])
    root = _classes_in(folder / train) if train else None
    tests = [name for name in named["test"] if not _is_unlabelled(folder / name, root)]
    validation = _preferred(folder, named["validation"]) or _preferred(folder, tests)
    roots: dict[str, Location] = {"train": root} if root else {}
    if validation:
        roots["validation"] = _classes_in(folder / validation)
    beside = {}
    for name in names:
        if name in (train, validation):
            continue
        part = part_of_name(name)
        used = train if part == "train" else validation
        if part is None:
            beside[folder / name] = "is not a part by its name"
        elif part == "test" and name not in tests:
            beside[folder / name] = "has no class folders"
        elif used:
            beside[folder / name] = f"is left out for {used}/"
    return Division(roots, beside)


def _named_parts(folder: Path, names: Sequence[str]) -> dict[Part, list[str]]:
    """Return the folders that may be each part; one without classes needs a plain name."""
    named: dict[Part, list[str]] = {"train": [], "validation": [], "test": []}
    for name in names:
        part = part_of_name(name)
        if part == "test" or (part and (is_plain(name) or _has_classes(folder / name))):
            named[part].append(name)
    return named


def _are_parts(folder: Path, names: Sequence[str], named: dict[Part, list[str]]) -> bool:
    """Return whether the folders with a part's name are parts, and not classes.

    There are photographs of trains: `train/` among other classes is one of them.
    """
    train, validation, tests = named.values()
    if train and (validation or tests):
        return True
    divided = [name for name in (*train, *validation, *tests) if _has_classes(folder / name)]
    if not divided:
        return False
    others = [name for name in names if name not in (*train, *validation, *tests)]
    others = [name for name in others if holds_images(folder / name)]
    if others and not any(map(_is_nested, (folder / name for name in others))):
        part = folder / divided[0]
        if _is_nested(part):
            raise AmbiguousFolder(
                f"{part} has class folders, but {others[0]}/ beside it has none: if {part.name}/ "
                f"is a part, open it alone, or move {others[0]}/ into another part or elsewhere; "
                "if it is a class, rename it"
            )
    return not others


def _is_nested(folder: Path) -> bool:
    """Return whether a folder has subfolders or shards, and no images beside them."""
    return is_packed(folder) or bool(inner_folders(folder))


def _preferred(folder: Path, names: Sequence[str]) -> str | None:
    """Return the folder to use for a part: one of PREFERRED, or with no further words."""
    if not names:
        return None

    def rank(name: str) -> int:
        usual = name.lower() in PREFERRED
        return PREFERRED.index(name.lower()) if usual else len(PREFERRED) + (not is_plain(name))

    first, *others = sorted(names, key=rank)
    if others and rank(others[0]) == rank(first):
        part = part_of_name(first)
        raise AmbiguousFolder(
            f"{folder} has several folders that may be its {part} part ({shorten(sorted(names))}): "
            f"rename one of them {'val' if part == 'validation' else part}/"
        )
    return first


def _has_classes(folder: Path) -> bool:
    """Return whether a folder named as a part has class folders or is packed."""
    root = _classes_in(folder)
    return is_packed(root) or bool(subfolders(root))


def _is_unlabelled(test: Path, train: Path | None) -> bool:
    """Return whether a test part has no classes, or one folder that is not a class: `test/all/`."""
    if not _has_classes(test):
        return True
    root = _classes_in(test)
    names = () if is_packed(root) or train is None or is_packed(train) else subfolders(root)
    return len(names) == 1 and ClassIndex(subfolders(train or root)).match([names]) == [-1]


def _classes_in(folder: Path) -> Path:
    """Follow doubled folders (`train/train`) and wrappers (`train/images`) in a part."""
    for _ in range(MAX_WRAPPERS):
        names = () if is_packed(folder) else subfolders(folder)
        if len(names) != 1:
            break
        (name,) = names
        part = part_of_name(folder.name)
        doubled = fold(name) == fold(folder.name) or (part and part_of_name(name) == part)
        if not doubled and name.lower() not in WRAPPERS:
            break
        folder = folder / name
    return folder


def _unwrap(place: Path) -> Path:
    """Follow folders that hold nothing but one folder with parts, or with the same name."""
    folder = place
    for _ in range(MAX_WRAPPERS):
        if is_packed(folder):
            return folder
        names = subfolders(folder)
        if any(part_of_name(name) for name in names):
            if len(names) > 1 or not _holds_parts(folder / names[0]):
                return folder
            folder = folder / names[0]
            continue
        with_images = list(islice((n for n in names if holds_images(folder / n)), 2))
        if len(with_images) != 1:
            break
        (name,) = with_images
        doubled = fold(name) == fold(folder.absolute().name)
        folder = folder / name
        if doubled or name.lower() in WRAPPERS:
            place = folder if len(subfolders(folder)) > 1 else place
    return place


def _holds_parts(folder: Path) -> bool:
    """Return whether a folder has a training part and another one: `train/train`, `train/val`."""
    names = () if is_packed(folder) else subfolders(folder)
    return {part_of_name(name) for name in names} - {None} > {"train"}


def relative(root: Location, place: Location) -> str:
    """Return the path from a folder to one of its parts, "" for the folder itself."""
    if root == place:
        return ""
    if isinstance(root, Path) and isinstance(place, Path):
        return os.path.relpath(root, place).replace(os.sep, "/")
    return root.name


def division_notes(division: Division, place: Location) -> tuple[str, ...]:
    """Return a line for each folder beside the parts, and for the files beside them."""
    lines = [in_words(folder, reason) for folder, reason in division.beside.items()]
    left_out = LeftOut()
    for entry in entries_beside(division, place):
        left_out.add_beside(entry, is_folder(entry))
    return (*(line for line in lines if line), *left_out.notes("", "parts"))


def entries_beside(division: Division, place: Location) -> Iterator[os.DirEntry[str]]:
    """Yield the files and system folders beside the parts and the folders above them."""
    for folder in _folders_above(division, place):
        for entry in list_folder(folder):
            if is_folder(entry):
                if is_system_folder(entry.name):
                    yield entry
            elif not _may_label(entry.name, division):
                yield entry


def _may_label(name: str, division: Division) -> bool:
    """Return whether a file may have labels of validation images, or names of classes."""
    if name in (*NAME_LISTS, *NAME_FILES):
        return any(isinstance(r, Path) and is_foreign(r) for r in division.parts.values())
    root = division.parts.get("validation")
    is_table = name.lower().endswith((*TABLE_SUFFIXES, ".mat"))
    return is_table and isinstance(root, Path) and not subfolders(root)


def _beside_wrappers(division: Division, place: Path) -> dict[Path, str]:
    """Return the folders without images beside the ones that were followed to the parts."""
    roots = [root for root in division.parts.values() if isinstance(root, Path)]
    return {
        folder / name: "is not a part by its name"
        for folder in _folders_above(division, place)
        for name in subfolders(folder)
        if not any(root.is_relative_to(folder / name) for root in roots)
    }


def _folders_above(division: Division, place: Location) -> list[Path]:
    """Return the folders from the opened one down to the parts, except for the parts."""
    above = {
        folder
        for root in division.parts.values()
        if isinstance(root, Path) and isinstance(place, Path)
        for folder in root.parents
        if folder.is_relative_to(place)
    }
    return sorted(above)


def in_words(folder: Path, reason: str) -> str | None:
    """Return a line about a folder that is not read; None if it has no files."""
    images, others = count_files(folder)
    if images:
        its = f"its {images:,} images are" if images > 1 else "its image is"
        return f"{folder.name}/ {reason}: {its} not read"
    return f"{folder.name}/ has no images" if others else None
