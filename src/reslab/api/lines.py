"""Lines for the user: events, speeds and durations as text, and standard error."""

import sys
from contextlib import suppress
from typing import Any

from reslab.runtime.text import hide_secrets, printable

Row = dict[str, Any]  # an event, whose kind decides which keys it has


def warn(text: str) -> None:
    """Print a line on standard error, prefixed with "reslab: "."""
    to_stderr(f"reslab: {text}")


def to_stderr(text: str) -> None:
    """Print a line on standard error; if that is closed or full, the work goes on."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(line_of(text), file=sys.stderr, flush=True)


def line_of(text: str) -> str:
    """Return a message as one printable line, without the passwords and tokens of URLs."""
    return printable(hide_secrets(text))


def train_facts(event: Row) -> str:
    """Format a training event: learning rate, loss, training error and speed."""
    return (
        f"lr {event['learning_rate']:g}  loss {event['loss']:.4f}  "
        f"training error {event['train_error']:.2f} %  {speed(event['images_per_second'])} images/s"
    )


def run_facts(event: Row) -> str:
    """Format the name of a study's run, and its training error if it is known."""
    error = event.get("train_error")
    return event["run"] if error is None else f"{event['run']}  training error {error:.2f} %"


def speed(images_per_second: float) -> str:
    """Format a speed with its significant digits: 780, 9.5, 0.52."""
    return f"{images_per_second:.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


def event_line(event: Row) -> str:
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


def precisions(report: Row) -> str:
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
