"""Make a golden file anew, on purpose.

    python -m tests.golden.renew [--tree TREE] NAME...

from the repository's root. TREE is the source tree of the edition that writes them, this one if
it is not given. NAME is

    recipes     recipes.json: the fields of every recipe. To be renewed when a default changes.
    answers     answers.json: what the commands of asked.py answer. When a verb says something new.
    images boxes packed classifier unfinished photographs scores detector alternating study
                folders as an edition writes them. They stand for what people have on their disks,
                so they stay as the first edition (commit e01b95a) wrote them: a new format adds
                folders, and does not replace them. `answers` is to be renewed after.

Answers are stored without what a clock, a path, a version or a processor decides. What is renewed
belongs into docs/log.md.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.editions.crossing import turn_scores
from tests.editions.edition import Edition
from tests.golden.asked import (
    ANSWERS,
    ASKED,
    GOLDEN,
    RECIPES,
    commands_of,
    copy_golden,
    lines_of,
    settled,
)

COMMON = ("precision=fp32", "recompute_bn=10")
CLASSIFIER = (
    *COMMON, "model.widths=[8,8,8]", "model.blocks=[1,1,1]", "iterations=300",
    "eval_every=100", "checkpoint_every=140", "warmup.cap=10",
)  # fmt: skip
PHOTOGRAPHS = (
    *COMMON, "model.widths=[8,8,8,8]", "model.blocks=[1,1,1,1]", "model.pool=padded",
    "augmentation.size=64", "augmentation.shorter_side=[64,80]", "pictures.resize=72",
    "iterations=60", "batch_size=8", "eval_every=30", "checkpoint_every=20",
)  # fmt: skip
DETECTOR = (
    "precision=fp32", "log_every=10", "data=boxes", "model.classes=2", "model.norm=group",
    "fixed_stages=0", "model.width=16", "model.trunk.widths=[8,8,16]", "model.pooled=4",
    "model.trunk.blocks=[1,1,1]", "shorter=[64]", "longest=80", "search.shorter=64",
    "search.longest=80", "sampling.anchors=32", "sampling.before=200", "sampling.proposals=50",
    "sampling.regions=32", "search.before=200", "search.proposals=20", "search.threshold=0.3",
    "model.sizes=[16,32]", "batch_size=2",
)  # fmt: skip
COLOURS = {"brick": (180, 90, 60), "slate": (60, 90, 180), "moss": (80, 140, 60)}


def train(
    edition: Edition, out: Path, recipe: str, changes: tuple[str, ...], data: str | None = None
) -> None:
    """A run whose environment names nothing of this machine; its data are a golden folder."""
    words = ["train", recipe, "--out", out]
    words += ["--data", GOLDEN / data] if data else []
    print(edition.command(*words, *(f"--set={change}" for change in changes)))
    for file in out.rglob("environment.json"):
        make_neutral(file, data)
    for file in [*out.rglob("curves.svg"), *out.rglob(".lock")]:
        file.unlink()


def make_neutral(file: Path, data: str | None) -> None:
    """An environment without this machine."""
    known = json.loads(file.read_bytes())
    known |= {"data": data, "processor": "x86-64", "system": "Linux", "python": "3"}
    file.write_text(json.dumps(known | {"command": "reslab train"}, indent=2) + "\n")


def without(folder: Path, *patterns: str) -> None:
    """Remove files of a run."""
    for pattern in patterns:
        for file in folder.glob(pattern):
            file.unlink()


def classifier(edition: Edition, out: Path) -> None:
    train(edition, out, "digits-resnet20", CLASSIFIER)
    without(out, "checkpoints/00000[12]*")


def unfinished(edition: Edition, out: Path) -> None:
    """The classifier's run as a kill leaves it, twenty iterations before its end."""
    train(edition, out, "digits-resnet20", CLASSIFIER)
    without(out, "checkpoints/00000[13]*", "*.safetensors")
    without(out, "result.json", "mistakes.json")


def photographs(edition: Edition, out: Path) -> None:
    train(edition, out, "own-resnet18", PHOTOGRAPHS, "images")
    without(out, "checkpoints/*")


def scores(edition: Edition, out: Path) -> None:
    """Kept scores of the photographs, each image with those of another: so that one sees whether
    they are used."""
    with tempfile.TemporaryDirectory() as folder:
        run = copy_golden(Path(folder) / "golden")["photographs"]
        edition.command("evaluate", run, "--keep-scores")
        shutil.copytree(run / "scores", out)
    for file in out.rglob("*.safetensors"):
        turn_scores(file)


def detector(edition: Edition, out: Path) -> None:
    lengths = ("iterations=400", "eval_every=200", "checkpoint_every=400", "learning_rate=0.02")
    train(edition, out, "digit-scenes-resnet20-c4", (*DETECTOR, *lengths), "boxes")
    without(out, "checkpoints/*")


def alternating(edition: Edition, out: Path) -> None:
    """A finished one, and beside it the same as a kill in its third step leaves it."""
    lengths = ("iterations=120", "eval_every=60", "checkpoint_every=100", "learning_rate=0.02")
    changes = (*DETECTOR, *lengths, "training=alternating")
    train(edition, out, "digit-scenes-resnet20-c4", changes, "boxes")
    half = out.with_name("alternating-half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(out, half)
    without(half, "model.safetensors", "metrics.jsonl", "result.json", "detections.json")
    without(half, "preprocessing.safetensors", "checkpoints/*", "step[12]/checkpoints/*")
    without(half, "step3/result.json", "step3/model.safetensors", "step3/detections.json")
    without(half, "step3/checkpoints/00000120*")
    (half / "checkpoints").rmdir()
    without(out, "checkpoints/*", "step*/checkpoints/*")


def study(edition: Edition, out: Path) -> None:
    """A study whose only run is finished; what a page does not need is left out."""
    edition.command("study", "depth", "--depths", 20, "--iterations", 2, "--out", out)
    run = out / "runs" / "resnet20-seed1"
    for file in [*out.rglob("*")]:
        if file.is_file() and (file.parent != run or file.suffix not in (".json", ".jsonl")):
            file.unlink()
    make_neutral(run / "environment.json", None)


def images(edition: Edition, out: Path) -> None:
    """Three classes of one colour each in train/ and val/."""
    for number in range(36):
        name = list(COLOURS)[number % 3]
        rng = np.random.default_rng(number)
        coarse = COLOURS[name] + rng.normal(0, 60, (5, 6, 3))
        pixels = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((84, 74))
        place = out / ("val" if number >= 24 else "train") / name
        place.mkdir(parents=True, exist_ok=True)
        pixels.save(place / f"{number:02d}.jpg", quality=70)


def boxes(edition: Edition, out: Path) -> None:
    """Twelve images to train on and four to test, in COCO's layout: red cats, blue dogs."""
    for part, numbers in (("train", range(12)), ("val", range(12, 16))):
        annotations, listed = [], []
        for number in numbers:
            rng = np.random.default_rng(number)
            pixels = rng.normal(110, 12, (64, 80, 3))
            for kind, left in ((7, 2), (3, 42)):
                x, y = left + int(rng.integers(0, 10)), int(rng.integers(2, 28))
                wide, high = int(rng.integers(18, 27)), int(rng.integers(18, 33))
                pixels[y : y + high, x : x + wide] += (100, -60, -60) if kind == 7 else (-60, 0, 90)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": kind,
                     "iscrowd": 0, "bbox": [x, y, wide, high], "area": wide * high}
                )  # fmt: skip
            place = out / part / f"{number:02d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(place, quality=70)
            listed.append({"id": number, "file_name": place.name, "width": 80, "height": 64})
        kinds = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
        document = {"images": listed, "annotations": annotations, "categories": kinds}
        (out / "annotations").mkdir(exist_ok=True)
        (out / "annotations" / f"instances_{part}.json").write_text(json.dumps(document))


def packed(edition: Edition, out: Path) -> None:
    edition.command("pack", GOLDEN / "images", out)


def recipes(edition: Edition) -> None:
    RECIPES.write_text(lines_of({it["name"]: it for it in edition.json("recipes")}))


def answers(edition: Edition) -> None:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        places = copy_golden(Path(folder) / "golden")
        for name in ASKED:
            *before, last = commands_of(name, places)
            for words in before:
                edition.command(*words)
            done = edition.start(["-m", "reslab", *last])
            if not done.out:
                raise RuntimeError(f"{name}: {done.err}")
            found[name] = [done.status, settled(json.loads(done.out), places)]
    ANSWERS.write_text(lines_of(found))


FOLDERS: tuple[Callable[[Edition, Path], None], ...] = (
    images, boxes, packed, classifier, unfinished, photographs, scores, detector, alternating,
    study,
)  # fmt: skip
FILES = {"recipes": recipes, "answers": answers}


def main() -> None:
    folders = {it.__name__: it for it in FOLDERS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tree", type=Path, default=GOLDEN.parents[1], help="the edition that writes"
    )
    parser.add_argument("names", nargs="+", metavar="NAME", choices=[*folders, *FILES])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        edition = Edition(given.tree, Path(home), GOLDEN, Path(home))
        for name in given.names:
            if name in FILES:
                FILES[name](edition)
                continue
            shutil.rmtree(GOLDEN / name, ignore_errors=True)
            folders[name](edition, GOLDEN / name)
        edition.close()


if __name__ == "__main__":
    main()
