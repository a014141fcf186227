"""What long work reports while it runs: events, as rows of a log are."""

from collections.abc import Callable
from itertools import count
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


def start(total: int, what: str) -> Event:
    """Counted work that begins: `total` images or whatever else `what` names."""
    return {"kind": "start", "total": total, "what": what}


def counter(total: int, what: str, on_event: Callback) -> Callable[[str | None], None]:
    """Report the start of counted work; call the result after each item, with why it is bad."""
    on_event(start(total, what))
    items = count(1)

    def on_item(bad: str | None) -> None:
        if bad:
            on_event(bad_image(bad.removesuffix("; left out")))
        on_event(progress(next(items)))

    return on_item
