"""What messages share: the nearest name to an unknown one, the system's reason for a failure."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a name that is not among `allowed`, with the nearest one that is.

    The last part of a dotted name may stand for the whole.
    """
    names = sorted(allowed)
    ends = {dotted.rpartition(".")[2]: dotted for dotted in names}
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:
        near = [ends[end] for end in get_close_matches(name, ends, n=1, cutoff=0.8)]
    if near:
        return f"no {kind} {name!r}; did you mean {near[0]!r}?"
    return f"no {kind} {name!r}; there are: {', '.join(names)}"


def os_reason(error: OSError) -> str:
    """The operating system's reason, in lower case as our messages go."""
    return (error.strerror or str(error)).lower()
