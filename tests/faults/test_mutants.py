"""A few hundred mutated files of all kinds; `python -m tests.faults.mutants` reads ten thousand.

What would be a fault is shown to be found by readers that have it.
"""

import json
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.faults import mutants
from tests.faults.containers import mutate
from tests.faults.mutants import FAULTS, Verdict, verdicts
from tests.faults.subjects import Probe, Subject

from reslab.runtime.files import TensorFile


def test_a_few_hundred_mutants(start_python) -> None:
    done = start_python("-m", "tests.faults.mutants", "--count", "250", "--seed", "1").end()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "| all | 250 |" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_ten_thousand_mutants(start_python) -> None:
    done = start_python("-m", "tests.faults.mutants", "--count", "10000", "--seed", "2").end()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def value_error(text: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        raise ValueError(text)

    return read


def os_error(data: bytes) -> object:
    raise FileNotFoundError(2, "no such file", "data.json")


def hang(data: bytes) -> object:
    while True:
        time.sleep(0.01)


def chatter(data: bytes) -> object:
    os.write(2, b"a library has something to say\n")
    return "answer"


def end(data: bytes) -> object:
    os._exit(3)


def noted(data: bytes) -> object:
    warnings.warn("data.json has no checksum", stacklevel=1)
    return len(data)


def memory(data: bytes) -> object:
    return np.ones(2**33).sum()


READERS: dict[str, tuple[Callable[[bytes], object], str]] = {
    "the same answer": (lambda data: "answer", "same"),
    "a refusal": (value_error("data.json:1: malformed"), "refused"),
    "a refusal by the system": (os_error, "refused"),
    "another answer": (len, "silent"),
    "another answer, with a warning": (noted, "other"),
    "a refusal that names no file": (value_error("malformed"), "unnamed"),
    "a refusal of two lines": (value_error("data.json:\nmalformed"), "message"),
    "a bare key": (lambda data: {}["iteration"], "exception"),
    "a failed assertion": (lambda data: [][len(data)], "exception"),
    "too much memory": (memory, "exception"),
    "a hang": (hang, "hang"),
    "a process that ends": (end, "hang"),
    "a library's message": (chatter, "noise"),
}


@pytest.mark.parametrize("name", READERS)
def test_what_a_reader_does_with_a_mutant_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    read, outcome = READERS[name]
    monkeypatch.setattr(mutants, "SECONDS", 0.5)
    monkeypatch.setattr(mutants, "MEMORY", 2**31)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "data.json").write_text('{"iteration": 3}')
    probe: Probe = lambda folder: read((folder / "data.json").read_bytes())  # noqa: E731
    subject = Subject("kind", "name", tmp_path / "source", "*", probe, guarded=True)
    sys.stderr.flush()
    judged = list(verdicts([subject], ["answer"], seed=1, numbers=range(2)))
    assert [verdict.outcome for verdict in judged] == [outcome] * 2, judged
    assert [verdict.number for verdict in judged] == [0, 1]
    assert (outcome in FAULTS) == (outcome not in ("same", "other", "refused"))


def test_counts_are_written_as_a_table() -> None:
    counts = mutants.count([Verdict(0, "images", "a", "b", "cut", "same"),
                            Verdict(1, "images", "a", "b", "cut", "refused"),
                            Verdict(2, "tables", "a", "b", "cut", "hang")])  # fmt: skip
    lines = mutants.table(counts).splitlines()
    assert lines[0].startswith("| kind | mutants | same | other | refused | exception |")
    assert lines[2] == "| images | 2 | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 0 |"
    assert lines[4] == "| all | 3 | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 1 |"


FILES = {
    ".json": json.dumps({"images": [{"id": 1, "name": "a"}], "size": [3, 4]}).encode(),
    ".jsonl": b'{"kind": "train", "iteration": 1}\n{"kind": "eval"}\n',
    ".xml": b"<annotation><object><name>cat</name></object></annotation>",
    ".csv": b"file,label\n0.png,cat\n1.png,dog\n",
    ".jpg": bytes(range(256)),
    "": b"",
}


@pytest.mark.parametrize("suffix", FILES)
def test_mutants_differ_from_the_file_and_are_the_same_for_a_seed(suffix: str) -> None:
    data = FILES[suffix]
    made = [mutate(data, suffix, random.Random(seed)) for seed in range(200)]
    assert made == [mutate(data, suffix, random.Random(seed)) for seed in range(200)]
    assert all(mutant != data for _, mutant in made)
    assert len({mutant for _, mutant in made}) > 50


def test_forged_files_have_a_valid_checksum(tmp_path: Path) -> None:
    import torch

    data = TensorFile({"a": torch.ones(2, 3)}, {"iteration": 3, "names": ["x"]}).to_bytes()
    for seed in range(50):
        _, mutant = mutate(data, ".safetensors", random.Random(seed), forged=True)
        (tmp_path / "a.safetensors").write_bytes(mutant)
        assert TensorFile.read(tmp_path / "a.safetensors").has_checksum
