"""Parse the ids, numbers and flags in COCO files, whatever their types."""

from collections.abc import Iterable
from typing import Any

from reslab.data.class_names import clean

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
