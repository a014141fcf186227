"""Terminal output and input shared by the verbs: lines, tables, JSON, progress, signals."""

import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from reslab.api.lines import warn
from reslab.runtime.files import to_json
from reslab.runtime.text import printable, printable_lines

if TYPE_CHECKING:
    from rich.table import Table

    from reslab.api.inputs import ImageResult


Result = TypeVar("Result")

# options shared by several verbs
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print one CSV table.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16, which is faster.")]
Backend = Annotated[
    str,
    typer.Option(
        help="What computes the network: torch, onnxruntime, openvino, or auto: an exported file's "
        "own runtime, otherwise torch."
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        help="A model file, run folder, file of another program, or a name that `reslab weights` "
        "lists, to fine-tune from."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the recipe; repeatable."),
]
DataSet = Annotated[
    str | None,
    typer.Option(help="The data set's folder, table of labels, or URL of packed images."),
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

PIPE_WIDTH = 200  # of a table written to a pipe, in characters


def write(text: str) -> bool:
    """Write to standard output at once; return False if its reader, such as `head`, has closed it.

    Text that is written later is then dropped. Raise OSError if the output is full.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        drop_output()
        return False
    except OSError as error:
        drop_output()
        raise OSError(error.errno, error.strerror, "standard output") from None
    return True


def drop_output() -> None:
    """Drop the text that is written to standard output from now on."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def open_closed_streams() -> None:
    """Open closed standard streams on the null device, before another file takes their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    # None if closed when Python started
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        drop_output()


def print_line(text: str) -> None:
    write(f"{printable_lines(text)}\n")


def print_json(value: Any) -> None:
    """Print a value as the JSON document for `--json`."""
    write(f"{to_json(value, indent=2)}\n")


def print_table(*columns: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned, the others right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(printable, row))
    print_rich_table(table)


def print_rich_table(table: "Table") -> None:
    from rich.console import Console

    # not straight to standard output: rich would end the process if that is closed
    rendered = TextIOWrapper(BytesIO(), sys.stdout.encoding, "backslashreplace")
    is_terminal = sys.stdout.isatty()
    Console(
        file=rendered, force_terminal=is_terminal, width=None if is_terminal else PIPE_WIDTH,
        highlight=False, markup=False, emoji=False,
    ).print(table)  # fmt: skip
    rendered.seek(0)
    write(rendered.read())


def print_results(
    results: "Iterable[ImageResult[Result]]",
    render: "Callable[[Iterable[ImageResult[Result]]], Iterator[str]]",
    *,
    is_only_output: bool = True,
) -> int:
    """Print the results for each image as they arrive, in the form that `render` gives them.

    Bad images are reported on standard error. Return the exit status: 1 if there are any, else 0.
    Once nobody reads the output any more, the remaining images are skipped, unless the work has
    other results.
    """
    bad = 0

    def reporting() -> "Iterator[ImageResult[Result]]":
        nonlocal bad
        for result in results:
            if result.error:
                bad += 1
                warn(f"{result.file}: {result.error}")
            yield result

    failure: OSError | None = None
    for text in render(reporting()):
        try:
            is_read = write(printable_lines(text))
        except OSError as error:
            is_read, failure = False, error
        if not is_read and is_only_output:
            break
    if failure:
        raise failure
    return 1 if bad else 0


def lines_of(
    results: "Iterable[ImageResult[Result]]", text: "Callable[[ImageResult[Result]], str]"
) -> Iterator[str]:
    """Yield the text for each image that is not bad."""
    return (f"{text(result)}\n" for result in results if not result.error)


def json_list(
    results: "Iterable[ImageResult[Result]]",
    entry: "Callable[[ImageResult[Result]], dict[str, Any]]",
) -> Iterator[str]:
    """Yield the parts of one JSON list with an entry for each image."""
    separator = "["
    for result in results:
        content = {"error": result.error} if result.error else entry(result)
        yield f"{separator}\n  {to_json({'file': result.file} | content)}"
        separator = ","
    yield "\n]\n"


def csv_table(
    results: "Iterable[ImageResult[Result]]",
    columns: Sequence[str],
    rows: "Callable[[ImageResult[Result]], Sequence[Sequence[object]]]",
) -> Iterator[str]:
    """Yield the lines of a CSV table: the file, the given columns, and why an image is bad."""
    yield csv_line(["file", *columns, "error"])
    for result in results:
        for row in [[""] * len(columns)] if result.error else rows(result):
            yield csv_line([result.file, *row, result.error or ""])


def csv_line(cells: Sequence[object]) -> str:
    """Return a line of a CSV table; None becomes an empty cell."""
    line = StringIO()
    texts = [printable(cell) if isinstance(cell, str) else cell for cell in cells]
    csv.writer(line, lineterminator="\n").writerow(texts)
    return line.getvalue()


def must_choose_one_form(json: bool, csv: bool) -> None:
    """Raise ValueError if both --json and --csv are given."""
    if json and csv:
        raise ValueError("--json and --csv are two forms of one result: choose one")


def parse_numbers(option: str, text: str | None, example: str) -> list[int]:
    """Parse whole numbers separated by commas; return an empty list if `text` is None."""
    try:
        return [] if text is None else [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{option} {text}: whole numbers separated by commas, such as {example}"
        ) from None
