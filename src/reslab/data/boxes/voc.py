"""Read Pascal VOC: one XML file per image, and one list of images per split."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.boxes.image_files import (
    ImageIndex,
    images_below,
    no_box,
    other_names,
    read_sizes,
)
from reslab.data.boxes.sets import UNKNOWN_SIZE
from reslab.data.boxes.voc_homes import VocHome
from reslab.data.boxes.voc_lists import list_with
from reslab.data.boxes.voc_xml import CORNERS, XmlAnnotation
from reslab.data.class_folders import Problem
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.errors import os_reason
from reslab.runtime.files import read_regular

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def read_voc(
    homes: Iterable[tuple[VocHome, list[str]]],
    folder: Path,
    name: str,
    classes: Sequence[str] = (),
) -> Annotations:
    """Read the annotations of the given images as one split, and collect their problems.

    `homes` are places in `folder`, each with the keys of its images. If `classes` is empty,
    they are taken from the annotated objects.
    """
    xml_files: list[str] = []
    without_box, shown = 0, "."
    objects = Objects()

    def place(row: int) -> str:
        return f"{xml_files[objects.images[row]]}:{objects.places[row]}"

    part = Annotations("VOC", name, folder, place, objects=objects)
    for home, keys in homes:
        names = ImageNames(home.images, keys)
        for key in dict.fromkeys(keys):
            path = home.file(key)
            xml_file = path.relative_to(folder).as_posix()
            try:
                annotation = _read_xml(path, xml_file)
            except ValueError as error:
                file_and_line, _, reason = str(error).partition(": ")
                first = not part.problems and key not in home.sheets
                if first and (listed := list_with(home, key)):
                    reason += f", but {listed} lists it"
                part.problems.append(Problem("annotation file", file_and_line, reason))
                continue
            xml_files.append(xml_file)
            image = home.images / names.find(key, annotation.filename)
            _add_image(part, annotation, key, image.relative_to(folder).as_posix())
            without_box += annotation.without_box
        shown = home.xml.relative_to(folder).as_posix()
        if names.renamed:
            part.remarks.append(other_names(names.renamed, len(part), shown))
    if without_box:
        part.remarks.append(no_box(without_box, shown))
    read_sizes(part, shown)
    part.classes = {name: str(name) for name in classes or sorted(set(objects.names), key=str)}
    return part


class ImageNames:
    """Find the images of a folder by the keys of their annotations."""

    def __init__(self, folder: Path, keys: Iterable[str]) -> None:
        keys = list(keys)
        names = sorted(os.listdir(folder), reverse=True)  # reversed: a.jpg wins over a.png
        self.names = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        self._by_stem = {os.path.splitext(name)[0]: name for name in self.names}
        if any(key not in self._by_stem for key in keys):
            self.names += [name for name in sorted(images_below(folder))[::-1] if "/" in name]
            self._by_stem = {os.path.splitext(name)[0]: name for name in self.names}
        self.renamed: dict[str, str] = {}  # from names as written to images
        self._taken = {self._by_stem[key] for key in keys if key in self._by_stem}
        self._index: ImageIndex | None = None  # built when it is first needed

    def find(self, key: str, filename: str) -> str:
        """Return the image with the stem `key`, else the one that fits `key` or `filename`."""
        if key in self._by_stem:
            return self._by_stem[key]
        self._index = self._index or ImageIndex(self.names)
        for written in (key, filename):
            found = self._index.find(written)
            if len(found) == 1 and found[0] not in self._taken:
                self._taken.add(found[0])
                if os.path.splitext(found[0])[0].rpartition("/")[2] != key.rpartition("/")[2]:
                    self.renamed[written] = found[0]
                return found[0]
        return f"{key}.jpg"


def _read_xml(path: Path, file: str) -> XmlAnnotation:
    """Parse the XML of one image; raise ValueError as `PLACE: REASON`."""
    try:
        data = read_regular(path)
    except OSError as error:
        raise ValueError(f"{file}: {os_reason(error)}") from None
    except ValueError as error:  # a name with a zero byte
        raise ValueError(f"{file}: {error}") from None
    return XmlAnnotation(data, file)


def _add_image(part: Annotations, annotation: XmlAnnotation, key: str, image: str) -> None:
    """Append one image and its objects to the columns."""
    width, height = (int(annotation.size.get(side, 0)) for side in ("width", "height"))
    row = len(part.files)
    part.files.append(image)
    part.keys.append(key)
    # some annotation tools omit the size, or write zeros
    part.sizes.append((width, height) if min(width, height) > 0 else UNKNOWN_SIZE)
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
