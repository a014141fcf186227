"""Match the classes of one set with those of another by name, never by number."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from unicodedata import normalize


def clean(name: str) -> str:
    """Return a name in Unicode NFC without surrounding spaces; macOS writes accents as NFD."""
    return normalize("NFC", name).strip()


def fold(name: str) -> str:
    """Return a name for loose comparison: ignore case, and treat _ and - as spaces."""
    folded = clean(name).casefold().replace("_", " ").replace("-", " ")
    return normalize("NFC", " ".join(folded.split()))


def alike_in_words(names: Iterable[str]) -> str | None:
    """Return a line about names that `fold` makes equal; None if there are none."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(fold(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if not alike:
        return None
    shown = "; ".join(" and ".join(map(repr, group)) for group in alike[:3])
    return f"{sum(map(len, alike))} classes have names that are equal or nearly so: {shown}"


FORMS: tuple[Callable[[str], str], ...] = (str, clean, fold)  # from exact to loose


class ClassIndex:
    """Find classes by id or name: as written, else as `clean` returns it, else as `fold` does.

    A name that fits several classes equally well matches none of them. Ids take precedence over
    names.
    """

    def __init__(self, names: Sequence[str], ids: Sequence[str] = ()) -> None:
        self._tables = [_positions(form, names, ids) for form in FORMS]
        self._count = len(names)
        self._shown = {fold(name): name for name in (*ids, *names)}

    def __len__(self) -> int:
        return self._count

    def match(self, classes: Sequence[Sequence[str]]) -> list[int]:
        """Return the position of each class, given as its id and name; -1 if it has no match.

        If several classes match one position, the one with the same spelling gets it, or else the
        first; the others have no match.
        """
        positions = [self._find(words) for words in classes]
        exact = [any(word in self._tables[0] for word in words) for words in classes]
        taken: set[int] = set()
        for row in sorted(range(len(classes)), key=lambda row: not exact[row]):
            if positions[row] in taken:
                positions[row] = -1
            taken.add(positions[row])
        return positions

    def is_ambiguous(self, words: Sequence[str]) -> bool:
        """Return whether an unmatched class resembles a known one, so that it must be renamed."""
        return any(self._look_up(word) != -1 for word in words)

    def hint(self, name: str) -> str:
        """Return the nearest name as the end of a message, or "" if no name is near."""
        near = get_close_matches(fold(name), list(self._shown), n=1, cutoff=0.5)
        return f"; did you mean {self._shown[near[0]]!r}?" if near else ""

    def _find(self, words: Sequence[str]) -> int:
        matches = (self._look_up(word) for word in words)
        return next((match for match in matches if match not in (None, -1)), -1)

    def _look_up(self, word: str) -> int | None:
        """Return the position; None if several classes have the name, -1 if none has it."""
        for form, table in zip(FORMS, self._tables, strict=True):
            if form(word) in table:
                return table[form(word)]
        return -1


def _positions(
    form: Callable[[str], str], names: Sequence[str], ids: Sequence[str]
) -> dict[str, int | None]:
    """Map names and ids to positions; None if several classes share one (ImageNet: two cranes)."""
    positions: dict[str, int | None] = {}
    for group in (names, ids):
        own: dict[str, int | None] = {}
        for position, name in enumerate(map(form, group)):
            own[name] = None if name in own else position
        positions |= own
    return positions
