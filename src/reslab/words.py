"""What a caller is told when a name is not known: the value, the nearest name, what is allowed."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a name that is not among `allowed`, with the nearest one that is."""
    names = sorted(allowed)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"no {kind} {name!r}; did you mean {near[0]!r}?"
    return f"no {kind} {name!r}; there are: {', '.join(names)}"
