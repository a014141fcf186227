"""Follow the runs of a study: how far each has come, and when the last one will end."""

import heapq
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import mean
from typing import TYPE_CHECKING

from reslab.runtime.json_text import parse_json

if TYPE_CHECKING:  # a cluster worker starts runs without importing torch
    from reslab.studies.experiments import PlannedRun

TAIL = 4096  # bytes read from the end of a log, more than its last lines
MEASURED_SECONDS = 5.0  # of training, before the remaining time is estimated


@dataclass(frozen=True)
class RunProgress:
    """How far a run has come, and its last training error in percent, if it has logged one."""

    iterations: int = 0
    train_error: float | None = None


def read_progress(run: "PlannedRun") -> RunProgress:
    """Return the progress of a run according to its log; zero iterations if there is none yet."""
    try:
        with open(run.folder / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
        rows = map(parse_json, reversed(lines))
        last = next(rows)
        errors = (row["train_error"] for row in chain([last], rows) if "train_error" in row)
        return RunProgress(int(last["iteration"]), next(errors, None))
    except (OSError, LookupError, StopIteration, TypeError, ValueError):
        return RunProgress()  # there is no line, or a damaged one


@dataclass
class Advance:
    """The times at which a run was started, first advanced and last advanced.

    A resumed run starts with the iterations in its log, and has not advanced yet.
    """

    started: float
    last: tuple[float, int]  # time, iterations
    first: tuple[float, int] | None = None


class Forecast:
    """Estimate the time until all runs of a study have ended, from their progress so far.

    `slots` runs train at the same time. The time of an iteration is taken to be proportional to the
    blocks of the network and the images of the mini-batch, with one factor for each task.
    """

    def __init__(
        self,
        runs: Sequence["PlannedRun"],
        slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots, self.clock = slots, clock
        recipes = {run: run.recipe for run in runs}
        self.totals = {run: recipe.iterations for run, recipe in recipes.items()}
        self.tasks = {run: recipe.task for run, recipe in recipes.items()}
        self.costs = {run: run.cost / self.totals[run] for run in runs}  # of one iteration
        self.advances: dict[PlannedRun, Advance] = {}

    def observe(self, run: "PlannedRun", iterations: int) -> None:
        """Record the progress of a run that was started."""
        now = self.clock()
        advance = self.advances.setdefault(run, Advance(now, last=(now, iterations)))
        if iterations > advance.last[1]:
            advance.last = now, iterations
            advance.first = advance.first or advance.last

    def seconds_left(self) -> float | None:
        """Return the estimate, or None while too little was measured."""
        waiting = sorted(self.totals, key=lambda run: (run not in self.advances, -self.costs[run]))
        unfinished = [run for run in waiting if self.done(run) < self.totals[run]]
        paces = {task: self.pace(task) for task in {self.tasks[run] for run in unfinished}}
        ends = [0.0] * self.slots  # when each of the places for a run is free
        for run in unfinished:
            pace = paces[self.tasks[run]]
            if pace is None:
                return None
            seconds = (self.totals[run] - self.done(run)) * self.costs[run] * pace
            seconds += self.starting_left(run)
            heapq.heapreplace(ends, ends[0] + seconds)
        return max(ends)

    @property
    def ended(self) -> int:
        """The number of runs that have completed all their iterations."""
        return sum(self.done(run) == total for run, total in self.totals.items())

    def done(self, run: "PlannedRun") -> int:
        return self.advances[run].last[1] if run in self.advances else 0

    def pace(self, task: str) -> float | None:
        """Return the seconds per unit of cost, or None while too little was measured."""
        seconds = cost = 0.0
        for run, advance in self.advances.items():
            if self.tasks[run] == task and advance.first:
                seconds += advance.last[0] - advance.first[0]
                cost += (advance.last[1] - advance.first[1]) * self.costs[run]
        return seconds / cost if seconds >= MEASURED_SECONDS else None

    def starting_left(self, run: "PlannedRun") -> float:
        """Return the seconds until a run first advances, if that takes as long as in other runs."""
        known = [other.first[0] - other.started for other in self.advances.values() if other.first]
        own = self.advances.get(run)
        if not known or (own and own.first):
            return 0.0
        return max(mean(known) - (self.clock() - own.started if own else 0.0), 0.0)
