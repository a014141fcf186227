"""Text for error messages: the nearest known name, and the reason for an OSError."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return a one-line message for an unknown name, with the nearest name in `allowed`.

    A dotted name is also matched by its last part.
    """
    names = sorted(allowed)
    ends = {dotted.rpartition(".")[2]: dotted for dotted in names}
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:
        near = [ends[end] for end in get_close_matches(name, ends, n=1, cutoff=0.8)]
    if near:
        return f"no {kind} {name!r}; did you mean {near[0]!r}?"
    return f"no {kind} {name!r}; available: {', '.join(names)}"


def os_reason(error: OSError) -> str:
    """Return the operating system's reason for an error, in lower case like other messages."""
    return (error.strerror or str(error)).lower()
