"""What an evaluation says while it works; whoever draws it gives the function that hears it."""

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Tell = Callable[[Row], None]


def silent(row: Row) -> None:
    """Hear and say nothing."""


def note(text: str) -> Row:
    """Something that a person should know."""
    return {"kind": "note", "text": text}


def bad_picture(text: str) -> Row:
    """A picture that could not be decoded: `FILE: reason`."""
    return {"kind": "bad", "text": text}


def progress(done: int) -> Row:
    """How many pictures are done, bad ones included."""
    return {"kind": "progress", "done": done}
