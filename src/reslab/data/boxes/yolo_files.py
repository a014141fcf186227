"""Find the images, labels and class names of a YOLO data set.

YOLO has a text file of boxes for each image. A data file names the classes and the parts; without
one, the names of folders say which part they hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reslab.data.boxes.image_files import images_below
from reslab.data.boxes.tree import Folder
from reslab.data.boxes.yolo_data import (
    PARTS,
    DataFile,
    ImageFinder,
    existing,
    find_data_file,
    read_lines,
)
from reslab.data.boxes.yolo_labels import (
    NAMES_FILES,
    ROW,
    first_line,
    pair_labels,
    part_of_path,
    text_files,
)
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.left_out import count_of
from reslab.data.part_names import Part, part_of_name

ByPart = dict[Part | None, list[str]]  # images; None: not divided


@dataclass(frozen=True)
class YoloFiles:
    """The images of a data set by part with their labels, and the names of its classes."""

    images: ByPart  # relative to the folder
    labels: dict[str, str]  # label files by image
    names: tuple[str, ...] = ()  # empty: no file names them
    source: str = "labels"  # the file that names the classes, relative to the folder
    notes: tuple[str, ...] = ()  # on images and labels that are not used
    keypoints: int = 0  # numbers in a row after its box


def find_yolo(tree: Folder) -> YoloFiles | None:
    """Return the files of a YOLO data set; None if a folder is not one.

    Raise ValueError if a data file is malformed or none of its training images exist.
    """
    folder = tree.path
    images = sorted(images_below(folder))
    labels = pair_labels(images, text_files(tree))
    if not labels.by_image:
        return None
    data_file = find_data_file(folder)
    if data_file is None and not labels.are_yolo(folder):
        return None
    notes = []
    if unused := labels.without_image(folder):
        files = count_of(len(unused), "label file")
        notes.append(f"{files} without an image: left out, such as {unused[0]}")
    if data_file is None:
        names, source = _names_beside(folder)
        by_part = _by_lists(tree, images) or _by_folder(images)
        return YoloFiles(by_part, labels.by_image, names, source or "labels", tuple(notes))
    by_part, more = _listed_parts(folder, data_file, images)
    shown = data_file.path.relative_to(folder).as_posix()
    return YoloFiles(
        by_part, labels.by_image, data_file.names, shown, (*notes, *more), data_file.keypoints
    )


def _listed_parts(folder: Path, data_file: DataFile, images: list[str]) -> tuple[ByPart, list[str]]:
    """Return the images of each part as a data file lists them, and notes on what is missing."""
    here = data_file.path.parent
    base = existing(data_file.base, (here, folder)) or here
    finder = ImageFinder(folder, (base, here, folder), images)
    by_part: ByPart = {}
    notes = []
    for key, part in PARTS.items():
        texts = data_file.entries[key]
        found = [image for text in texts for image in finder.find(text)]
        if found:
            by_part[part] = list(dict.fromkeys((*by_part.get(part, ()), *found)))
        elif texts:
            notes.append(f"{key}: {', '.join(texts)} has no images here")
    train = by_part.get("train")
    if train is None:
        divided = _by_folder(images)
        if by_part or not divided.keys() & {"train", None}:
            reason = notes[0] if notes else "it names no training images"
            raise ValueError(f"{data_file.path}: {reason}")
        return divided, notes
    for part in ("validation", "test"):
        if by_part.get(part) and set(by_part[part]) == set(train):
            del by_part[part]
            note = f"the {part} images are the training images: the set is split instead"
            notes.append(note)
    return by_part, notes


def _by_lists(tree: Folder, images: list[str]) -> ByPart:
    """Divide images by lists that are named as a part: train.txt, autosplit_val.txt.

    Return nothing if there is no list of training images.
    """
    by_part: ByPart = {}
    for place in (tree, *tree.folders):
        for name in place.texts:
            part = part_of_name(Path(name).stem)
            if part and first_line(place.path / name).lower().endswith(IMAGE_SUFFIXES):
                finder = ImageFinder(tree.path, (place.path, tree.path), images)
                by_part.setdefault(part, []).extend(finder.find(name))
    listed: ByPart = {part: list(dict.fromkeys(files)) for part, files in by_part.items()}
    return listed if "train" in listed else {}


def _by_folder(images: Iterable[str]) -> ByPart:
    """Divide images by the first of their folders that is named as a part."""
    by_part: ByPart = {}
    for image in images:
        by_part.setdefault(part_of_path(str(PurePosixPath(image).parent)), []).append(image)
    if len(by_part) > 1 and None in by_part:
        del by_part[None]  # loose images beside the parts
    return by_part


def _names_beside(folder: Path) -> tuple[tuple[str, ...], str]:
    """Return the names in a text file of the folder or of a folder in it, and the file."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    for place in (folder, *inner):
        for path in sorted(place.iterdir()):
            is_list = NAMES_FILES.fullmatch(path.name) and not ROW.fullmatch(first_line(path))
            if is_list and (names := read_lines(path)):
                return names, path.relative_to(folder).as_posix()
    return (), ""
