"""Show what long work reports: bars on a terminal and in a notebook, lines anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Literal, cast

from reslab.api.events import Event
from reslab.api.lines import Row, clock, event_line, line_of, run_facts, to_stderr, train_facts
from reslab.runtime.events import Callback, silent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


OnEvent = Callable[[Event], None] | Literal["print"] | None
SECONDS_BETWEEN_LINES = 5.0  # progress lines, where there is no terminal to redraw
SECONDS_BETWEEN_RUN_LINES = 15.0  # for each run of a study


def showing(on_event: OnEvent) -> AbstractContextManager[Callback]:
    """Return a context with a callback for events: it prints them, ignores them, or is the user's.

    Raise ValueError if `on_event` is neither "print" nor None nor a function.
    """
    if on_event is None:
        return nullcontext(silent)
    if callable(on_event):
        return nullcontext(cast(Callback, on_event))
    if on_event != "print":
        raise ValueError(
            f"on_event={on_event!r}: give 'print', None, or a function that takes an event"
        )
    return progress_display()


def progress_display() -> AbstractContextManager[Callback]:
    """Return a context with a callback that shows events to the user."""
    if in_notebook():
        from reslab.api.notebook import notebook_bars

        return notebook_bars()
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal_bars() if is_terminal else nullcontext(progress_lines())


def in_notebook() -> bool:
    """Return whether this process is a notebook's kernel; IPython need not be installed."""
    if "ipykernel" not in sys.modules:
        return False
    from ipykernel.kernelapp import IPKernelApp

    return IPKernelApp.initialized()


@contextmanager
def terminal_bars() -> Iterator[Callback]:
    """Yield a callback that shows events on a terminal: progress as bars, the others as lines."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.description}", markup=False),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    on_event = update_bars(bars)

    def on_event_if_shown(event: Row) -> None:
        with suppress(OSError):  # the terminal may have been closed
            on_event(event)

    try:
        with suppress(OSError):
            bars.start()
        yield on_event_if_shown
    finally:
        with suppress(OSError):
            bars.stop()


def update_bars(bars: "Progress") -> Callback:
    """Return a callback that updates the bars: one for counted work, one for each run of a study.

    The description of its task follows each bar.
    """
    runs: dict[str, TaskID] = {}

    def on_event(event: Row) -> None:
        match event["kind"]:
            case "start":
                for task in bars.task_ids:
                    bars.remove_task(task)
                bars.add_task(line_of(event["what"]), total=event["total"])
            case "progress":
                bars.update(bars.task_ids[-1], completed=event["done"])
            case "train":
                facts = train_facts(event)
                bars.update(bars.task_ids[-1], completed=event["iteration"], description=facts)
            case "run":
                name = event["run"]
                if name not in runs:
                    runs[name] = bars.add_task(line_of(name), total=event["total"], start=False)
                if event["done"]:
                    bars.start_task(runs[name])
                facts = line_of(run_facts(event))
                bars.update(runs[name], completed=event["done"], description=facts)
            case _:
                line = line_of(event_line(event))
                bars.console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    return on_event


def progress_lines() -> Callback:
    """Return a callback that prints events on standard error, at a limited rate for progress."""
    total, what, printed = 0, "", 0.0
    last: tuple[int, float] | None = None  # the last iteration printed, and its time
    runs: dict[str, tuple[int, float]] = {}  # of a study: the iterations last printed, the time

    def on_event(event: Row) -> None:
        nonlocal total, what, printed, last
        now = time.monotonic()
        due = now - printed >= SECONDS_BETWEEN_LINES
        match event["kind"]:
            case "start":
                total, what, printed, last = event["total"], event["what"], now, None
            case "progress" if due:
                printed = now
                to_stderr(f"{event['done']:,}/{total:,} {what}")
            case "train" if due or last is None or event["iteration"] >= total:
                iteration = event["iteration"]
                seconds = (now - last[1]) / max(iteration - last[0], 1) if last else 0.0
                printed, last = now, (iteration, now)
                left = clock((total - iteration) * seconds)
                to_stderr(f"iteration {iteration}/{total}  {train_facts(event)}  {left} left")
            case "run":
                name, done, whole = event["run"], event["done"], event["total"]
                before, at = runs.setdefault(name, (0, now))
                ends = done >= whole
                if done != before and (ends or now - at >= SECONDS_BETWEEN_RUN_LINES):
                    runs[name] = done, now
                    to_stderr(f"{done:,}/{whole:,} {run_facts(event)}")
            case "progress" | "train":
                pass
            case _:
                to_stderr(event_line(event))

    return on_event
