"""Progress bars in a notebook, as HTML that needs no widgets."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from reslab.api.lines import event_line, line_of, run_facts, train_facts
from reslab.runtime.events import Callback

SECONDS_BETWEEN_UPDATES = 0.5


@dataclass
class Bar:
    """A progress bar: a number of items done out of a total, and what they are."""

    total: int
    text: str
    done: int = 0

    def html(self) -> str:
        bar = f'<progress value="{self.done}" max="{self.total}" style="width: 15em"></progress>'
        return f"<div>{bar} {escape(str(self))}</div>"

    def __str__(self) -> str:
        return f"{self.done:,}/{self.total:,} {line_of(self.text)}"


@contextmanager
def notebook_bars() -> Iterator[Callback]:
    """Yield a callback that shows events in a notebook's output: as bars, other events as lines.

    Lines are printed on standard output: notebooks colour standard error as if it were an error.
    """
    bars = NotebookBars()
    try:
        yield bars.on_event
    finally:
        bars.show()


class NotebookBars:
    """The bars shown so far: one for counted work, or one for each run of a study."""

    def __init__(self) -> None:
        self.bars: dict[str, Bar] = {}
        self.shown_at = 0.0
        self.handle: Any = None  # IPython's; None before the first bar is shown

    def on_event(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "start":
                self.show()
                self.handle, self.bars = None, {"": Bar(event["total"], event["what"])}
                self.show()
            case "progress":
                self.advance("", event["done"])
            case "train":
                self.bars[""].text = train_facts(event)
                self.advance("", event["iteration"])
            case "run":
                bar = self.bars.setdefault(event["run"], Bar(event["total"], event["run"]))
                bar.text = run_facts(event)
                self.advance(event["run"], event["done"])
            case _:
                print(line_of(event_line(event)), flush=True)

    def advance(self, name: str, done: int) -> None:
        """Advance a bar, and redraw all bars unless they were just redrawn."""
        self.bars[name].done = done
        if time.monotonic() - self.shown_at >= SECONDS_BETWEEN_UPDATES:
            self.show()

    def show(self) -> None:
        """Draw all bars in place of the previous ones."""
        from IPython.display import display

        if not self.bars:
            return
        self.shown_at = time.monotonic()
        drawn = {
            "text/html": "".join(bar.html() for bar in self.bars.values()),
            "text/plain": "\n".join(map(str, self.bars.values())),
        }
        if self.handle is None:
            self.handle = display(drawn, raw=True, display_id=True)
        else:
            self.handle.update(drawn, raw=True)
