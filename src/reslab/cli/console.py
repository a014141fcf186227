"""Terminal output and input shared by the verbs: lines, tables, JSON, progress, signals."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from reslab.runtime.events import Callback, Event

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from reslab.api.predict import Answer


Result = TypeVar("Result")

# options shared by several verbs
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16, which is faster.")]
Weights = Annotated[Path | None, typer.Option(help="A model file or run folder to fine-tune from.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the recipe; repeatable."),
]
DataSet = Annotated[
    str | None, typer.Option(help="The data set's folder, or a URL of packed images.")
]
ClassNames = Annotated[
    Path | None,
    typer.Option(help="Names of the outputs: .csv with index,id,name, or .txt with one per line."),
]
Refine = Annotated[
    bool, typer.Option("--refine", help="Detectors: box refinement and voting (App. B).")
]
Scales = Annotated[
    str | None,
    typer.Option(help="Detectors: multi-scale testing, e.g. 400,600,800; slower (App. B)."),
]

SECONDS_BETWEEN_LINES = 5.0  # progress lines, where there is no terminal to redraw
PIPE_WIDTH = 200  # characters of a table in a pipe, which has no width of its own


def warn(text: str) -> None:
    """Print a line on standard error, prefixed with "reslab: "."""
    to_stderr(f"reslab: {text}")


def to_stderr(text: str) -> None:
    """Print a line on standard error; a closed pipe does not stop the work."""
    with suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Escape unprintable characters: a file name may contain any bytes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def print_line(text: str) -> None:
    print(text)


def print_json(value: Any) -> None:
    """Print a value as the JSON document for `--json`."""
    print(json.dumps(value, indent=2))


def print_table(*columns: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned, the others right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    print_rich_table(table)


def print_rich_table(table: "Table") -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table)


def print_answers(
    answers: "Iterable[Answer[Result]]",
    text: "Callable[[Answer[Result]], str]",
    entry: "Callable[[Answer[Result]], dict[str, Any]] | None",
) -> int:
    """Print the results for each image as they arrive; with `entry`, as one JSON list.

    Bad images are reported on standard error. Return the exit status: 1 if there are any, else 0.
    """
    bad = 0
    separator = "["
    for answer in answers:
        if answer.error:
            bad += 1
            warn(f"{answer.file}: {answer.error}")
        if entry:
            content = {"error": answer.error} if answer.error else entry(answer)
            print(separator)
            print(f"  {json.dumps({'file': answer.file} | content)}", end="", flush=True)
            separator = ","
        elif not answer.error:
            print(text(answer), flush=True)  # flush, also to a pipe
    if entry:
        print("\n]")
    return 1 if bad else 0


def parse_numbers(option: str, text: str | None, example: str) -> list[int]:
    """Parse whole numbers separated by commas; return an empty list if `text` is None."""
    try:
        return [] if text is None else [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{option} {text}: whole numbers with commas between, as {example}"
        ) from None


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """In this context, call `handler` on Ctrl-C, SIGTERM and SIGHUP (the terminal was closed)."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def stopping(
    log: Callable[[str], None] = warn, *, begun: bool = False
) -> Iterator[Callable[[], int | None]]:
    """In this context, record a signal; yield a function that returns its number, or None.

    A second signal ends the process at once; its run can be resumed from the last checkpoint. A
    signal before the first call of the function also ends the process, since there is nothing new
    to save, unless the work has `begun`.
    """
    noted: list[int] = []
    asked = begun

    def note(number: int, frame: FrameType | None) -> None:
        if not asked:
            log("stopped before anything new was done")
        if noted or not asked:
            raise SystemExit(128 + number)
        noted.append(number)
        log("saving after this iteration; once more to stop at once")

    def stop() -> int | None:
        nonlocal asked
        asked = True
        return noted[0] if noted else None

    with handling_signals(note):
        yield stop


@contextmanager
def progress_bars() -> "Iterator[Progress]":
    """Show progress bars on standard error, each followed by its task's description."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield bars


@contextmanager
def progress_display() -> Iterator[Callback]:
    """Yield a callback that shows events: as a progress bar on a terminal, else as lines."""
    if not sys.stderr.isatty():
        yield progress_lines()
        return
    with progress_bars() as bars:

        def on_event(event: Event) -> None:
            match event["kind"]:
                case "start":
                    for task in bars.task_ids:
                        bars.remove_task(task)
                    bars.add_task(event["what"], total=event["total"])
                case "progress":
                    bars.update(bars.task_ids[-1], completed=event["done"])
                case "train":
                    facts = train_facts(event)
                    bars.update(bars.task_ids[-1], completed=event["iteration"], description=facts)
                case _:
                    line = printable(event_line(event))
                    bars.console.print(line, highlight=False, markup=False, soft_wrap=True)

        yield on_event


def progress_lines() -> Callback:
    """Return a callback that prints events on standard error, at a limited rate for progress."""
    total, what, printed = 0, "", 0.0
    last: tuple[int, float] | None = None  # the last iteration printed, and its time

    def on_event(event: Event) -> None:
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
            case "progress" | "train":
                pass
            case _:
                to_stderr(event_line(event))

    return on_event


def train_facts(event: Event) -> str:
    """Format a training event: learning rate, loss, training error and speed."""
    return (
        f"lr {event['learning_rate']:g}  loss {event['loss']:.4f}  "
        f"training error {event['train_error']:.2f} %  {speed(event['images_per_second'])} images/s"
    )


def speed(images_per_second: float) -> str:
    """Format a speed with its significant digits: 780, 9.5, 0.52."""
    return f"{images_per_second:.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


def event_line(event: Event) -> str:
    """Format any event other than progress as a line."""
    match event["kind"]:
        case "eval":
            measured = (
                precisions(event) if "map_50" in event else f"error {event['top1_error']:.2f} %"
            )
            return (
                f"iteration {event['iteration']}  {event['set']} {measured}  "
                f"({event['protocol']}, n={event['n']})"
            )
        case "warmup":
            by_error = event["ended_by"] == "train_error"
            reason = "the training error is low enough" if by_error else "its cap"
            return f"iteration {event['iteration']}  warm-up ends: {reason}"
        case "bad":
            return f"reslab: {event['text']}; left out"
        case _:
            return f"reslab: {event['text']}"


def precisions(report: Event) -> str:
    """Format the average precisions in a detector's report; VOC has only one."""
    numbers = f"mAP@.5 {report['map_50']:.2f} %"
    if report["map_50_95"] is not None:
        numbers += f", mAP@[.5:.95] {report['map_50_95']:.2f} %"
    return numbers


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
