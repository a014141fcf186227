"""Check what is read from a run's JSON files, whose keys and types other code relies on."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from reslab.evaluation.report import ClassErrors
from reslab.models.model_facts import quoted
from reslab.training.recipe import EngineName

Percent = Annotated[float, Field(ge=0, le=100)]  # neither NaN nor infinite
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]
MOST_THREADS = 10_000
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
Interval = Annotated[list[Percent], Field(min_length=2, max_length=2)]


class Environment(TypedDict):
    """The content of environment.json that a run is resumed with or reported on."""

    seed: int
    data: str | None
    weights: NotRequired[str | None]
    threads: NotRequired[Threads]
    threads_per_share: NotRequired[Threads]
    parameters: NotRequired[Count]
    engine: NotRequired[EngineName]


class Row(TypedDict):
    """Any line of metrics.jsonl."""

    kind: str
    iteration: Count


class TrainRow(TypedDict):
    """A line on the mini-batches since the one before."""

    train_error: Percent


class ErrorRow(TypedDict):
    """A line on an evaluation of a classifier."""

    set: str
    top1_error: Percent


class PrecisionRow(TypedDict):
    """A line on an evaluation of a detector."""

    set: str
    map_50: Percent


# the precision of a detector on one class; null where no object of the class exists
ClassPrecision = TypedDict(
    "ClassPrecision",
    {
        "class": str,
        "id": str,
        "boxes": Count,
        "detections": Count,
        "ap_50": Percent | None,
        "ap_50_95": NotRequired[Percent | None],
    },
)


class ErrorReport(TypedDict):
    """The evaluation of a classifier; JSON has null for the loss of a run that diverged."""

    set: str
    protocol: str
    n: Count
    top1_error: Percent
    top5_error: Percent | None
    loss: float | None
    skipped: NotRequired[Count]
    top1_interval: NotRequired[Interval | None]
    top5_interval: NotRequired[Interval | None]
    per_class: NotRequired[list[ClassErrors]]
    confusion: NotRequired[list[list[Count]] | None]


class PrecisionReport(TypedDict):
    """The evaluation of a detector."""

    set: str
    protocol: str
    n: Count
    map_50: Percent
    map_50_95: Percent | None
    coco: NotRequired[dict[str, Percent | None]]
    per_class: NotRequired[list[ClassPrecision]]


class Result(TypedDict):
    """The content of result.json, whose evaluations are checked on their own."""

    seconds: Seconds
    train_error: Percent
    iterations: NotRequired[Count]
    weights_sha256: NotRequired[str]
    state_sha256: NotRequired[str]
    evaluation: list[dict[str, Any]]


def must_be_row(value: Any) -> None:
    """Raise ValueError, with the reason, unless a value is a line of metrics.jsonl."""
    must_be(Row, value)
    if value["kind"] == "train":
        must_be(TrainRow, value)
    elif value["kind"] == "eval":
        must_be(PrecisionRow if "map_50" in value else ErrorRow, value)


def must_be_result(value: Any) -> None:
    """Raise ValueError, with the reason, unless a value is the content of result.json."""
    must_be(Result, value)
    for number, report in enumerate(value["evaluation"]):
        kind = PrecisionReport if "map_50" in report else ErrorReport
        must_be(kind, report, ("evaluation", number))


adapter = cache(TypeAdapter)  # building one takes longer than reading a file


def must_be(kind: Any, value: Any, place: tuple[str | int, ...] = ()) -> None:
    """Raise ValueError, with the first reason, unless a value from JSON is of a type.

    `place` is the value's place in the file. More keys than those of the type are allowed.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{quoted(value)} is not an object with keys")
    try:
        adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        *sections, key = (*place, *first["loc"])
        inside = f" in {'.'.join(map(str, sections))}" if sections else " in it"
        if first["type"] == "missing":
            raise ValueError(f"there is no {key!r}{inside}") from None
        where = ".".join(map(str, (*sections, key)))
        raise ValueError(f"{where} is {quoted(first['input'])}: {first['msg']}") from None
