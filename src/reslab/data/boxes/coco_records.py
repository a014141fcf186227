"""Turn the records of a COCO file into the columns of annotations, and collect their problems.

Records come from many tools: ids and sizes may be whole floats or digit strings, sizes may be
missing, and a box may be given only by its outline. These are understood; what was assumed or left
out becomes a remark.
"""

import re
from collections.abc import Iterable
from typing import Any

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.image_files import no_box
from reslab.data.boxes.sets import UNKNOWN_SIZE
from reslab.data.class_folders import Problem
from reslab.data.class_names import clean

# Required keys of a record. A pydantic schema would take longer on COCO's 860,000 annotations.
CATEGORY = {"id": (int, str), "name": str}
IMAGE_ID = {"id": (int, str)}
IMAGE = IMAGE_ID | {"file_name": str}
SIDES = ("width", "height")
OBJECT = {"image_id": (int, str), "category_id": (int, str)}
ANNOTATION = OBJECT | {"bbox": list}
NAN = float("nan")
MAX_PIXEL = 2**24  # float32 represents all integers up to here
MAX_QUOTED = 60  # characters of a value in a message

Id = int | str


class IdTable:
    """Find records by id: as written, else 1, "1" and "01" alike, unless that is ambiguous."""

    def __init__(self, ids: Iterable[Id]) -> None:
        self.exact = {id_: row for row, id_ in enumerate(ids)}
        self._alike: dict[Id, int | None] | None = None  # built when it is first needed

    def find(self, id_: Id) -> int | None:
        """Return the row of a record, or None if there is none."""
        if id_ in self.exact:
            return self.exact[id_]
        if self._alike is None:
            self._alike = {}
            for other, row in self.exact.items():
                form = _loose(other)
                self._alike[form] = None if form in self._alike else row
        return self._alike.get(_loose(id_))


def _loose(id_: Id) -> Id:
    number = as_whole(id_)
    return clean(str(id_)) if number is None else number


def as_whole(value: Any) -> int | None:
    """Return an integer written as 1, 1.0, "1" or "1.0"; None for any other value."""
    number = as_number(value)
    return int(number) if number is not None and number == int(number) else None


def as_number(value: Any) -> int | float | None:
    """Return a finite number, or a string that contains one; None for any other value."""
    if isinstance(value, str) and len(value) <= MAX_QUOTED:
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return value if abs(value) <= 2**63 else None


def as_id(value: Any) -> Any:
    """Return a whole float as an integer, and any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_flag(value: Any) -> bool:
    """Return whether a flag is set; False, "0" and "false" are not."""
    number = as_number(value)
    if number is not None:
        return number != 0
    return value is True or str(value).strip().lower() in ("true", "yes")


def quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def with_outline_box(record: dict[str, Any]) -> dict[str, Any]:
    """Drop an object's outline while parsing; a record without a box gets the outline's box.

    Outlines make up nine tenths of a file.
    """
    outline = record.pop("segmentation", None)
    if outline and not record.get("bbox") and (box := outline_box(outline)):
        record["bbox"] = box
    return record


def outline_box(outline: Any) -> list[float] | None:
    """Return the box x y width height of polygons [[x, y, x, y, ...], ...] or of a mask in RLE."""
    if isinstance(outline, dict):
        return mask_box(outline)
    if not isinstance(outline, list):
        return None
    polygons = outline if isinstance(outline[0], list) else [outline]
    values = [as_number(value) for polygon in polygons for value in polygon]
    numbers = [value for value in values if value is not None]
    if len(numbers) != len(values) or not numbers or any(len(polygon) % 2 for polygon in polygons):
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def mask_box(mask: dict[str, Any]) -> list[float] | None:
    """Return the box of a run-length encoded mask {size: [height, width], counts: ...}.

    Runs of background and object alternate, down the columns.
    """
    match mask:
        case {"size": [int(height), int()], "counts": list(runs)} if height > 0:
            pass
        case {"size": [int(height), int()], "counts": str(text)} if height > 0:
            runs = decompressed(text)
        case _:
            return None
    if not all(isinstance(run, int) and run >= 0 for run in runs):
        return None
    end, columns, rows = 0, [], []
    for number, run in enumerate(runs):
        start, end = end, end + run
        if number % 2 and run:
            first, last = divmod(start, height), divmod(end - 1, height)
            columns += [first[0], last[0]]
            rows += [first[1], last[1]] if first[0] == last[0] else [0, height - 1]
    if not columns:
        return None
    x, y = min(columns), min(rows)
    return [x, y, max(columns) + 1 - x, max(rows) + 1 - y]


def decompressed(counts: str) -> list[int]:
    """Return the runs of a mask from COCO's compressed text.

    Characters hold five bits each, lowest first; a run is the difference from the one before last.
    """
    runs: list[int] = []
    value = bits = 0
    for character in counts:
        code = ord(character) - 48
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:  # the last character of a run
            value -= (code & 16) << (bits - 4)  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = bits = 0
    return runs


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
    return 0 if _is_null(written) or written == "" else as_whole(written)


def _size_fault(record: dict[str, Any]) -> str:
    for key in SIDES:
        side = _side(record, key)
        if side is None or side > MAX_PIXEL:
            return f"has an invalid {key!r}: {quoted(record[key])}"
    return ""
