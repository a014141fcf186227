"""Both editions use folders and files that the first one made; the results must be equal."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.editions.cases import MANY, TEN, answers
from tests.editions.edition import Edition
from tests.editions.facts import files_in, run_facts, tensors_in
from tests.editions.runs import LONG, RUNS, STOPPED, made, words_of


@dataclass(frozen=True)
class Crossing:
    """A case that uses runs and files of the first edition."""

    needs: tuple[str, ...]  # names in `runs.py`
    do: Callable[[Edition, Path], Any]  # takes the edition and a folder with copies of those runs

    def __call__(self, edition: Edition, source: Edition) -> Any:
        old = edition.home / "crossing"
        shutil.rmtree(old, ignore_errors=True)
        for name in self.needs:
            shutil.copytree(made(source, name), old / name)
        return self.do(edition, old)


def resumed(name: str, edition: Edition, old: Path) -> Any:
    """Resume a run that the first edition started."""
    edition.command("resume", old / name)
    return run_facts(old / name, edition.places)


def trained_on(edition: Edition, old: Path) -> Any:
    """Repeat the command that started a run: it must resume that run."""
    name = "killed"
    edition.command(*words_of(edition, RUNS[STOPPED[name][0]], old / name, *LONG))
    return run_facts(old / name, edition.places)


def finished(edition: Edition, old: Path) -> Any:
    """Resume finished runs: nothing must be trained again."""
    before = files_in(old)
    results = answers(edition, *(("resume", folder) for folder in sorted(old.iterdir())))
    return [results, files_in(old) == before]


def evaluated(edition: Edition, old: Path) -> Any:
    digits, boxes = old / "residual", old / "joint"
    images = edition.data / "images"
    return answers(
        edition,
        ("evaluate", digits, old / "plain"),
        ("evaluate", old / "images"),
        ("evaluate", old / "images" / "model.safetensors", "--data", images, "--protocol", MANY),
        ("evaluate", boxes, old / "alternating"),
        ("predict", old / "images", images / "brick"),
        ("detect", boxes, edition.data / "coco" / "val", "--threshold", 0.1),
        ("evaluate", old / "imported" / "model.safetensors", "--data", images),
    )


def reported(edition: Edition, old: Path) -> Any:
    out = old / "pages"
    return answers(
        edition,
        ("report", old / "residual", old / "plain", old / "images", "--out", out / "digits"),
        ("report", old / "joint", old / "alternating", "--out", out / "boxes"),
        ("study", "responses", old / "residual", "--out", out / "responses"),
    )


def kept_scores(edition: Edition, old: Path) -> Any:
    """Evaluate a run with kept scores, which were shifted by one image.

    An evaluation that does not use them therefore differs.
    """
    folder = old / "scores"
    for file in sorted((folder / "scores").rglob("*.safetensors")):
        shift_scores(file)
    reports = answers(edition, ("evaluate", folder), ("evaluate", folder, "--protocol", TEN))
    return [
        reports,
        {view.name: tensors_in(view) for view in sorted(folder.rglob("scores/*/*.safe*"))},
    ]


def shift_scores(file: Path) -> None:
    """Shift kept scores by one image, in a file whose checksum is renewed."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, "pt") as opened:
        facts, scores = opened.metadata(), opened.get_tensor("log_probabilities")
    assert facts is not None
    shifted = torch.roll(scores, 1, 0).contiguous()
    facts["sha256"] = sha256_of_scores(shifted.numpy().tobytes(), facts["bad"])
    save_file({"log_probabilities": shifted}, file, facts)


def sha256_of_scores(scores: bytes, bad: str) -> str:
    """Return the checksum that the first edition stores with scores."""
    import hashlib

    return hashlib.sha256(scores + bad.encode()).hexdigest()


def started_from(edition: Edition, old: Path) -> Any:
    """Start training from weights of the first edition; return the hashes of the results."""
    hashes = []
    for name, weights in (("tuned", "whole"), ("fine-tuned", "large"), ("frozen", "whole")):
        out = old / f"new-{name}"
        words = words_of(edition, RUNS[name], out)
        words[words.index("--weights") + 1] = old / weights
        edition.command(*words)
        hashes.append(json.loads((out / "result.json").read_bytes())["state_sha256"])
    return hashes


def read_shards(edition: Edition, old: Path) -> Any:
    out = old / "run"
    words = words_of(edition, RUNS["shards"], out)
    words[words.index("--data") + 1] = old / "packed"
    edition.command(*words)
    return [answers(edition, ("check", old / "packed")), run_facts(out, edition.places)]


CROSSINGS = {
    **{f"old {name}, resumed": Crossing((name,), partial(resumed, name)) for name in STOPPED},
    "old run, trained on": Crossing(("killed",), trained_on),
    "old runs, finished": Crossing(("residual", "images", "joint", "alternating"), finished),
    "old runs, evaluated": Crossing(
        ("residual", "plain", "images", "joint", "alternating", "imported"), evaluated
    ),
    "old runs, reported": Crossing(
        ("residual", "plain", "images", "joint", "alternating"), reported
    ),
    "old scores, found": Crossing(("scores",), kept_scores),
    "old weights, started from": Crossing(("whole", "large"), started_from),
    "old shards, read": Crossing(("packed",), read_shards),
}
