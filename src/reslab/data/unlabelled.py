"""Explain what is missing from a folder of images without class folders."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.left_out import shorten
from reslab.data.location import TABLE_SUFFIXES
from reslab.data.shards.tar_files import is_shard
from reslab.errors import os_reason

# files that may have labels, in formats that are not read
OTHER_TABLES = (
    ".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet", ".feather", ".pkl", ".pickle", ".mat",
    ".npy", ".npz", ".h5", ".hdf5", ".db", ".sqlite", ".yaml", ".yml", ".xml",
)  # fmt: skip
ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip", ".7z", ".rar")
TABLE = "labels.csv with the columns file and label"
LABELS = re.compile(r"label|annotation|train|val|test|truth|target|class", re.I)
_NUMBERED = re.compile(r"([^\W\d_]+)[ ._-]*\d+")


def without_classes(root: Path, beside: Sequence[Path] = ()) -> str:
    """Return why the images in `root` cannot be learned; `beside` are folders to search for labels.

    Raises ValueError if it cannot be listed.
    """
    names = _names(root)
    if any(name.startswith("ILSVRC2012_val_") for name in names):
        return (
            f"{root} has ImageNet's validation images in a single folder: put the file with their "
            "labels beside them, LOC_val_solution.csv, or ILSVRC2012_validation_ground_truth.txt "
            "and meta.mat of the development kit"
        )
    line = f"{root} has no class folders"
    archives = [name for name in names if name.lower().endswith(ARCHIVES)]
    if archives and not any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        return f"{line} but archives ({shorten(archives, 3)}){_way_to_unpack(archives)}"
    tables = [path for folder in (root, *beside) for path in _other_tables(folder)]
    if tables:
        return f"{line}; if {tables[0]} has the labels, save them as {TABLE}"
    texts = [name for name in names if name.lower().endswith(TABLE_SUFFIXES)]
    named = [name for name in texts if LABELS.search(name)]
    line += f", and {named[0]} is not a table of labels" if named else ""
    line += ": put the images of each class into a subfolder"
    classes = _in_names(names)
    if classes:
        return f"{line}, or their names ({shorten(classes, 3)}) into {TABLE}"
    return f"{line}, or write the labels into {TABLE}"


def _way_to_unpack(archives: Sequence[str]) -> str:
    way = ": extract the images of each class into a subfolder"
    if any(map(is_shard, archives)):
        return f", which are not shards of images with their classes (.cls or .json){way}"
    return way


def _other_tables(folder: Path) -> list[Path]:
    """Return the files in a folder that may have labels but are not read."""
    return [folder / name for name in _names(folder) if name.lower().endswith(OTHER_TABLES)]


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, except hidden ones."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise ValueError(f"{folder} cannot be listed: {os_reason(error)}") from None


def _in_names(names: Sequence[str]) -> list[str]:
    """Return the words that begin all names, if they may be classes: `cat.0.jpg`, `dog_1.jpg`."""
    matches = [_NUMBERED.match(os.path.splitext(name)[0]) for name in names]
    counts = Counter(match[1] for match in matches if match)
    is_complete = counts.total() == len(names) and min(counts.values(), default=0) > 1
    return sorted(counts) if is_complete and len(counts) > 1 else []
