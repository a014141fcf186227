"""Read the ground truth of ImageNet's validation images, as its development kit has it."""

import re
from collections.abc import Sequence
from pathlib import Path

from reslab.data.labels.images import LabelledRow
from reslab.data.labels.meta import read_meta
from reslab.data.labels.table import lines_of

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"  # a number from 1 for each image
CLASSES = "map_clsloc.txt"  # lines of wnid, number and name, in later kits
META = "meta.mat"  # the same for MATLAB
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.", re.IGNORECASE)


def read_ground_truth(path: Path, files: Sequence[str]) -> list[LabelledRow]:
    """Return the labels of validation images, whose numbers in the file are those in their names.

    Raise ValueError if the kit's list of classes is missing, or if an image is not in the file.
    """
    wnids = _wnids(path)
    numbers = [line.strip() for _, line in lines_of(path)]
    rows = []
    for file in files:
        match = _NUMBER.match(file.rpartition("/")[2])
        line = int(match[1]) if match else 0
        if not 0 < line <= len(numbers):
            raise ValueError(f"{path}: {file!r} is not one of its {len(numbers):,} images")
        number = numbers[line - 1]
        if number not in wnids:
            raise ValueError(f"{path}:{line}: class {number!r} is not in {path.parent}")
        rows.append(LabelledRow(file, wnids[number], path, line, ""))
    return rows


def _wnids(path: Path) -> dict[str, str]:
    """Return the wnid of each class number, from the list of classes beside the ground truth."""
    if (path.parent / META).is_file():
        return read_meta(path.parent / META)
    if not (path.parent / CLASSES).is_file():
        raise ValueError(
            f"{path} has the numbers of classes, not their names: put {META} or {CLASSES} of the "
            "development kit beside it, or use LOC_val_solution.csv"
        )
    rows = [line.split() for _, line in lines_of(path.parent / CLASSES)]
    return {row[1]: row[0] for row in rows if len(row) > 1}
