"""The cases of a comparison by name; each is a function whose result must be equal."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.editions.edition import Edition
from tests.editions.facts import facts, files_in, run_facts, shape, tensors_in
from tests.editions.runs import LONG, RUNS, STOPPED, made, words_of

Case = Callable[[Edition], Any]
TEN, MANY = "ten-crop:144-128", "multi-scale:128,144"
EXAMPLE = Path(__file__).with_name("example.py")


def trained(name: str, edition: Edition) -> Any:
    """Train a run from beginning to end."""
    return run_facts(made(edition, name), edition.places)


def resumed(name: str, edition: Edition) -> Any:
    """Resume a run that was stopped."""
    folder = edition.home / "runs" / f"{name}-resumed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made(edition, name), folder)
    edition.command("resume", folder)
    run = run_facts(folder, edition.places)
    return run | {"files": [file for file in run["files"] if "checkpoints" not in file]}


def never_stopped(edition: Edition) -> Any:
    """Train the run of `resumed("killed")` without the kill; its weights must be equal."""
    out = edition.home / "runs" / "never-stopped"
    shutil.rmtree(out, ignore_errors=True)
    edition.command(*words_of(edition, RUNS[STOPPED["killed"][0]], out, *LONG))
    whole, resumed_run = (
        json.loads((folder / "result.json").read_bytes())
        for folder in (out, edition.home / "runs" / "killed-resumed")
    )
    return {"the same": whole["state_sha256"] == resumed_run["state_sha256"]}


def answers(edition: Edition, *commands: tuple[object, ...]) -> Any:
    """Run commands; return the exit status and JSON of each."""
    results = []
    for words in commands:
        done = edition.start(["-m", "reslab", *words, "--json"])
        if not done.out:
            raise RuntimeError(f"{words} printed nothing but:\n{done.err[-2000:]}")
        results.append([done.status, facts(json.loads(done.out), edition.places)])
    return results


def evaluate(edition: Edition) -> Any:
    model, plain = made(edition, "residual"), made(edition, "plain")
    images, parts = made(edition, "images"), made(edition, "bottleneck")
    return answers(
        edition,
        ("evaluate", model),
        ("evaluate", model / "model.safetensors", "--on", "digits", "--precision", "bf16"),
        ("evaluate", model, plain, made(edition, "projection")),
        ("evaluate", model, "--protocol", "ten-crop:16-14"),
        ("evaluate", images, "--report", edition.home / "page"),
        ("evaluate", images, "--protocol", TEN),
        ("evaluate", images, "--protocol", MANY),
        ("evaluate", images, "--data", edition.data / "faulty"),
        ("evaluate", parts, made(edition, "fine-tuned")),
        ("evaluate", parts, "--data", edition.data / "parts" / "train"),
        ("evaluate", made(edition, "cifar")),
    )


def scores(edition: Edition) -> Any:
    """Evaluate from kept scores; also return whether their files are untouched."""
    folder = made(edition, "scores")
    before = files_in(folder / "scores")
    reports = answers(edition, ("evaluate", folder), ("evaluate", folder, "--protocol", TEN))
    return {
        "answers": reports,
        "views": sorted(Path(file).name for file in before),
        "untouched": files_in(folder / "scores") == before,
        "scores": {name: tensors_in(folder / "scores" / name) for name in before},
    }


def predict(edition: Edition) -> Any:
    model, parts = made(edition, "images"), made(edition, "bottleneck")
    faulty = edition.data / "faulty"
    image = faulty / "brick" / "000.jpg"
    return answers(
        edition,
        ("predict", model, image),
        ("predict", model, image, "--protocol", TEN, "--precision", "bf16"),
        ("predict", model, image, "--protocol", MANY, "--top", 1),
        ("predict", parts, edition.data / "parts" / "val", "--top", 2),
        ("predict", parts, faulty / "slate", faulty / "brick" / "grey.png"),
        ("predict", made(edition, "residual"), image),
    )


def detect(edition: Edition) -> Any:
    model, coco = made(edition, "joint"), edition.data / "coco"
    image, out = coco / "val" / "000009.png", edition.home / "found"
    shutil.rmtree(out, ignore_errors=True)
    results = answers(
        edition,
        ("detect", model, image, "--threshold", 0.1),
        ("detect", model, coco / "val", "--threshold", 0.2, "--refine", "--out", out),
        ("detect", made(edition, "joint-voc"), image, "--threshold", 0.1, "--scales", "48,64,96"),
        ("detect", model, edition.data / "faulty" / "slate" / "cut.jpg", image),
    )
    return [results, files_in(out)]


def evaluate_detectors(edition: Edition) -> Any:
    joint, coco = made(edition, "joint"), edition.data / "coco"
    detections = made(edition, "joint") / "detections.json"
    return answers(
        edition,
        ("evaluate", joint),
        ("evaluate", joint, "--refine"),
        ("evaluate", joint, "--scales", "48,64,96"),
        ("evaluate", joint, made(edition, "alternating")),
        ("evaluate", made(edition, "joint-voc"), "--protocol", "voc-2007"),
        ("evaluate", joint, "--data", coco, "--protocol", "voc-2012"),
        ("evaluate", detections, "--data", coco),
        ("evaluate", detections, "--data", coco / "annotations" / "instances_val.json"),
    )


def check(edition: Edition) -> Any:
    data = edition.data
    return answers(
        edition,
        ("check", data / "images"),
        ("check", data / "faulty"),
        ("check", data / "parts", "--size", 96),
        ("check", data / "coco"),
        ("check", data / "voc"),
        ("check", made(edition, "packed")),
    )


def plan(edition: Edition) -> Any:
    """Compare the keys and types of plans, and the values that depend on no clock."""
    commands = [
        (RUNS["residual"], ()),
        (RUNS["images"], ()),
        (RUNS["joint"], ()),
    ]
    plans = []
    for run, more in commands:
        words = words_of(edition, run, Path("nowhere"), *more)
        words = ["plan", words[1], *words[6:], "--iterations", 2]  # without --out and --seed
        answer = edition.json(*words)
        plans.append([shape(answer), facts(answer, edition.places)])
    return plans


def recipes(edition: Edition) -> Any:
    return answers(
        edition,
        ("recipes",),
        ("recipes", "cifar10-resnet110"),
        ("recipes", "own-resnet50", "--data", edition.data / "parts"),
        ("recipes", "own-resnet18", "--data", edition.data / "parts",
         "--weights", made(edition, "large")),
        ("recipes", "own-detection-resnet18-c4", "--data", edition.data / "coco",
         "--weights", made(edition, "large")),
        ("recipes", "digit-scenes-resnet20-c4", "--weights", made(edition, "whole")),
    )  # fmt: skip


def models(edition: Edition) -> Any:
    return answers(edition, ("models",))


def packed(edition: Edition) -> Any:
    out = edition.home / "packed"
    shutil.rmtree(out, ignore_errors=True)
    results = answers(
        edition,
        ("pack", edition.data / "parts", out / "parts", "--shorter-side", 100, "--quality", 80),
        ("pack", edition.data / "faulty", out / "faulty", "--shard-size", 1),
    )
    return [
        results,
        {str(file.relative_to(out)): _shard(file) for file in sorted(out.rglob("*.*"))},
    ]


def _shard(file: Path) -> Any:
    """Return the size of a shard, the tensors of an index."""
    return tensors_in(file) if file.suffix == ".safetensors" else file.stat().st_size


def scenes(edition: Edition) -> Any:
    out = edition.home / "scenes"
    shutil.rmtree(out, ignore_errors=True)
    edition.command("scenes", out, "--train", 3, "--test", 2, "--seed", 5)
    return files_in(out)


def import_and_export(edition: Edition) -> Any:
    """Export weights and import them again: the JSON and the tensors."""
    out = edition.home / "imports"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    exported = made(edition, "exported")
    results = answers(
        edition,
        ("export", made(edition, "imported") / "model.safetensors", "--to", "torchvision", "--out",
         out / "again.safetensors"),
        ("export", made(edition, "large"), "--to", "torchvision", "--out", out / "own.safetensors"),
        ("import", exported / "net.safetensors", "--as", "resnet18", "--out",
         out / "net.safetensors"),
        ("evaluate", made(edition, "imported") / "model.safetensors", "--data",
         edition.data / "images"),
    )  # fmt: skip
    return [results, tensors_in(exported / "net.safetensors"),
            *(tensors_in(file) for file in sorted(out.iterdir()))]  # fmt: skip


def report(edition: Edition) -> Any:
    out = edition.home / "reports"
    return answers(
        edition,
        ("report", *(made(edition, name) for name in ("plain", "residual", "projection")),
         "--out", out / "digits"),
        ("report", made(edition, "images"), "--out", out / "images"),
        ("report", made(edition, "joint"), made(edition, "alternating"), "--out", out / "boxes"),
        ("study", "responses", made(edition, "plain"), made(edition, "residual"), "--out",
         out / "responses"),
    )  # fmt: skip


def study(edition: Edition) -> Any:
    """Run a study, then run it again: finished runs are not run a second time."""
    out = edition.home / "study"
    shutil.rmtree(out, ignore_errors=True)
    words = ("study", "depth", "--depths", 20, "--iterations", 2, "--out", out)
    first = answers(edition, words)
    before = files_in(out / "runs")
    again = answers(edition, words)
    return [first, again, files_in(out / "runs") == before]


def mistakes(edition: Edition) -> Any:
    """Compare exit status and number of lines of refusals."""
    data, nowhere = edition.data, edition.home / "nowhere"
    run = made(edition, "residual")
    wrong = (
        ("train", "digits-resnet21", "--out", nowhere),
        ("train", "digits-resnet20", "--out", nowhere, "--set", "iteration=3"),
        ("train", "digits-resnet20", "--out", nowhere, "--set", "iterations=none"),
        ("train", "digits-resnet20", "--out", nowhere, "--set", "batch_size=127"),
        ("train", "digits-resnet20", "--out", run),
        ("train", "cifar10-resnet20", "--out", nowhere, "--data", data / "images"),
        ("train", "own-resnet18", "--out", nowhere),
        ("train", "own-resnet18", "--out", nowhere, "--data", data / "coco"),
        ("train", "digit-scenes-resnet20-c4", "--out", nowhere),
        ("train", "digits-resnet20", "--out", nowhere, "--weights", made(edition, "joint")),
        ("resume", nowhere),
        ("evaluate", nowhere),
        ("evaluate", run, "--protocol", "ten-crops"),
        ("evaluate", run, "--on", "mnist"),
        ("evaluate", run, "--refine"),
        ("evaluate", made(edition, "joint"), "--keep-scores"),
        ("evaluate", made(edition, "joint"), run),
        ("predict", made(edition, "joint"), data / "faulty" / "brick" / "000.jpg"),
        ("predict", run, nowhere),
        ("detect", run, data / "faulty" / "brick" / "000.jpg"),
        ("check", nowhere),
        ("pack", nowhere, edition.home / "packed-nowhere"),
        ("import", run / "recipe.json", "--as", "resnet20", "--out", nowhere / "x.safetensors"),
        ("export", run, "--to", "keras", "--out", edition.home / "x.pth"),
        ("study", "width"),
        ("report", nowhere),
        ("reports", run),
    )
    results = {}
    for words in wrong:
        done = edition.start(["-m", "reslab", *words])
        command = facts(" ".join(map(str, words)), edition.places)
        results[command] = [done.status, len(done.err.splitlines()), done.out]
    assert not nowhere.exists()
    return results


def python(edition: Edition) -> Any:
    """Use the package from Python as the README does."""
    image = edition.data / "faulty" / "brick" / "000.jpg"
    words = (made(edition, "images"), made(edition, "residual"), made(edition, "joint"), image)
    out = edition.home / "python"
    shutil.rmtree(out, ignore_errors=True)
    results = json.loads(edition.python(EXAMPLE, *words, out))
    return [facts(results, edition.places), run_facts(out, edition.places)]


CASES: dict[str, Case] = {
    **{f"train {name}": partial(trained, name) for name in RUNS},
    **{f"resume {name}": partial(resumed, name) for name in STOPPED},
    "resume never-stopped": never_stopped,
    "evaluate": evaluate,
    "evaluate kept scores": scores,
    "evaluate detectors": evaluate_detectors,
    "predict": predict,
    "detect": detect,
    "check": check,
    "plan": plan,
    "recipes": recipes,
    "models": models,
    "pack": packed,
    "scenes": scenes,
    "import and export": import_and_export,
    "report": report,
    "study": study,
    "mistakes": mistakes,
    "python": python,
}
