"""A detector and a photograph classifier trained by two processes equal those of one."""

import ast
import json
from pathlib import Path
from typing import Any

from tests.detection.small import classifier_file
from tests.runtime import launched as launching
from tests.training import walls

BEGIN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from reslab.runtime.distributed import PeerFailed, fail_together
reported = []
on_event = lambda row: reported.append(row.get("text"))
try:
    with fail_together(lambda error: 1) as group:
        work(Path(sys.argv[1]), Path(sys.argv[2]))
        if group.first:
            print(reported)
except PeerFailed as ended:
    raise SystemExit(ended.status)
"""
DETECTOR = """
from tests.detection.small import SCENES, short_recipe
from reslab.detection import setup as prepare
prepare.digit_scenes = lambda: SCENES
from reslab.detection.alternating import train_detector
def work(home, out):
    recipe = short_recipe("virtual_gpus=2", "batch_size=4", "precision=fp32")
    train_detector(recipe, out, weights=home / "classifier.safetensors", on_event=on_event)
"""
PHOTOGRAPHS = """
from tests.training.walls import TINY
from reslab.recipes import recipe
from reslab.training.train import train
def work(home, out):
    it = recipe("own-resnet18", data=home / "walls")
    it = it.with_changes([*TINY, "virtual_gpus=2", "precision=fp32", "pictures.bad_limit=0.5"])
    train(it, out, data=home / "walls", on_event=on_event)
"""
SPEEDS = ("seconds", "images_per_second")


def rows(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in SPEEDS} for row in lines]


def must_be_equal(work: str, home: Path, start_python) -> tuple[list[Path], list[str]]:
    """Check that runs by one process and by two are equal, and return their output."""
    script = home / "script.py"
    script.write_text(work + BEGIN)
    outs = [home / "one", home / "two"]
    lines = home / "lines"
    launched = [
        start_python(launching.__file__, lines, count, 1, 20.0, script, home, out)
        for count, out in enumerate(outs, 1)
    ]
    ended = [process.end() for process in launched]
    assert [done.returncode for done in ended] == [0, 0], ended
    results = [json.loads((out / "result.json").read_text()) for out in outs]
    for key in ("state_sha256", "weights_sha256", "evaluation", "train_error"):
        assert results[0][key] == results[1][key]
    assert rows(outs[0]) == rows(outs[1])
    return outs, [done.stdout for done in ended]


def test_a_detector(tmp_path: Path, start_python) -> None:
    classifier_file(tmp_path)
    outs, _ = must_be_equal(DETECTOR, tmp_path, start_python)
    detections = [(out / "detections.json").read_bytes() for out in outs]
    assert detections[0] == detections[1]


def test_photographs_with_bad_files(tmp_path: Path, start_python) -> None:
    """A bad file is reported once, whichever process meets it."""
    folder = walls.draw(tmp_path / "walls", {"brick": 8, "sky": 8})
    for number in range(3):
        (folder / "brick" / f"{number:03d}.jpg").write_bytes(b"no image")
    _, (one, two) = must_be_equal(PHOTOGRAPHS, tmp_path, start_python)
    assert one == two
    bad = [line for line in ast.literal_eval(one) if line and line.startswith("skipped")]
    assert 1 <= len(bad) == len(set(bad)) <= 3
