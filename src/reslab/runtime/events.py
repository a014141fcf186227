"""What long work reports while it runs: events, as rows of a log are."""

from collections.abc import Callable
from typing import Any

Event = dict[str, Any]  # with a "kind"; a line of metrics.jsonl is one too
Callback = Callable[[Event], None]
Log = Callable[[str], None]  # takes a line for the user


def silent(event: Event) -> None:
    """Ignore the event."""


def note(text: str) -> Event:
    """A remark for the user."""
    return {"kind": "note", "text": text}


def bad_image(text: str) -> Event:
    """An image that could not be decoded: `FILE: reason`."""
    return {"kind": "bad", "text": text}


def progress(done: int) -> Event:
    """How many images are done, bad ones included."""
    return {"kind": "progress", "done": done}
