"""Labels and class names in arrays."""

from collections.abc import Sequence

import numpy as np

from reslab.data.array_sets.files import StoredArray, reading
from reslab.data.left_out import shorten

Values = list[int] | list[str]


def read_labels(stored: StoredArray, count: int) -> Values:
    """Return `count` labels: numbers or names.

    They are stored as [N], [N, 1] or one-hot [N, K]. Raise ValueError, naming the image, for labels
    that are none.
    """
    with reading(stored.file):
        values = stored.load()
        if values.shape[:1] != (count,):
            raise ValueError(f"{stored.name} has {len(values):,} labels for {count:,} images")
        while values.ndim > 1 and values.shape[-1] == 1:
            values = values[..., 0]
        if values.ndim == 2 and values.dtype.kind not in "US":
            return _from_one_hot(stored, values)
        if values.ndim != 1:
            raise ValueError(
                f"{stored.name} has the shape {list(stored.shape)}: labels are [N], [N, 1] or "
                "one-hot [N, classes]"
            )
        return texts(stored, values) if values.dtype.kind in "US" else _numbers(stored, values)


def _numbers(stored: StoredArray, values: np.ndarray) -> list[int]:
    whole = np.isfinite(values) & (values == np.floor(values)) if values.dtype.kind == "f" else None
    if whole is not None and not whole.all():
        row = int(whole.argmin())
        raise ValueError(
            f"{stored.name}[{row}] is {values[row]:g}: labels are names or whole numbers, one per "
            "class"
        )
    numbers = [int(value) for value in values.tolist()]
    if min(numbers, default=0) < 0:
        row = next(row for row, number in enumerate(numbers) if number < 0)
        raise ValueError(
            f"{stored.name}[{row}] is {numbers[row]}: class numbers are not negative; leave out "
            "images without a class"
        )
    return numbers


def _from_one_hot(stored: StoredArray, values: np.ndarray) -> list[int]:
    ones = values == 1
    bad = (ones.sum(1) != 1) | ((values != 0).sum(1) != 1)
    if bad.any():
        row = int(bad.argmax())
        several = int((values[row] != 0).sum()) > 1 and bool(np.isin(values, (0, 1)).all())
        kind = "several classes" if several else "not a single 1"
        raise ValueError(
            f"{stored.name}[{row}] has {kind} among {values.shape[1]} columns: each image has one "
            "class; save one column of labels"
        )
    return ones.argmax(1).tolist()


def texts(stored: StoredArray, values: np.ndarray) -> list[str]:
    """Return an array of text as strings; raise ValueError, naming the entry, for other text."""
    strings = []
    for row, value in enumerate(values.tolist()):
        try:
            text = value.decode() if isinstance(value, bytes) else value
            text.encode()
        except UnicodeError:
            raise ValueError(f"{stored.name}[{row}] is not UTF-8 text") from None
        if not text.strip():
            raise ValueError(f"{stored.name}[{row}] is empty")
        strings.append(text)
    return strings


def read_names(stored: StoredArray) -> tuple[str, ...]:
    """Return the names of classes 0, 1 and so on; raise ValueError if two are equal."""
    with reading(stored.file):
        names = texts(stored, stored.load().reshape(-1))
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{stored.name} has {shorten(map(repr, repeated))} several times")
    return tuple(names)


def named_classes(
    stored: StoredArray, values: Values, names: Sequence[str], source: str
) -> tuple[list[str], list[str], list[int]]:
    """Return the ids and names of the classes that occur, and the position of each label.

    Numbers are ordered by value and text by name. `names` are those of the numbers, from `source`;
    if there are none, the ids are the names. Raise ValueError for a number without a name.
    """
    found = sorted(set(values))
    position = {value: at for at, value in enumerate(found)}
    positions = [position[value] for value in values]
    ids = [str(value) for value in found]
    numbers = [value for value in found if isinstance(value, int)]
    if not names or not numbers:
        return ids, ids, positions
    if numbers[-1] >= len(names):
        row = positions.index(len(found) - 1)
        hint = "; subtract 1 from all" if (numbers[0], numbers[-1]) == (1, len(names)) else ""
        raise ValueError(
            f"{stored}: label {numbers[-1]} of image {row:,} is out of range, with {len(names)} "
            f"names in {source} labels go from 0 to {len(names) - 1}{hint}"
        )
    return ids, [names[number] for number in numbers], positions
