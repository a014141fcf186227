"""Turn the records of a COCO file into the columns of annotations, and collect their problems.

Records come from many tools: ids and sizes may be whole floats or digit strings, sizes may be
missing, and a box may be given only by its outline. These are understood; what was assumed or left
out becomes a remark.
"""

import re
from typing import Any

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.coco_values import (
    Id,
    IdTable,
    as_flag,
    as_id,
    as_number,
    as_whole,
    quoted,
)
from reslab.data.boxes.image_files import no_box
from reslab.data.boxes.sets import UNKNOWN_SIZE
from reslab.data.class_folders import Problem

# Required keys of a record. A pydantic schema would take longer on COCO's 860,000 annotations.
CATEGORY = {"id": (int, str), "name": str}
IMAGE_ID = {"id": (int, str)}
IMAGE = IMAGE_ID | {"file_name": str}
SIDES = ("width", "height")
OBJECT = {"image_id": (int, str), "category_id": (int, str)}
ANNOTATION = OBJECT | {"bbox": list}
NAN = float("nan")
MAX_PIXEL = 2**24  # float32 represents all integers up to here


def record_fault(record: Any, keys: dict[str, Any]) -> str:
    """Return the first missing or invalid key of a record as text, or "" if it is valid."""
    if not isinstance(record, dict):
        return "is not an object"
    for key, kind in keys.items():
        if key not in record:
            return f"has no {key!r}"
        if not isinstance(record[key], kind) or isinstance(record[key], bool):
            return f"has an invalid {key!r}: {quoted(record[key])}"
    return ""


class RecordReader:
    """Fill in annotations from records; categories and images must be read before objects."""

    def __init__(self, part: Annotations, shown: str) -> None:
        """Read into `part`; `shown` is the name of the file in messages."""
        self.part, self.shown = part, shown
        self._refused_images: set[Id] = set()  # annotations of these are not reported
        self._all_images = self._all_categories = True  # False if one was refused
        self._images, self._categories = IdTable(()), IdTable(())
        self._ids: list[Id] = []  # of the categories, in the order of the table
        self._without_box = 0

    def categories(self, records: list[Any]) -> None:
        """Read the classes."""
        names: dict[Id, str] = {}
        for number, record in enumerate(records, 1):
            record = _with_ids(record, "id")
            if isinstance(record, dict) and as_whole(record.get("name")) is not None:
                record["name"] = str(record["name"])
            if fault := record_fault(record, CATEGORY):
                self._refuse(f"category number {number} {fault}")
            elif record["id"] in names:
                self._refuse(f"two categories have the id {record['id']}")
            else:
                names[record["id"]] = record["name"]
                continue
            self._all_categories = False
        numbers = {id_: as_whole(id_) for id_ in names}
        plain = all(str(number) == str(id_) for id_, number in numbers.items())
        if plain and len(set(numbers.values())) == len(numbers):
            names = {number: names[id_] for id_, number in numbers.items() if number is not None}
        self._ids = sorted(names, key=lambda id_: (isinstance(id_, str), id_))
        self.part.classes = {id_: names[id_] for id_ in self._ids}
        self._categories = IdTable(self._ids)

    def images(self, records: list[Any]) -> None:
        """Read the images; a size that is missing or not positive is unknown for now."""
        part = self.part
        keys: set[Id] = set()
        for number, record in enumerate(records, 1):
            record = _with_ids(record, "id")
            if fault := record_fault(record, IMAGE) or _size_fault(record):
                self._refuse(f"image number {number} {fault}")
                if record_fault(record, IMAGE_ID):
                    self._all_images = False
                else:
                    self._refused_images.add(record["id"])
            elif record["id"] in keys:
                self._refuse(f"two images have the id {record['id']}")
                self._all_images = False  # one of them lacks its own id
            else:
                keys.add(record["id"])
                part.keys.append(record["id"])
                part.files.append(record["file_name"])
                width, height = (_side(record, key) or 0 for key in SIDES)
                part.sizes.append((width, height) if min(width, height) > 0 else UNKNOWN_SIZE)
        self._images = IdTable(part.keys)

    def objects(self, records: list[Any]) -> None:
        """Read the annotations."""
        for number, record in enumerate(records, 1):
            self._add_object(record, number)
        if self._without_box:
            self.part.remarks.append(no_box(self._without_box, self.shown))

    def _refuse(self, note: str, kind: str = "annotation file") -> None:
        self.part.problems.append(Problem(kind, self.shown, note))

    def _add_object(self, record: Any, number: int) -> None:
        """Append one annotation to the columns, unless it is refused or has no box."""
        if record_fault(record, ANNOTATION):
            record = _with_ids(record, "image_id", "category_id")
            if isinstance(record, dict) and isinstance(record.get("bbox"), str):
                record["bbox"] = re.findall(r"[^\s,;()\[\]]+", record["bbox"])
            if not record_fault(record, OBJECT) and _is_no_box(record.get("bbox")):
                self._without_box += 1
                return
            if fault := record_fault(record, ANNOTATION):
                self._refuse(f"annotation number {number} {fault}")
                return
        id_ = record.get("id", number)
        image, category, box = record["image_id"], record["category_id"], record["bbox"]
        row = self._images.exact.get(image)
        if row is None and (row := self._images.find(image)) is None:
            if self._all_images and image not in self._refused_images:
                note = f"annotation {id_} refers to image {image!r}, which is not listed"
                self._refuse(note, "unknown image")
            return
        if category not in self.part.classes:
            found = self._categories.find(category)
            if found is not None:
                category = self._ids[found]
            elif not self._all_categories:
                return
            elif isinstance(category, str):
                category = f"id {category}"
        objects = self.part.objects
        try:
            x, y, width, height = box
            size = abs(x) + abs(y) + abs(width) + abs(height)
        except (TypeError, ValueError):  # not four values, or not numbers
            x = y = width = height = size = NAN
        if not size <= MAX_PIXEL:
            if (box := self._repaired(box)) is None:
                self._without_box += 1
                return
            x, y, width, height = box
        area, crowd = record.get("area"), record.get("iscrowd", 0)
        is_area = isinstance(area, (int, float)) and 0 <= area <= MAX_PIXEL**2
        objects.images.append(row)
        objects.names.append(category)
        objects.boxes.append((x, y, x + width, y + height))
        objects.places.append(id_)
        objects.difficult.append(False)
        objects.crowd.append(bool(crowd) if isinstance(crowd, int) else as_flag(crowd))
        objects.areas.append(area if is_area else width * height)

    def _repaired(self, box: list[Any]) -> list[float] | None:
        """Return a box of digit strings as numbers, of NaN if it is faulty, or None if empty."""
        if _is_no_box(box):
            return None
        numbers = [as_number(value) for value in box]
        valid = [value for value in numbers if value is not None and abs(value) <= MAX_PIXEL]
        if len(box) == 4 == len(valid):
            return valid
        objects = self.part.objects
        objects.written[len(objects)] = f"bbox {quoted(box)}"
        return [NAN] * 4


def _is_no_box(box: Any) -> bool:
    """Return whether a box is missing, null or empty; some programs write NaN for null."""
    return box is None or (isinstance(box, (list, dict)) and all(map(_is_null, box)))


def _is_null(value: Any) -> bool:
    return value is None or value != value


def _with_ids(record: Any, *keys: str) -> Any:
    """Return a record whose ids are integers where they were whole floats."""
    if not isinstance(record, dict):
        return record
    return record | {key: as_id(record[key]) for key in keys if key in record}


def _side(record: dict[str, Any], key: str) -> int | None:
    """Return the width or height of an image, 0 if it is missing, or None if it is no number."""
    written = record.get(key)
    if type(written) is int:  # the usual case, and faster
        return written
    return 0 if _is_null(written) or written == "" else as_whole(written)


def _size_fault(record: dict[str, Any]) -> str:
    for key in SIDES:
        side = _side(record, key)
        if side is None or side > MAX_PIXEL:
            return f"has an invalid {key!r}: {quoted(record[key])}"
    return ""
