"""Open folders of images with boxes, in COCO or VOC layout."""

from pathlib import Path

import torch

from reslab.data.boxes.annotations import Annotations, align_classes
from reslab.data.boxes.box_faults import alike_classes
from reslab.data.boxes.build import detection_set
from reslab.data.boxes.coco import find_coco, part_of, read_coco, year_of
from reslab.data.boxes.image_files import unlisted_images
from reslab.data.boxes.sets import DetectionSet, DetectionSplits
from reslab.data.boxes.voc import VOC_CLASSES, YEARS, find_voc, read_voc
from reslab.data.boxes.voc_lists import LIST_FOLDERS, all_keys, has_part, listed_keys, own_split
from reslab.data.class_folders import Problem
from reslab.data.datasets import Splits, draw_validation
from reslab.errors import unknown_name

# union of VOC years -> the lists to train on, and the list to test on
VOC_UNIONS = {
    "07": ((("VOC2007", "trainval"),), ("VOC2007", "test")),
    "12": ((("VOC2012", "train"),), ("VOC2012", "val")),  # its test set was never published
    "07+12": ((("VOC2007", "trainval"), ("VOC2012", "trainval")), ("VOC2007", "test")),
}
AnnotatedFolder = Splits[Annotations] | Annotations  # both splits, or an unsplit folder


def is_detection(folder: Path) -> bool:
    """Return whether a folder has box annotations in a known layout."""
    return folder.is_dir() and bool(find_coco(folder) or find_voc(folder))


def open_detection(
    folder: Path, *, years: str = "", validation: float = 0.2, seed: int = 0
) -> DetectionSplits:
    """Open the training and test splits of a folder.

    From an unsplit folder, the fraction `validation` of the images is split off, chosen by `seed`.
    `years` is 2014 or 2017 for COCO, and 07, 12 or 07+12 for VOC.
    """
    return split_annotations(read_annotations(folder, years), validation, seed)


def split_annotations(
    annotations: AnnotatedFolder, validation: float, seed: int = 0
) -> DetectionSplits:
    """Build the training and test sets from annotations, split as in `open_detection`."""
    if isinstance(annotations, Splits):
        return Splits(detection_set(annotations.train), detection_set(annotations.test))
    return split_boxes(detection_set(annotations), validation, seed)


def all_parts(annotations: AnnotatedFolder) -> tuple[Annotations, ...]:
    if isinstance(annotations, Splits):
        return annotations.train, annotations.test
    return (annotations,)


def evaluation_part(annotations: AnnotatedFolder) -> Annotations:
    """Return the annotations to evaluate on: the test split, or an unsplit folder as a whole."""
    return annotations.test if isinstance(annotations, Splits) else annotations


def split_boxes(whole: DetectionSet, validation: float, seed: int) -> DetectionSplits:
    """Split off the fraction `validation` of the images, at least one and never all.

    Images are ranked by a hash of seed and name, so images added later do not change the rank of
    earlier ones.
    """
    if len(whole) < 2:
        raise ValueError(
            f"{whole.name} has one image, but a split into training and validation needs two: "
            "add images"
        )
    train, held_out = draw_validation(whole.files, validation, seed, [torch.arange(len(whole))])
    return Splits(whole.take("train", train), whole.take("validation", held_out))


def read_annotations(folder: Path, years: str = "") -> AnnotatedFolder:
    """Read a folder's annotations and collect their problems.

    Raises ValueError if the folder has neither COCO nor VOC layout.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")
    if files := find_coco(folder):
        annotations = _read_coco_folder(folder, files, years)
    elif homes := find_voc(folder):
        annotations = _read_voc_folder(folder, homes, years)
    else:
        raise ValueError(
            f"{folder} has no annotated boxes: COCO has annotations/instances_*.json or "
            "instances.json beside the images, VOC has Annotations/ and JPEGImages/"
        )
    if isinstance(annotations, Splits):
        align_classes(annotations.train, annotations.test)
    add_remarks(folder, all_parts(annotations))
    return annotations


def add_remarks(folder: Path, parts: tuple[Annotations, ...]) -> None:
    """Add remarks on the folder as a whole to the first part."""
    remarks = [alike_classes(parts[0].classes.values())]
    if not any(part.problems for part in parts):  # else images may be unlisted for this reason
        remarks.append(unlisted_images(folder, parts))
    parts[0].remarks += [remark for remark in remarks if remark]


def _read_coco_folder(folder: Path, files: list[Path], years: str) -> AnnotatedFolder:
    file_years = sorted({year_of(path) for path in files} - {""})
    if years and years not in file_years:
        raise ValueError(f"{folder}: {unknown_name('COCO year', years, file_years)}")
    if len(file_years) > 1 and not years:
        raise ValueError(
            f"{folder} has annotations of {' and '.join(file_years)}: train with "
            f"years={file_years[-1]}, or remove the others"
        )
    by_part: dict[str, Path] = {}
    for path in files:
        if years and year_of(path) != years:
            continue
        part = part_of(path)
        if part in by_part:
            raise ValueError(f"{path} and {by_part[part]} are both for {part!r}: remove one")
        by_part[part] = path
    test = by_part.get("val") or by_part.get("test")
    if "train" in by_part and test:
        train = read_coco(by_part["train"], folder, "train")
        return Splits(train, read_coco(test, folder, "validation"))
    if len(by_part) > 1:
        raise ValueError(
            f"{folder} has {', '.join(path.name for path in by_part.values())}: it needs a "
            "training and a test split, or a single file to split"
        )
    (path,) = by_part.values()
    return read_coco(path, folder, folder.resolve().name)


def _read_voc_folder(folder: Path, homes: list[Path], years: str) -> AnnotatedFolder:
    by_year = {home.resolve().name: home for home in homes}
    if not years:
        years = "+".join(year.removeprefix("VOC20") for year in YEARS if year in by_year)
    if not years:
        return _read_own_voc(folder, homes[0])
    if years not in VOC_UNIONS:
        raise ValueError(f"{folder}: {unknown_name('union of VOC years', years, VOC_UNIONS)}")
    train, test = VOC_UNIONS[years]
    if years == "07" and "VOC2007" in by_year and not has_part(by_year["VOC2007"], "test"):
        train, test = (("VOC2007", "train"),), ("VOC2007", "val")
    for year, part in (*train, test):
        if year not in by_year:
            raise ValueError(f"{folder}: {years} needs {year}/, which is missing")
        if not has_part(by_year[year], part):
            raise ValueError(
                f"{folder}: {years} needs the annotations of {year} {part}, which are missing"
            )

    train_lists = [(by_year[year], part) for year, part in train]
    return Splits(
        _read_voc_lists(folder, train_lists, "train", VOC_CLASSES),
        _read_voc_lists(folder, [(by_year[test[0]], test[1])], "test", VOC_CLASSES),
    )


def _read_own_voc(folder: Path, home: Path) -> AnnotatedFolder:
    """Read the folder's own training and test splits, or all images unsplit if it has no lists."""
    split = own_split(home)
    if split is None:
        return read_voc([(home, all_keys(home))], folder, folder.resolve().name)
    train = read_voc([(home, split.train)], folder, "train")
    if split.note:
        train.remarks.append(Problem("one list", LIST_FOLDERS[-1], split.note))
    return Splits(train, read_voc([(home, split.test)], folder, "validation"))


def _read_voc_lists(
    folder: Path, lists: list[tuple[Path, str]], name: str, classes: tuple[str, ...] = ()
) -> Annotations:
    keys = [(home, listed_keys(home, part)) for home, part in lists]
    return read_voc(keys, folder, name, classes)
