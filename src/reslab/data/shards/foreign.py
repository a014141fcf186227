"""Recognise folders with shards of other programs, and the part of a set that each shard has."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.left_out import is_system_folder
from reslab.data.part_names import Part, part_of_name
from reslab.data.shards.samples import has_samples
from reslab.data.shards.tar_files import is_shard, stem_of

TRIED = 3  # shards that are looked into; the first may be damaged
# files with the names of classes: one per line, or in JSON
NAME_LISTS = ("classnames.txt", "class_names.txt", "classes.txt", "labels.txt", "synsets.txt")
NAME_FILES = ("info.json", "_info.json", "dataset_info.json", "meta.json", "classes.json")
MOST_IMAGES = 100  # beside shards, such as a preview; a folder with more is one of images


@dataclass(frozen=True)
class ForeignShards:
    """The names of the tar files in a folder, and of the other files there."""

    names: list[str]
    others: list[str] = field(default_factory=list)


def is_foreign(folder: Path) -> bool:
    """Return whether a folder has shards of another program: tar files of images and classes."""
    names = shards_in(folder).names
    return any(has_samples(folder / name) for name in islice(names, TRIED))


def shards_in(folder: Path) -> ForeignShards:
    """List the tar files in a folder that has no subfolders, and hardly any images."""
    names: list[str] = []
    others: list[str] = []
    images = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                images += entry.name.lower().endswith(IMAGE_SUFFIXES)
                is_folder = entry.is_dir() and not is_system_folder(entry.name)
                if images > MOST_IMAGES or is_folder:
                    return ForeignShards([])
                (names if is_shard(entry.name) else others).append(entry.name)
    except OSError:  # reported when the folder is listed as one of class folders
        return ForeignShards([])
    return ForeignShards(sorted(names), sorted(others))


def shards_by_part(names: Sequence[str]) -> dict[Part | None, list[str]]:
    """Group shards by the part in their names: `imagenet-train-000000.tar`."""
    groups: dict[Part | None, list[str]] = {}
    for name in names:
        groups.setdefault(part_of_name(stem_of(name)), []).append(name)
    return groups


def foreign_parts(folder: Path) -> dict[str, list[str]] | None:
    """Return the shards of "train" and "validation", or of one of them; None if undivided."""
    groups = shards_by_part(shards_in(folder).names)
    train = groups.get("train", [])
    tested = groups.get("validation") or groups.get("test", [])
    if not (train and tested) and None in groups:
        return None
    parts = {"train": train, "validation": tested}
    return {name: shards for name, shards in parts.items() if shards}
