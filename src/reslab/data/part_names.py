"""Recognise from a name which part of a data set a folder or file holds."""

import re
from typing import Literal

Part = Literal["train", "validation", "test"]

WORDS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "validate": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
UNIT = r"set|data|dataset|images|imgs|split|part|folder"  # "trainset", "valdata"
_WORD = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def part_of_name(name: str) -> Part | None:
    """Return the part that a name contains as a word, in any case; None if it has none or several.

    Words are separated by anything but letters, or by capitals: `training_set`, `seg_train`,
    `Train2017`, `imagesTest`. A training list with the validation images (`train_val`) is a
    training part.
    """
    words = [word.lower() for piece in _CAMEL.split(name) for word in _WORD.findall(piece)]
    parts = [WORDS[stem] for word in words if (stem := _stem(word)) in WORDS]
    if parts == ["train", "validation"] and _adjacent(words):
        return "train"
    return parts[0] if len(set(parts)) == 1 else None


def is_plain(name: str) -> bool:
    """Return whether a name says nothing but its part: `Testing_set`, `val2017`, not `seg_val`."""
    words = [word.lower() for piece in _CAMEL.split(name) for word in _WORD.findall(piece)]
    rest = [word for word in words if _stem(word) not in WORDS]
    return part_of_name(name) is not None and all(re.fullmatch(UNIT, word) for word in rest)


def without_part(name: str) -> tuple[str, ...]:
    """Return the words of a name, in lower case, except the part: `trainLabels` is "labels"."""
    words = [word.lower() for piece in _CAMEL.split(name) for word in _WORD.findall(piece)]
    return tuple(word for word in words if _stem(word) not in WORDS)


def _stem(word: str) -> str:
    return re.sub(rf"(?<=.)(?:{UNIT})$", "", word) if word not in WORDS else word


def _adjacent(words: list[str]) -> bool:
    """Return whether a name says "train val", as in `instances_train_val.json`."""
    return "train val" in " ".join(words)
