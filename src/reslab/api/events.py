"""Types of the events that long work passes to a user's `on_event`; "kind" says which one it is.

The lines of a run's metrics.jsonl are events too.
"""

from typing import Literal, NotRequired, TypedDict


class StartEvent(TypedDict):
    """Counted work begins."""

    kind: Literal["start"]
    total: int
    what: str  # what is counted: "iterations", "images", "scenes"


class ProgressEvent(TypedDict):
    """Counted work, other than training, has advanced."""

    kind: Literal["progress"]
    done: int  # images so far, bad ones included


class TrainEvent(TypedDict):
    """Training has advanced; loss and error are means since the last such event."""

    kind: Literal["train"]
    iteration: int  # updates so far
    learning_rate: float
    loss: float
    train_error: float  # percent, on the augmented mini-batches
    images_per_second: float


class WarmupEvent(TypedDict):
    """The warm-up has ended."""

    kind: Literal["warmup"]
    iteration: int
    ended_by: Literal["train_error", "cap"]


class EvalEvent(TypedDict):
    """A set has been evaluated, during training or after it."""

    kind: Literal["eval"]
    iteration: int
    set: str
    protocol: str
    n: int  # images
    top1_error: NotRequired[float]  # percent; classifiers
    top5_error: NotRequired[float | None]  # None for 5 classes or fewer
    loss: NotRequired[float]
    map_50: NotRequired[float]  # percent; detectors
    map_50_95: NotRequired[float | None]  # None under VOC's protocols


class NoteEvent(TypedDict):
    """A remark for the user: a run is resumed, a disk is full..."""

    kind: Literal["note"]
    text: str


class BadImageEvent(TypedDict):
    """An image could not be decoded and is left out."""

    kind: Literal["bad"]
    text: str  # FILE: reason


class RunEvent(TypedDict):
    """A run of a study has advanced, or is known to be finished."""

    kind: Literal["run"]
    run: str  # name of the run's folder
    done: int  # iterations so far
    total: int
    train_error: NotRequired[float]  # percent, as in the run's last training event


Event = (
    StartEvent
    | ProgressEvent
    | TrainEvent
    | WarmupEvent
    | EvalEvent
    | NoteEvent
    | BadImageEvent
    | RunEvent
)
