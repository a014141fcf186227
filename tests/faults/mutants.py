"""Mutate files of every kind, read each mutant as a user would, and judge what happened.

    python -m tests.faults.mutants [--count 10000] [--seed 1] [--only NUMBER] [--table]

--table writes the counts into docs/reliability.md.

Mutant NUMBER of a seed is always the same. Each is read in a forked process, with a limit on time
and on memory, and must be read, with an answer, or be refused by an exception that reslab documents
and that names the file. What else can happen is a fault:

    exception   another exception, which a user would see as a bare "'iteration'" or a traceback
    unnamed     the message does not name the file
    message     the message is not one line
    silent      a file with a checksum was read without a word, with another answer
    noise       a library printed to standard error
    hang        no answer within the limit; or the process ended, as by a signal
"""

import argparse
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tests.faults.containers import mutate
from tests.faults.saved_subjects import all_subjects
from tests.faults.subjects import Refused, Subject

from reslab.training.log import Diverged

SECONDS = 20  # for one mutant; the slowest subject takes under one, but the machine may be busy
MEMORY = 2**32  # bytes of address space beyond what the process has when it begins
OUTCOMES = ("same", "other", "refused")
KeepLines = argparse.RawDescriptionHelpFormatter
DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- mutants -->", "<!-- end -->"
FAULTS = ("exception", "unnamed", "message", "silent", "noise", "hang")


@dataclass(frozen=True)
class Verdict:
    """What reading one mutant led to."""

    number: int
    kind: str
    subject: str
    file: str
    mutation: str
    outcome: str  # one of OUTCOMES or FAULTS
    text: str = ""


class Hang(BaseException):
    """The time for one mutant has run out."""


def chosen(
    subjects: Sequence[Subject], seed: int, number: int
) -> tuple[Subject, Path, random.Random]:
    """Return the subject of a mutant, its file, and the generator of its mutation."""
    rng = random.Random(f"{seed} {number}")
    subject = rng.choices(subjects, [subject.weight for subject in subjects])[0]
    return subject, rng.choice(subject.targets), rng


def judge(
    subject: Subject, file: Path, folder: Path, answer: object, mutation: str
) -> tuple[str, str]:
    """Read the mutant in `folder`; return an outcome, and the message or the fault."""
    warned: list[str] = []
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            now = subject.probe(folder)
        warned = [str(warning.message) for warning in caught]
    except Hang:
        return "hang", "".join(traceback.format_stack()[-3:])
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        names = [target.name for target in subject.targets]
        # a forged file contradicts the run, whose folder is named
        return refusal(error, [*names, f"{folder}/run"] if subject.forged else names)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if json.dumps(now) == json.dumps(answer):
        return "same", ""
    resealed = "change_zip" in mutation  # an archive that was written again has valid checksums
    if subject.guarded and not resealed and not any(file.name in line for line in warned):
        return "silent", f"{now} instead of {answer}"[:500]
    return "other", ""


def refusal(error: Exception, names: Sequence[str]) -> tuple[str, str]:
    """Judge an exception: whether reslab documents its type, and what its message says.

    A message may also name another file of the subject, which the mutant contradicts.
    """
    ours = type(error).__module__.startswith("reslab.")
    if isinstance(error, Diverged):
        return "refused", str(error)  # its numbers are possible
    if isinstance(error, OSError) and error.filename:
        text = f"{error.strerror}: {error.filename}"
    elif ours or type(error) in (ValueError, RuntimeError, Refused):
        text = str(error)
    else:
        return "exception", f"{type(error).__name__}: {str(error)[:300]}{place_of(error)}"
    lines = text.strip().splitlines()
    if len(lines) != 1 and type(error) is not Refused:
        return "message", text[:500] + place_of(error)
    if not any(name in text for name in names):
        return "unnamed", text[:500] + place_of(error)
    return "refused", text


def place_of(error: Exception) -> str:
    """Return the last lines of reslab's code that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{frame.filename}:{frame.lineno}" for frame in frames if "reslab/" in frame.filename]
    return "\n" + " ".join(ours[-2:])


def work(
    subjects: Sequence[Subject],
    answers: Sequence[object],
    seed: int,
    numbers: Sequence[int],
    pipe: int,
) -> None:
    """Read mutants, and write a line of JSON before and after each."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, raise_hang)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        for number in numbers:
            subject, file, rng = chosen(subjects, seed, number)
            folder = Path(home) / str(number)
            shutil.copytree(subject.source, folder)
            place = folder / file.relative_to(subject.source)
            mutation, mutant = mutate(file.read_bytes(), file.suffix, rng, subject.forged)
            place.write_bytes(mutant)
            facts = (
                number,
                subject.kind,
                subject.name,
                str(file.relative_to(subject.source)),
                mutation,
            )
            os.write(pipe, (json.dumps(asdict(Verdict(*facts, "begun"))) + "\n").encode())
            noise.truncate(0)
            outcome, text = judge(subject, file, folder, answers[subjects.index(subject)], mutation)
            if noise.seek(0, os.SEEK_END) and outcome in OUTCOMES:
                noise.seek(0)
                outcome, text = "noise", noise.read(500).decode(errors="replace")
            os.write(pipe, (json.dumps(asdict(Verdict(*facts, outcome, text))) + "\n").encode())
            for made in Path(home).iterdir():
                shutil.rmtree(made, ignore_errors=True)


def raise_hang(number: int, frame: object) -> None:
    raise Hang


def verdicts(
    subjects: Sequence[Subject], answers: Sequence[object], seed: int, numbers: Sequence[int]
) -> Iterator[Verdict]:
    """Read mutants in a forked process, and in another one after a process that ended."""
    numbers = list(numbers)
    while numbers:
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            os.close(reading)
            try:
                work(subjects, answers, seed, numbers, writing)
            except BaseException:
                os.write(writing, (json.dumps({"failed": traceback.format_exc()}) + "\n").encode())
            os._exit(0)
        os.close(writing)
        begun = None
        for verdict in lines_of(reading, process):
            if verdict.outcome == "begun":
                begun = verdict
                numbers = numbers[numbers.index(verdict.number) + 1 :]
            else:
                begun = None
                yield verdict
        _, status = os.waitpid(process, 0)
        if begun:
            text = f"the process ended: {os.waitstatus_to_exitcode(status)}"
            yield replace(begun, outcome="hang", text=text)
        elif numbers:
            raise RuntimeError(f"a process ended between two mutants: {status}")


def lines_of(reading: int, process: int) -> Iterator[Verdict]:
    """Yield the verdicts that a process writes; kill it if it is silent for too long."""
    with os.fdopen(reading) as pipe:
        while True:
            if not select.select([pipe], [], [], 2 * SECONDS)[0]:
                os.kill(process, signal.SIGKILL)
            line = pipe.readline()
            if not line:
                return
            facts = json.loads(line)
            if "failed" in facts:
                raise RuntimeError(facts["failed"])
            yield Verdict(**facts)


def count(judged: Iterable[Verdict]) -> dict[str, Counter[str]]:
    """Count the outcomes of each kind."""
    counts: dict[str, Counter[str]] = {}
    for verdict in judged:
        counts.setdefault(verdict.kind, Counter())[verdict.outcome] += 1
    return counts


def table(counts: dict[str, Counter[str]]) -> str:
    """Return the counts by kind as a table in Markdown."""
    columns = (*OUTCOMES, *FAULTS)
    lines = [["kind", "mutants", *columns], ["---", *["---:"] * (1 + len(columns))]]
    total = sum(counts.values(), Counter[str]())
    for kind, outcomes in (*counts.items(), ("all", total)):
        numbers = (outcomes.total(), *(outcomes[column] for column in columns))
        lines.append([kind, *(f"{number:,}" for number in numbers)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def update_document(text: str) -> None:
    """Replace the table in docs/reliability.md."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def main() -> int:
    """Print each fault, and the counts by kind; return 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=KeepLines)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER")
    parser.add_argument("--table", action="store_true", help=f"update {DOCUMENT.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    numbers = range(arguments.count) if arguments.only is None else [arguments.only]
    judged: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as home:
        with redirect_stderr(io.StringIO()):  # warnings on files of the first edition
            subjects = all_subjects(Path(home) / "sources")
            answers = [subject.probe(copy(subject, Path(home))) for subject in subjects]
        for verdict in verdicts(subjects, answers, arguments.seed, numbers):
            judged.append(verdict)
            if verdict.outcome in FAULTS or arguments.only is not None:
                print(json.dumps(asdict(verdict)), flush=True)
    ordered = sorted(judged, key=lambda v: [s.kind for s in subjects].index(v.kind))
    text = table(count(ordered))
    print(text)
    if arguments.table:
        update_document(text)
    return int(any(verdict.outcome in FAULTS for verdict in judged))


def copy(subject: Subject, home: Path) -> Path:
    return Path(shutil.copytree(subject.source, Path(tempfile.mkdtemp(dir=home)) / "copy"))


if __name__ == "__main__":
    sys.exit(main())
