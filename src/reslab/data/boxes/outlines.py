"""Find the boxes of outlined objects in COCO files: of polygons and of run-length encoded masks."""

from typing import Any

from reslab.data.boxes.coco_values import as_number


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
