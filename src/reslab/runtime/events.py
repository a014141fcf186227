"""Events that long operations report while they run, in the format of log rows."""

from collections.abc import Callable
from itertools import count
from typing import Any

Event = dict[str, Any]  # has a "kind"; the lines of metrics.jsonl are events too
Callback = Callable[[Event], None]
Log = Callable[[str], None]  # called with a line for the user


def silent(event: Event) -> None:
    """Ignore the event."""


def note(text: str) -> Event:
    """Return an event with a remark for the user."""
    return {"kind": "note", "text": text}


def bad_image(text: str) -> Event:
    """Return an event for an image that could not be decoded; `text` is `FILE: reason`."""
    return {"kind": "bad", "text": text}


def progress(done: int) -> Event:
    """Return an event with the number of items done so far, bad ones included."""
    return {"kind": "progress", "done": done}


def start(total: int, what: str) -> Event:
    """Return an event for the start of counted work; `what` names the `total` items."""
    return {"kind": "start", "total": total, "what": what}


def counter(total: int, what: str, on_event: Callback) -> Callable[[str | None], None]:
    """Report the start of counted work, and return a callback for each finished item.

    The callback takes the reason why the item is bad, or None.
    """
    on_event(start(total, what))
    items = count(1)

    def on_item(bad: str | None) -> None:
        if bad:
            on_event(bad_image(bad.removesuffix("; left out")))
        on_event(progress(next(items)))

    return on_item
