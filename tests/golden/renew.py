"""Renew golden files, deliberately.

    python -m tests.golden.renew [--tree TREE] NAME...

from the repository's root. TREE is the source tree of the edition that writes them, by default
this one. NAME is

    recipes     recipes.json: the fields of every recipe; renew it when a default changes.
    answers     answers.json: the output of the commands in questions.py; renew it when a verb's
                output changes.
    images boxes packed classifier unfinished native photographs scores detector alternating study
                folders as an edition writes them. They stand for what users have on disk, so they
                stay as the first edition (commit e01b95a) wrote them: a new format adds folders
                instead of replacing them, as `native` for a run that began with the kernels. Renew
                `answers` afterwards.

Answers are stored without values that depend on a clock, a path, a version or a processor. Record
every renewal in docs/log.md.
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
from tests.editions.crossing import shift_scores
from tests.editions.edition import Edition
from tests.golden.questions import (
    ANSWERS,
    GOLDEN,
    QUESTIONS,
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
NATIVE = (
    *COMMON, "model.blocks=[1,1,1]", "iterations=8", "warmup=null", "learning_rate=0.01",
    "log_every=1", "batch_size=32",
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
    """Train on a golden folder and remove from the run what names this machine."""
    words = ["train", recipe, "--out", out]
    words += ["--data", GOLDEN / data] if data else []
    print(edition.command(*words, *(f"--set={change}" for change in changes)))
    for file in out.rglob("environment.json"):
        make_neutral(file, data)
    for file in [*out.rglob("curves.svg"), *out.rglob(".lock")]:
        file.unlink()


def make_neutral(file: Path, data: str | None) -> None:
    """Replace what an environment.json says about this machine."""
    environment = json.loads(file.read_bytes())
    environment |= {"data": data, "processor": "x86-64", "system": "Linux", "python": "3"}
    file.write_text(json.dumps(environment | {"command": "reslab train"}, indent=2) + "\n")


def delete(folder: Path, *patterns: str) -> None:
    """Delete the files of a run that match the patterns."""
    for pattern in patterns:
        for file in folder.glob(pattern):
            file.unlink()


def classifier(edition: Edition, out: Path) -> None:
    train(edition, out, "digits-resnet20", CLASSIFIER)
    delete(out, "checkpoints/00000[12]*")


def unfinished(edition: Edition, out: Path) -> None:
    """Train the classifier; leave its run as if killed twenty iterations before its end."""
    train(edition, out, "digits-resnet20", CLASSIFIER)
    delete(out, "checkpoints/00000[13]*", "*.safetensors")
    delete(out, "result.json", "mistakes.json")


def native(edition: Edition, out: Path) -> None:
    """Train with the kernels; leave the run as if killed before its first checkpoint."""
    train(edition, out, "digits-resnet20", NATIVE)
    shutil.rmtree(out / "checkpoints")
    delete(out, "*.safetensors", "result.json", "mistakes.json", "metrics.jsonl")


def photographs(edition: Edition, out: Path) -> None:
    train(edition, out, "own-resnet18", PHOTOGRAPHS, "images")
    delete(out, "checkpoints/*")


def scores(edition: Edition, out: Path) -> None:
    """Keep the scores of the photographs' run, then shift them by one image.

    An evaluation that uses them therefore differs from one that computes its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = copy_golden(Path(folder) / "golden")["photographs"]
        edition.command("evaluate", run, "--keep-scores")
        shutil.copytree(run / "scores", out)
    for file in out.rglob("*.safetensors"):
        shift_scores(file)


def detector(edition: Edition, out: Path) -> None:
    lengths = ("iterations=400", "eval_every=200", "checkpoint_every=400", "learning_rate=0.02")
    train(edition, out, "digit-scenes-resnet20-c4", (*DETECTOR, *lengths), "boxes")
    delete(out, "checkpoints/*")


def alternating(edition: Edition, out: Path) -> None:
    """Train an alternating run; add a copy of it as if killed in its third step."""
    lengths = ("iterations=120", "eval_every=60", "checkpoint_every=100", "learning_rate=0.02")
    changes = (*DETECTOR, *lengths, "training=alternating")
    train(edition, out, "digit-scenes-resnet20-c4", changes, "boxes")
    half = out.with_name("alternating-half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(out, half)
    delete(half, "model.safetensors", "metrics.jsonl", "result.json", "detections.json")
    delete(half, "preprocessing.safetensors", "checkpoints/*", "step[12]/checkpoints/*")
    delete(half, "step3/result.json", "step3/model.safetensors", "step3/detections.json")
    delete(half, "step3/checkpoints/00000120*")
    (half / "checkpoints").rmdir()
    delete(out, "checkpoints/*", "step*/checkpoints/*")


def study(edition: Edition, out: Path) -> None:
    """Run a study of one run; keep only the files that its report needs."""
    edition.command("study", "depth", "--depths", 20, "--iterations", 2, "--out", out)
    run = out / "runs" / "resnet20-seed1"
    for file in [*out.rglob("*")]:
        if file.is_file() and (file.parent != run or file.suffix not in (".json", ".jsonl")):
            file.unlink()
    make_neutral(run / "environment.json", None)


def images(edition: Edition, out: Path) -> None:
    """Draw three classes of one colour each in train/ and val/."""
    for number in range(36):
        name = list(COLOURS)[number % 3]
        rng = np.random.default_rng(number)
        coarse = COLOURS[name] + rng.normal(0, 60, (5, 6, 3))
        pixels = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((84, 74))
        place = out / ("val" if number >= 24 else "train") / name
        place.mkdir(parents=True, exist_ok=True)
        pixels.save(place / f"{number:02d}.jpg", quality=70)


def boxes(edition: Edition, out: Path) -> None:
    """Draw twelve training and four test images in COCO's layout: red cats, blue dogs."""
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
    RECIPES.write_text(lines_of({fields["name"]: fields for fields in edition.json("recipes")}))


def answers(edition: Edition) -> None:
    stored: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        places = copy_golden(Path(folder) / "golden")
        for name in QUESTIONS:
            *before, last = commands_of(name, places)
            for words in before:
                edition.command(*words)
            done = edition.start(["-m", "reslab", *last])
            if not done.out:
                raise RuntimeError(f"{name}: {done.err}")
            stored[name] = [done.status, settled(json.loads(done.out), places)]
    ANSWERS.write_text(lines_of(stored))


FOLDERS: tuple[Callable[[Edition, Path], None], ...] = (
    images, boxes, packed, classifier, unfinished, native, photographs, scores, detector,
    alternating, study,
)  # fmt: skip
FILES = {"recipes": recipes, "answers": answers}


def main() -> None:
    folders = {make.__name__: make for make in FOLDERS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tree", type=Path, default=GOLDEN.parents[1], help="the edition that writes the files"
    )
    parser.add_argument("names", nargs="+", metavar="NAME", choices=[*folders, *FILES])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        edition = Edition(options.tree, Path(home), GOLDEN, Path(home))
        del edition.environment["CXX"]  # as users have it, with kernels
        for name in options.names:
            if name in FILES:
                FILES[name](edition)
                continue
            shutil.rmtree(GOLDEN / name, ignore_errors=True)
            folders[name](edition, GOLDEN / name)
        edition.close()


if __name__ == "__main__":
    main()
