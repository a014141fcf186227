"""What the verbs share: lines on standard error, progress, signals, JSON on standard output."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from reslab.runtime.events import Event

SECONDS_BETWEEN_LINES = 5.0  # where there is no terminal to redraw


def warn(text: str) -> None:
    """One line on standard error."""
    to_stderr(f"reslab: {text}")


def to_stderr(text: str) -> None:
    """A line on standard error; a reader who has gone away must not stop the work."""
    with suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """One line that gives no orders to a terminal: the name of a file may hold any bytes."""
    return "".join(it if it.isprintable() else ascii(it)[1:-1] for it in text)


def print_line(text: str) -> None:
    """A line of the result, on standard output."""
    print(text)


def print_json(value: Any) -> None:
    """The one JSON document of `--json`."""
    print(json.dumps(value, indent=2))


def print_table(*columns: str, rows: list[list[str]]) -> None:
    """A table on standard output; the first column is left-aligned, numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe has no edge to wrap at
    console.print(table)


@contextmanager
def stopping(
    on_progress: Callable[[str], None] = warn, *, begun: bool = False
) -> Iterator[Callable[[], int | None]]:
    """Inside, Ctrl-C, SIGTERM and SIGHUP are only noted; the function given tells which one came.

    A second one ends the process at once: its run goes on from the last checkpoint. So does one
    that comes before the function was ever asked, unless the work has `begun`: there is nothing new
    to save.
    """
    seen: list[int] = []
    asked = begun

    def note(number: int, frame: FrameType | None) -> None:
        if not asked:
            on_progress("stopped before anything new was done")
        if seen or not asked:
            raise SystemExit(128 + number)
        seen.append(number)
        on_progress("saving after this iteration; once more to stop at once")

    def stop() -> int | None:
        nonlocal asked
        asked = True
        return seen[0] if seen else None

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def training_display(iterations: int) -> Iterator[Callable[[Event], None]]:
    """A listener for the rows of a run: a bar on a terminal, now and then a line elsewhere."""
    if not sys.stderr.isatty():
        yield plain_lines(iterations)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=iterations, facts="starting")

        def on_progress(row: Event) -> None:
            if row["kind"] == "train":
                bar.update(task, completed=row["iteration"], facts=train_facts(row))
            else:
                bar.console.print(printable(event_line(row)), highlight=False, markup=False)

        yield on_progress


def plain_lines(iterations: int) -> Callable[[Event], None]:
    """Rows as lines on standard error, those of training not too often."""
    printed = 0.0

    def on_progress(row: Event) -> None:
        nonlocal printed
        if row["kind"] == "train":
            now = time.monotonic()
            if now - printed < SECONDS_BETWEEN_LINES and row["iteration"] < iterations:
                return
            printed = now
            left = (iterations - row["iteration"]) * seconds_each(row)
            text = (
                f"iteration {row['iteration']}/{iterations}  {train_facts(row)}  {clock(left)} left"
            )
        else:
            text = event_line(row)
        to_stderr(text)

    batch: list[tuple[int, float]] = []  # the last two train rows: iteration and time

    def seconds_each(row: Event) -> float:
        batch.append((row["iteration"], time.monotonic()))
        del batch[:-2]
        if len(batch) < 2:
            return 0.0
        (first, then), (last, now) = batch
        return (now - then) / max(last - first, 1)

    return on_progress


@contextmanager
def counting(total: int, what: str) -> Iterator[Callable[[str | None], None]]:
    """A listener that counts to `total`, and prints a line where there is one to say.

    A bar on a terminal, now and then a line elsewhere.
    """
    if not sys.stderr.isatty():
        yield plain_count(total, what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)

        def on_progress(line: str | None) -> None:
            if line:
                text = f"reslab: {printable(line)}"
                bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
            bar.advance(task)

        yield on_progress


def plain_count(total: int, what: str) -> Callable[[str | None], None]:
    """A count as lines on standard error, not too often."""
    done, printed = 0, time.monotonic()

    def on_progress(line: str | None) -> None:
        nonlocal done, printed
        done += 1
        if line:
            warn(line)
        if time.monotonic() - printed >= SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            to_stderr(f"{done:,}/{total:,} {what}")

    return on_progress


def train_facts(row: Event) -> str:
    """Rate, loss, training error and speed of a train row."""
    return (
        f"lr {row['learning_rate']:g}  loss {row['loss']:.4f}  "
        f"training error {row['train_error']:.2f} %  {speed(row['images_per_second'])} images/s"
    )


def speed(value: float) -> str:
    """Of images a second, what is worth reading: 780, 9.5, 0.52."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def event_line(row: Event) -> str:
    """A row of any other kind in words."""
    if row["kind"] == "eval":
        numbers = f"error {row['top1_error']:.2f} %" if "top1_error" in row else precisions(row)
        return (
            f"iteration {row['iteration']}  {row['set']} {numbers}  "
            f"({row['protocol']}, n={row['n']})"
        )
    if row["kind"] == "warmup":
        reason = (
            "the training error is low enough" if row["ended_by"] == "train_error" else "its cap"
        )
        return f"iteration {row['iteration']}  warm-up ends: {reason}"
    return str(row["text"])


def precisions(report: Event) -> str:
    """The average precisions of a detector's report; VOC has but one."""
    numbers = f"mAP@.5 {report['map_50']:.2f} %"
    if report["map_50_95"] is not None:
        numbers += f", mAP@[.5:.95] {report['map_50_95']:.2f} %"
    return numbers


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
