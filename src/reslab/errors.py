"""What a caller is told when a name is not known: the value, the nearest name, what is allowed."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a name that is not among `allowed`, with the nearest one that is.

    Of a dotted name the last part may stand for the whole.
    """
    names = sorted(allowed)
    ends = {dotted.rpartition(".")[2]: dotted for dotted in names}
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:
        near = [ends[end] for end in get_close_matches(name, ends, n=1, cutoff=0.8)]
    if near:
        return f"no {kind} {name!r}; did you mean {near[0]!r}?"
    return f"no {kind} {name!r}; there are: {', '.join(names)}"
