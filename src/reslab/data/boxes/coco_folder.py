"""Read a folder's COCO annotations, with one file per part or a single file to be split."""

from collections.abc import Sequence
from pathlib import Path

from reslab.data.boxes.annotations import AnnotatedFolder, Annotations
from reslab.data.boxes.coco import read_coco
from reslab.data.boxes.coco_files import coco_part, image_places, year_of
from reslab.data.boxes.image_files import place_images
from reslab.data.class_folders import Problem
from reslab.data.datasets import Splits
from reslab.data.part_names import Part
from reslab.errors import unknown_name

COCO_YEARS = {"2014", "2015", "2017"}  # the official splits, which share images


def read_coco_folder(folder: Path, files: Sequence[Path], years: str) -> AnnotatedFolder:
    """Read the annotation files of a folder: the training and the test split, or a single file."""
    by_part: dict[Part | None, list[Path]] = {}
    for path in _of_year(folder, files, years):
        by_part.setdefault(coco_part(path, folder), []).append(path)
    if "train" not in by_part and len(by_part) > 1 and _is_default(by_part.get(None, [])):
        by_part["train"] = by_part.pop(None)
    tested: Part = "validation" if "validation" in by_part else "test"
    if "train" in by_part and tested in by_part:
        path, test = _only(by_part["train"], "train", tested), _only(by_part[tested], tested)
        train = read_coco(path, folder, "train")
        others = [other for part in by_part.values() for other in part if other not in (path, test)]
        train.remarks += [_unused(other, test, folder) for other in others]
        return Splits(train, read_coco(test, folder, "validation"))
    if len(by_part) > 1:
        names = ", ".join(path.name for paths in by_part.values() for path in paths)
        raise ValueError(
            f"{folder} has {names}: it needs a training and a test split, or a single file to "
            "split; name them train and val, or name one file with `data`"
        )
    ((part, paths),) = by_part.items()
    return _read_single(folder, part, _only(paths, part))


def _is_default(files: Sequence[Path]) -> bool:
    """Return whether a file has the images without a subset in CVAT, beside its subsets."""
    return len(files) == 1 and files[0].stem.lower().endswith("default")


def _only(files: Sequence[Path], part: Part | None, tested: Part | None = None) -> Path:
    """Return the file of a part; if train and trainval are there, the one that fits `tested`."""
    if len(files) == 2 and tested:
        unions = [path for path in files if "trainval" in path.stem.lower()]
        plain = [path for path in files if path not in unions]
        if unions and plain:
            return plain[0] if tested == "validation" else unions[0]
    if len(files) > 1:
        raise ValueError(_several(files[0], files[1], part))
    return files[0]


def read_coco_file(path: Path) -> Annotations:
    """Read a single annotation file, whose images lie near it or near its folder."""
    path = path.absolute()
    part = read_coco(path, path.parent, path.stem, find_images=False)
    homes = (path.parent, path.parent.parent)
    places = [place for home in homes for place in image_places(path, home, part.files)]
    place_images(part, places, path.name, coco_part(path, path.parent))
    return part


def _of_year(folder: Path, files: Sequence[Path], years: str) -> Sequence[Path]:
    file_years = sorted({year_of(path) for path in files} - {""})
    if years:
        if years not in file_years:
            raise ValueError(f"{folder}: {unknown_name('COCO year', years, file_years)}")
        return [path for path in files if year_of(path) == years]
    parts = [coco_part(path, folder) for path in files]
    if len(file_years) > 1 and (len({*parts}) < len(parts) or {*file_years} <= COCO_YEARS):
        raise ValueError(
            f"{folder} has annotations of {' and '.join(file_years)}: train with "
            f"years={file_years[-1]}, or move the others to another folder"
        )
    return files


def _several(first: Path, second: Path, part: Part | None) -> str:
    if part:
        return (
            f"{first} and {second} are both for {part!r}: move one of them to another folder, or "
            "merge them"
        )
    return (
        f"{first} and {second} both have boxes, and their names do not say for which part: name "
        "them train.json and val.json, or name one file with `data`"
    )


def _unused(path: Path, test: Path, folder: Path) -> Problem:
    note = f"not used: {test.relative_to(folder)} is the split to test on"
    return Problem("part not used", str(path.relative_to(folder)), note)


def _read_single(folder: Path, part: Part | None, path: Path) -> Annotations:
    annotations = read_coco(path, folder, folder.resolve().name)
    if part:
        shown = str(path.relative_to(folder))
        other = "training" if part != "train" else "validation"
        note = f"it is split for training and validation, as there is no {other} part"
        annotations.remarks.append(Problem("one part", shown, note))
    return annotations
