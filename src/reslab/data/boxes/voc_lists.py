"""Read the image lists in VOC's ImageSets, including the variants that other tools write."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from reslab.data.boxes.tree import inner_folders
from reslab.data.boxes.voc_homes import VocHome
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.part_names import Part, part_of_name
from reslab.runtime.files import read_text

LIST_FOLDER = "ImageSets"
ALIASES = {
    "train": ("train", "training"),
    "trainval": ("trainval",),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
SPLITS = (("trainval", "test"), ("train", "val"), ("train", "test"))
FLAGS = ("-1", "0", "1")  # the second column of a class's list, such as cat_train.txt


def has_part(home: VocHome, part: str) -> bool:
    """Return whether a split has a list of images, at least one of which is annotated.

    The annotations of the VOC2012 test set were never published.
    """
    return any(key in home.sheets for key in listed_keys(home, part))


def listed_keys(home: VocHome, part: str) -> list[str]:
    """Return the keys of the images in a split, from its list or else from its classes' lists."""
    names = Counter(_stem(key) for key in home.sheets)
    annotated = {_stem(key): key for key in home.sheets if names[_stem(key)] == 1}
    annotated |= {normalize("NFC", key): key for key in home.sheets}
    lines = (line for path in part_lists(home, part) for line in _lines(path))
    return list(dict.fromkeys(_key(line, annotated) for line in lines))


def list_with(home: VocHome, key: str) -> str:
    """Return the name of the list that has a key without annotations; "" if none has it."""
    for part in ALIASES:
        for path in part_lists(home, part):
            if any(_key(line, {}) == key for line in _lines(path)):
                return path.name
    return ""


class OwnSplit(NamedTuple):
    """The keys of a folder's training and test images, by its own lists."""

    train: list[str]
    test: list[str]
    note: str = ""  # if only one of the two has a list


def own_split(home: VocHome) -> OwnSplit | None:
    """Return the folder's own split, or None if it is unsplit.

    If only one of the two has a list, the other has the remaining annotated images; if none remain,
    the folder is unsplit. Raise ValueError for lists that cannot be used.
    """
    parts = {part: listed_keys(home, part) for part in ALIASES if part_lists(home, part)}
    everything = set(home.sheets)
    if {"train", "val"} <= parts.keys() and not set(parts.get("test", ())) & everything:
        parts.pop("test", None)  # as in VOC2012, whose test annotations were never published
    for part, keys in parts.items():
        if not set(keys) & everything:
            path = part_lists(home, part)[0]
            first = f"the first is {keys[0]!r}" if keys else "it is empty"
            raise ValueError(
                f"{path}: none of its images is annotated in {home.shown}/ ({first}); correct the "
                "list, or remove it"
            )
    for train, test in SPLITS:
        if train in parts and test in parts:
            return OwnSplit(parts[train], parts[test])
    if {"trainval", "val"} <= parts.keys():
        held_out = set(parts["val"])
        train = [key for key in parts["trainval"] if key not in held_out]
        return OwnSplit(train, parts["val"])
    for part, keys in parts.items():
        if rest := sorted(everything - set(keys)):
            is_test = part in ("val", "test")
            use = "trained on" if is_test else "tested on"
            name = part_lists(home, part)[0].name
            note = f"the {len(rest):,} annotated images that {name} does not list are {use}"
            return OwnSplit(rest, keys, note) if is_test else OwnSplit(keys, rest, note)
    if not parts and len(others := _text_files(home)) > 1:
        names = ", ".join(path.name for path in others[:4])
        raise ValueError(
            f"{others[0].parent} has lists, but none for training or testing ({names}): "
            "rename them to train.txt and val.txt, or remove them"
        )
    return None if parts else _split_by_folder(home)


def _split_by_folder(home: VocHome) -> OwnSplit | None:
    """Return the split by the subfolders of the annotations, such as Annotations/train/."""
    by_part: dict[Part | None, list[str]] = {}
    for key in home.sheets:
        names = reversed(key.split("/")[:-1])
        part = next((part for name in names if (part := part_of_name(name))), None)
        by_part.setdefault(part, []).append(key)
    test = by_part.get("validation") or by_part.get("test")
    if "train" not in by_part or not test:
        return None
    unused = len(home.sheets) - len(by_part["train"]) - len(test)
    note = f"{unused:,} annotated images are in neither of the two parts used" if unused else ""
    return OwnSplit(by_part["train"], test, note)


def part_lists(home: VocHome, part: str) -> list[Path]:
    """Return the file that lists a split, or else the lists of its classes (cat_train.txt)."""
    files = _text_files(home)
    names = "|".join(ALIASES[part])
    for pattern in (names, f".+_({names})"):
        for folder in dict.fromkeys(path.parent for path in files):
            found = [
                path
                for path in files
                if path.parent == folder and re.fullmatch(pattern, path.stem, re.IGNORECASE)
            ]
            if found:
                return found if pattern != names else found[:1]
    beside = (home.path / f"{name}{end}.txt" for name in ALIASES[part] for end in ("", "_list"))
    return [path for path in beside if path.is_file()][:1]


def _text_files(home: VocHome) -> list[Path]:
    """Return the text files in ImageSets/Main/, and then in ImageSets/, in any case."""
    sets = [path for path in inner_folders(home.path) if path.name.lower() == LIST_FOLDER.lower()]
    main = [path for place in sets for path in inner_folders(place) if path.name.lower() == "main"]
    paths = (path for folder in (*main, *sets) for path in sorted(folder.iterdir()))
    return [path for path in paths if path.suffix.lower() == ".txt" and path.name[0] != "."]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _key(line: str, annotated: dict[str, str]) -> str:
    """Return the image key on a line, which may also have a folder, a suffix and a flag.

    A key may have spaces, so the whole line is the key if an image with this key is annotated.
    """
    name, _, last = line.rpartition(" ") if " " in line else line.rpartition("\t")
    unflagged = name.strip() if name and last.strip() in FLAGS else line
    forms = [line, unflagged, line.split()[0]]
    keys = [normalize("NFC", key) for form in forms for key in (form, _stem(form))]
    return next((annotated[key] for key in keys if key in annotated), _stem(unflagged))


def _stem(name: str) -> str:
    """Return a file's name without its folders, on any system, and without a known suffix."""
    base = name.replace("\\", "/").rpartition("/")[2]
    stem, suffix = os.path.splitext(base)
    return stem if suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else base
