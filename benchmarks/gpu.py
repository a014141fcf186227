"""Check reslab on a GPU, measure its speed and train Table 6, in one command.

    python benchmarks/gpu.py [--data DIR] [--minutes 8] [--out gpu-results] [--only STEP ...]

First come the checks, then the speeds, then the paper's CIFAR-10 recipes from ResNet-20 upward,
each in a run folder in OUT/runs, as long as time allows; DIR holds CIFAR-10, and without it there
are no recipes. Everything is written to OUT as soon as it is known, numbers to results.json and
tables to report.md. The same command continues where the last one ended, also inside a run; with
--only, steps are repeated. It needs torch, numpy, Pillow, safetensors and pydantic, but not the
other packages of reslab's commands.

    python benchmarks/gpu.py --rehearse --out DIR

carries out all steps in tiny sizes on any machine, which shows only that they work.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any

from gpu_report import report

HERE = Path(__file__).parent
DEPTHS = (20, 32, 44, 56, 110)  # Table 6
CHECKS = {"machine": 20, "engines": 70, "precision": 30, "runs": 60, "detector": 40}
CHECKS |= {"evaluation": 20}
SPEEDS = {f"speed-resnet{depth}": 30 for depth in DEPTHS}
SPEEDS |= {"speed-resnet1202": 60, "speed-resnet50": 40}
RECIPES = {f"cifar10-resnet{depth}": 3600 for depth in DEPTHS}
STEPS = CHECKS | SPEEDS | RECIPES  # step -> seconds after which it is stopped
START = 90  # seconds in which the worker must begin its first step
LEAST = 20  # seconds: no step begins with less
SLOWER = 20  # factor of these times in a rehearsal, whose machine may be slow and busy

Record = dict[str, Any]


@dataclass
class Results:
    """The outcome of each step so far, kept in a file."""

    file: Path
    steps: dict[str, Record] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Add a record of the worker, and write the files."""
        step = self.steps.setdefault(record["step"], {"status": "begun", "records": {}})
        if record["kind"] == "end":
            step |= {key: record[key] for key in ("status", "seconds")}
        elif record["kind"] == "begin":
            step["status"] = "begun"
        else:  # a later record on the same subject replaces the earlier one
            step["records"][record["what"]] = record
        self.write()

    def write(self) -> None:
        for path, text in (
            (self.file, json.dumps(self.steps, indent=1)),
            (self.file.with_name("report.md"), report(self.steps)),
        ):
            temporary = path.with_suffix(".new")
            temporary.write_text(text)
            temporary.replace(path)

    def is_done(self, step: str) -> bool:
        """Return whether a step has ended; one that ran out of time is repeated."""
        return self.steps.get(step, {}).get("status") in ("ok", "failed")

    def has_failures(self) -> bool:
        """Return whether a step failed, or a check in it."""
        records = [record for step in self.steps.values() for record in step["records"].values()]
        return any(step["status"] == "failed" for step in self.steps.values()) or not all(
            record["passed"] for record in records if record["kind"] == "check"
        )


@dataclass
class Worker:
    """A process that carries out steps, one after the other, until one fails or is too slow."""

    arguments: Sequence[str]
    log: Path  # receives its errors
    end: float  # as time.time()
    slower: float  # factor of the steps' times

    def records(self, steps: Sequence[str]) -> Iterator[Record]:
        """Yield the worker's records; a step that crashed or was too slow lacks its end."""
        command = [sys.executable, str(HERE / "gpu_worker.py"), *self.arguments, *steps]
        with (
            self.log.open("a") as errors,
            subprocess.Popen(  # in a group of its own, since steps start processes too
                command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            ) as process,
        ):
            assert process.stdout is not None
            timer = self.stopping(process, START)
            try:
                for line in process.stdout:
                    if not line.startswith("{"):
                        continue
                    record = json.loads(line)
                    if record["kind"] == "begin":
                        timer.cancel()
                        timer = self.stopping(process, STEPS[record["step"]])
                    yield record
            finally:
                timer.cancel()
                if process.poll() is None:
                    end_group(process)

    def stopping(self, process: subprocess.Popen[str], seconds: float) -> Timer:
        """Start a timer that ends the process after `seconds`, or when all time is up."""
        left = max(self.end - time.time(), 0)
        timer = Timer(min(self.slower * seconds, left), end_group, [process])
        timer.start()
        return timer


def end_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def carry_out(steps: Sequence[str], worker: Worker, results: Results) -> None:
    """Carry out the steps, with a new worker after each one that failed or was too slow."""
    todo = list(steps)
    while todo and worker.end - time.time() > LEAST:
        current, before = None, len(todo)
        for record in worker.records(tuple(todo)):
            results.add(record)
            print(line_of(record), flush=True)
            current = None if record["kind"] == "end" else record["step"]
            if record["kind"] == "begin":
                todo.remove(record["step"])
        if current is not None:  # the worker has crashed or was killed
            status = "no time" if worker.end - time.time() < 1 else "failed"
            results.add({"step": current, "kind": "end", "status": status, "seconds": None})
            print(f"{current}: {status}, see {worker.log}", flush=True)
        elif len(todo) == before and worker.end - time.time() > LEAST:
            raise SystemExit(f"the worker cannot begin, see {worker.log}")


def line_of(record: Record) -> str:
    """Format a record for the terminal."""
    facts = [
        f"{fact}" if key == "what" else f"{key}={fact}"
        for key, fact in record.items()
        if key not in ("step", "kind")
    ]
    return "  ".join([f"{record['step']:18}", f"{record['kind']:6}", *facts])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder that holds CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--rehearse", action="store_true", help="in tiny sizes, on any machine")
    options = parser.parse_args()
    trains = set(options.only or ()) & set(RECIPES)
    if trains and not (options.data or options.rehearse):
        parser.error(f"{', '.join(sorted(trains))}: name the folder of CIFAR-10 with --data")
    end, out = time.time() + 60 * options.minutes, options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    results = Results(file, json.loads(file.read_text()) if file.exists() else {})
    arguments = ["--out", str(out), "--end", str(end)]
    arguments += ["--data", str(options.data.resolve())] if options.data else []
    arguments += ["--rehearse"] if options.rehearse else []
    steps = STEPS if options.data or options.rehearse else CHECKS | SPEEDS
    todo = options.only or [step for step in steps if not results.is_done(step)]
    slower = SLOWER if options.rehearse else 1
    # so that the worker, in a process group of its own, does not outlive this process
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    carry_out(todo, Worker(arguments, out / "worker.log", end, slower), results)
    left = [step for step in STEPS if not results.is_done(step)]
    print(f"results in {file}; steps to do: {', '.join(left) or 'none'}")
    return int(results.has_failures())


if __name__ == "__main__":
    raise SystemExit(main())
