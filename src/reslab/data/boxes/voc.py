"""Read Pascal VOC: one XML file per image, and one list of images per split."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.boxes.voc_lists import XML_FOLDER
from reslab.data.boxes.voc_xml import CORNERS, XmlAnnotation
from reslab.data.class_folders import FolderReader, Problem
from reslab.data.decode import IMAGE_SUFFIXES, image_size
from reslab.errors import os_reason

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
YEARS = ("VOC2007", "VOC2012")
IMAGES = ("JPEGImages", "images")


def find_voc(folder: Path) -> list[Path]:
    """Return folders with Annotations/: `folder` itself, or VOC2007 and VOC2012 in a VOCdevkit."""
    places = [folder, *(base / name for base in (folder, folder / "VOCdevkit") for name in YEARS)]
    return [place for place in places if (place / XML_FOLDER).is_dir() and _images_of(place)]


def _images_of(home: Path) -> str:
    return next((name for name in IMAGES if (home / name).is_dir()), "")


def read_voc(
    homes: Iterable[tuple[Path, list[str]]],
    folder: Path,
    name: str,
    classes: Sequence[str] = (),
) -> Annotations:
    """Read the annotations of the given images as one split, and collect their problems.

    `homes` are VOC folders in `folder`, each with the keys of its images. If `classes` is empty,
    they are taken from the annotated objects.
    """
    xml_files: list[str] = []
    objects = Objects()

    def place(row: int) -> str:
        return f"{xml_files[objects.images[row]]}:{objects.places[row]}"

    part = Annotations("VOC", name, folder, place, objects=objects)
    for home, keys in homes:
        prefix = "" if home == folder else f"{home.relative_to(folder).as_posix()}/"
        images = _images_of(home)
        by_stem = _by_stem(home / images)
        for key in dict.fromkeys(keys):
            xml_file = f"{prefix}{XML_FOLDER}/{key}.xml"
            image = f"{prefix}{images}/{by_stem.get(key, f'{key}.jpg')}"
            try:
                _add_image(part, xml_file, key, image)
            except ValueError as error:
                file_and_line, _, reason = str(error).partition(": ")
                part.problems.append(Problem("annotation file", file_and_line, reason))
            else:
                xml_files.append(xml_file)
    part.classes = {name: str(name) for name in classes or sorted(set(objects.names), key=str)}
    return part


def _by_stem(folder: Path) -> dict[str, str]:
    names = sorted(os.listdir(folder), reverse=True)  # reversed: a.jpg wins over a.png
    return {
        os.path.splitext(name)[0]: name for name in names if name.lower().endswith(IMAGE_SUFFIXES)
    }


def _add_image(part: Annotations, file: str, key: str, image: str) -> None:
    """Append one image and its objects to the columns; raise ValueError as `PLACE: REASON`."""
    try:
        annotation = XmlAnnotation((part.root / file).read_bytes(), file)
    except OSError as error:
        raise ValueError(f"{file}: {os_reason(error)}") from None
    width, height = (int(annotation.size.get(side, 0)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        # some annotation tools omit the size, or write zeros
        width, height = image_size(FolderReader(str(part.root))(image), image)
    row = len(part.files)
    part.files.append(image)
    part.keys.append(key)
    part.sizes.append((width, height))
    objects = part.objects
    for parsed in annotation.objects:
        x0, y0, x1, y1 = (parsed.corners[corner] for corner in CORNERS)
        objects.images.append(row)
        objects.names.append(parsed.name)
        objects.boxes.append((x0 - 1, y0 - 1, x1, y1))
        objects.places.append(parsed.line)
        objects.difficult.append(parsed.difficult)
        objects.truncated.append(parsed.truncated)
        objects.crowd.append(False)
