"""Open folders of images with boxes, in COCO, VOC or YOLO layout."""

from pathlib import Path

import torch

from reslab.data.boxes.annotations import AnnotatedFolder, Annotations, align_classes
from reslab.data.boxes.box_faults import alike_classes
from reslab.data.boxes.build import detection_set
from reslab.data.boxes.coco_folder import read_coco_file, read_coco_folder
from reslab.data.boxes.foreign import foreign_annotations
from reslab.data.boxes.image_files import other_files, unlisted_images
from reslab.data.boxes.layouts import CocoFiles, VocHomes, find_layout
from reslab.data.boxes.sets import DetectionSet, DetectionSplits, GroundTruthTable
from reslab.data.boxes.voc_folder import read_voc_folder
from reslab.data.boxes.yolo import read_yolo
from reslab.data.boxes.yolo_files import YoloFiles
from reslab.data.datasets import Splits, draw_validation
from reslab.data.folder import read_folder
from reslab.data.location import is_annotation_file


def is_detection(place: Path) -> bool:
    """Return whether a folder has box annotations in a known layout, or is a COCO file."""
    return is_annotation_file(place) or (place.is_dir() and find_layout(place) is not None)


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
    earlier ones. If this would leave one of the splits without objects, the fraction is split off
    from the images with objects and from the others.
    """
    if len(whole) < 2:
        raise ValueError(
            f"{whole.name} has one image, but a split into training and validation needs two: "
            "add images"
        )
    train, held_out = draw_validation(whole.files, validation, seed, [torch.arange(len(whole))])
    assert isinstance(whole.truths, GroundTruthTable)
    has_objects = whole.truths.have_objects()
    count, drawn = int(has_objects.sum()), int(has_objects[held_out].sum())
    if count > 1 and drawn in (0, count):
        groups = has_objects.nonzero()[:, 0], (~has_objects).nonzero()[:, 0]
        train, held_out = draw_validation(whole.files, validation, seed, groups)
    return Splits(whole.take("train", train), whole.take("validation", held_out))


def read_annotations(folder: Path, years: str = "") -> AnnotatedFolder:
    """Read the annotations of a folder, or a COCO file, and collect their problems.

    Raises ValueError if the folder has none of the layouts.
    """
    if is_annotation_file(folder):
        whole = read_coco_file(folder)
        add_remarks(whole.root, (whole,))
        return whole
    must_be_folder(folder)
    annotations = _read_layout(folder, years)
    if isinstance(annotations, Splits):
        align_classes(annotations.train, annotations.test)
    add_remarks(folder, all_parts(annotations))
    return annotations


def _read_layout(folder: Path, years: str) -> AnnotatedFolder:
    layout = find_layout(folder, malformed=False)
    if layout is None:  # files of another format may have the names of COCO or VOC
        if foreign := foreign_annotations(folder):
            raise ValueError(f"{folder} has no boxes that can be read: {foreign}")
        layout = find_layout(folder)
    match layout:
        case CocoFiles(files):
            return read_coco_folder(folder, files, years)
        case VocHomes(homes):
            return read_voc_folder(folder, homes, years)
        case YoloFiles() as found:
            return read_yolo(folder, found)
        case None:
            raise ValueError(f"{folder} {_no_boxes(folder)}")


def _no_boxes(folder: Path) -> str:
    """Return why a folder is not a set with boxes."""
    if _has_classes(folder):
        return (
            "has images by class, without boxes: train a classifier on them, with own-resnet50 or "
            "another own-* recipe"
        )
    return (
        "has no annotated boxes: COCO has a JSON file with images, annotations and categories, VOC "
        "an XML file for each image, in Annotations/ or beside it, YOLO a text file for each image"
    )


def _has_classes(folder: Path) -> bool:
    try:
        read_folder(folder)
    except ValueError:
        return False
    return True


def must_be_folder(folder: Path) -> None:
    if folder.suffix.lower() in (".yaml", ".yml") and folder.is_file():
        raise ValueError(f"{folder} is not a folder: give the folder of its images")
    if not folder.is_dir():
        raise ValueError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")


def add_remarks(folder: Path, parts: tuple[Annotations, ...]) -> None:
    """Add remarks on the folder as a whole to the first part."""
    remarks = [alike_classes(parts[0].classes.values()), other_files(parts)]
    if not any(part.problems for part in parts):  # else images may be unlisted for this reason
        remarks.append(unlisted_images(folder, parts))
    parts[0].remarks += [remark for remark in remarks if remark]
