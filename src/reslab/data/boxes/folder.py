"""Folders of images with boxes: COCO or VOC, by what is in them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch

from reslab.data.boxes.annotations import Annotations, detection_set
from reslab.data.boxes.coco import find_coco, part_of, read_coco, year_of
from reslab.data.boxes.sets import DetectionSet, DetectionSplits
from reslab.data.boxes.voc import VOC_CLASSES, YEARS, all_keys, find_voc, has_part, listed, read_voc
from reslab.errors import unknown_name

# what is trained on, and what is tested on
VOC = {
    "07": ((("VOC2007", "trainval"),), ("VOC2007", "test")),
    "12": ((("VOC2012", "train"),), ("VOC2012", "val")),  # its test was never published
    "07+12": ((("VOC2007", "trainval"), ("VOC2012", "trainval")), ("VOC2007", "test")),
}


@dataclass(frozen=True)
class DetectionParts:
    """What a folder holds, as written: both parts, or the whole."""

    layout: str  # COCO or VOC
    train: Annotations | None = None
    test: Annotations | None = None
    whole: Annotations | None = None

    def __iter__(self) -> Iterator[Annotations]:
        return (part for part in (self.train, self.test, self.whole) if part is not None)


def is_detection(folder: Path) -> bool:
    """Whether a folder holds boxes in a layout that is known."""
    return folder.is_dir() and bool(find_coco(folder) or find_voc(folder))


def open_detection(
    folder: Path, *, years: str = "", validation: float = 0.2, seed: int = 0
) -> DetectionSplits:
    """The train and the test part of a folder, or the fraction `validation` drawn by `seed` where
    there are no parts. `years`: 2014 or 2017 of COCO; 07, 12 or 07+12 of VOC."""
    return split_parts(read_parts(folder, years), validation, seed)


def split_parts(parts: DetectionParts, validation: float, seed: int = 0) -> DetectionSplits:
    """The same of what was read."""
    if parts.whole is not None:
        return split_boxes(detection_set(parts.whole), validation, seed)
    assert parts.train is not None, "a folder without a whole has both parts"
    assert parts.test is not None
    return DetectionSplits(detection_set(parts.train), detection_set(parts.test))


def open_all_detection(folder: Path, *, years: str = "") -> DetectionSet:
    """Every image as one set: of a folder with parts its test part, for evaluation."""
    parts = read_parts(folder, years)
    return detection_set(next(part for part in (parts.test, *parts) if part is not None))


def split_boxes(whole: DetectionSet, validation: float, seed: int) -> DetectionSplits:
    """The fraction `validation` of the images, at least one and not all; drawn by a hash of seed
    and name, so that images that are added later do not move those that were there."""
    if not 0 < validation < 1:
        raise ValueError(f"a validation part of {validation}: it must lie between 0 and 1")
    if len(whole) < 2:
        raise ValueError("one image with boxes cannot be split into training and validation")
    key = str(seed).encode()
    ranks = [blake2b(os.fsencode(file), digest_size=8, key=key).digest() for file in whole.files]
    number = min(max(round(validation * len(whole)), 1), len(whole) - 1)
    order = sorted(range(len(whole)), key=ranks.__getitem__)
    return DetectionSplits(
        whole.take("train", torch.tensor(sorted(order[number:]))),
        whole.take("validation", torch.tensor(sorted(order[:number]))),
    )


def read_parts(folder: Path, years: str = "") -> DetectionParts:
    """What is in the folder, with its faults; ValueError if it is neither COCO nor VOC."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is {'no folder' if folder.exists() else 'not there'}")
    if files := find_coco(folder):
        parts = _coco_parts(folder, files, years)
    elif homes := find_voc(folder):
        parts = _voc_parts(folder, homes, years)
    else:
        raise ValueError(
            f"{folder} holds no boxes: COCO has annotations/instances_*.json or instances.json "
            "beside its images, VOC has Annotations/ and JPEGImages/"
        )
    if parts.train is not None and parts.test is not None:
        parts.test.classes = parts.train.classes
    return parts


def _coco_parts(folder: Path, files: list[Path], years: str) -> DetectionParts:
    there = sorted({year_of(path) for path in files} - {""})
    if years and years not in there:
        raise ValueError(f"{folder}: {unknown_name('year of COCO', years, there)}")
    if len(there) > 1 and not years:
        raise ValueError(f"{folder} has annotations of {' and '.join(there)}: say which year")
    chosen: dict[str, Path] = {}
    for path in files:
        if years and year_of(path) != years:
            continue
        part = part_of(path)
        if part in chosen:
            raise ValueError(f"{path} and {chosen[part]} are both of part {part!r}: keep one")
        chosen[part] = path
    test = chosen.get("val") or chosen.get("test")
    if "train" in chosen and test:
        return DetectionParts(
            "COCO",
            train=read_coco(chosen["train"], folder, "train"),
            test=read_coco(test, folder, "validation"),
        )
    if len(chosen) > 1:
        raise ValueError(
            f"{folder} has {', '.join(path.name for path in chosen.values())}: a part to train on "
            "and one to test on are needed, or a single file to split"
        )
    (path,) = chosen.values()
    return DetectionParts("COCO", whole=read_coco(path, folder, folder.resolve().name))


def _voc_parts(folder: Path, homes: list[Path], years: str) -> DetectionParts:
    named = {home.resolve().name: home for home in homes}
    if not years:
        years = "+".join(year.removeprefix("VOC20") for year in YEARS if year in named)
    if not years:
        return _own_voc(folder, homes[0])
    if years not in VOC:
        raise ValueError(f"{folder}: {unknown_name('union of VOC', years, VOC)}")
    trained, tested = VOC[years]
    if years == "07" and "VOC2007" in named and not has_part(named["VOC2007"], "test"):
        trained, tested = (("VOC2007", "train"),), ("VOC2007", "val")

    def read(lists: tuple[tuple[str, str], ...], name: str) -> Annotations:
        for year, part in lists:
            if year not in named:
                raise ValueError(f"{folder}: {years} needs {year}/, which is not there")
            if not has_part(named[year], part):
                raise ValueError(
                    f"{folder}: {years} needs the annotations of {year} {part}, which are not there"
                )
        homes = [(named[year], listed(named[year], part)) for year, part in lists]
        return read_voc(homes, folder, name, VOC_CLASSES)

    return DetectionParts("VOC", train=read(trained, "train"), test=read((tested,), "test"))


def _own_voc(folder: Path, home: Path) -> DetectionParts:
    """trainval and test, or train and val, or everything."""
    for train, test in (("trainval", "test"), ("train", "val"), ("train", "test")):
        if has_part(home, train) and has_part(home, test):
            return DetectionParts(
                "VOC",
                train=read_voc([(home, listed(home, train))], folder, "train"),
                test=read_voc([(home, listed(home, test))], folder, "validation"),
            )
    name = folder.resolve().name
    return DetectionParts("VOC", whole=read_voc([(home, all_keys(home))], folder, name))
