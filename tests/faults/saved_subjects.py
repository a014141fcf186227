"""Files that a program saves: runs, models, packed images, weights; and the list of all kinds."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tests.faults.subjects import (
    TINY,
    Subject,
    all_images,
    box_subjects,
    command,
    digest,
    drawing,
    image_subjects,
    table_subjects,
)
from tests.golden.questions import copy_golden
from tests.models import references
from tests.models.convert.states import save_npz

import reslab
from reslab.api.import_weights import name_outputs
from reslab.api.train import interrupted_run
from reslab.models.config import config_named
from reslab.models.convert.tensor_files import read_mean
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import build_resnet


def imported(folder: Path) -> object:
    """Import weights of the authors' layout; answer with the weights."""
    (file,) = (file for file in folder.iterdir() if file.name.startswith("net"))
    model = reslab.import_weights(file, "resnet20", folder / "out.safetensors", on_event=None).model
    return digest(*(value.numpy() for value in model.net.state_dict().values()))


def model_logits(folder: Path) -> object:
    predictor = reslab.load(folder / "model.safetensors")
    model = predictor.model
    answer = model(torch.arange(3 * 64 * 64).reshape(1, 3, 64, 64) % 256)
    return answer.tolist(), model.classes, model.ids


def page(folder: Path) -> object:
    """Write a report on runs, and answer with its tables."""
    written = reslab.report(sorted(folder.glob("run*")), folder / "page")
    return (written.path.with_suffix(".md")).read_text().replace(str(folder), "")


LONG = 1000  # iterations


def resumed(folder: Path) -> object:
    """Resume a run, unless its recipe has become that of a run of hours."""
    recipe = interrupted_run(folder / "run", None)[0]
    return "long" if recipe.iterations > LONG else command("resume", "{}/run", "--json")(folder)


def run_subjects(home: Path) -> Iterator[Subject]:
    """Yield the files of runs: of this edition, which have checksums, and of the first."""
    golden = copy_golden(home / "golden")
    own = home / "own"
    own.mkdir()
    changes = [word for change in TINY for word in ("--set", change)]
    # the data are outside the folder that is copied for each mutant
    command(
        "train",
        "own-resnet18",
        "--data",
        str(golden["images"]),
        "--out",
        "{}/run",
        *changes,
        "--json",
    )(own)
    begun = home / "begun"
    shutil.copytree(own, begun)
    for name in (
        "result.json",
        "model.safetensors",
        "mistakes.json",
        "checkpoints/00000006.safetensors",
    ):
        (begun / "run" / name).unlink()
    for pattern, guarded in (
        ("run/checkpoints/*", True), ("run/preprocessing.safetensors", True),
        ("run/data.safetensors", True),
        ("run/*.json", False), ("run/metrics.jsonl", False),
    ):  # fmt: skip
        kind = "tensors of a run" if guarded else "JSON of a run"
        yield Subject(kind, f"resume {pattern}", begun, pattern, resumed, guarded, weight=4)
        if guarded:
            name = f"forged {pattern}"
            yield Subject("forged files", name, begun, pattern, resumed, weight=2, forged=True)
    yield Subject("JSON of a run", "resume a finished run", own, "run/*.json*", resumed, weight=2)
    evaluated = command("evaluate", "{}/run", "--json")
    yield Subject("JSON of a run", "evaluate", own, "run/*.json*", evaluated, weight=2)
    two = home / "two"
    for run, seed in (("run", 1), ("run2", 2)):
        shutil.copytree(own / "run", two / run)
        facts = json.loads((two / run / "environment.json").read_bytes())
        (two / run / "environment.json").write_text(json.dumps(facts | {"seed": seed}))
    yield Subject("JSON of a run", "report", two, "run/*.json*", page, weight=3)
    old = home / "first"
    shutil.copytree(golden["unfinished"], old / "run")
    yield Subject("JSON of a run", "resume, first edition", old, "run/*.*", resumed)
    detectors = home / "detectors"
    shutil.copytree(golden["detector"], detectors / "run")
    yield Subject("JSON of a run", "report a detector", detectors, "run/*.json*", page, weight=2)
    measured = command(
        "evaluate", "{}/run/detections.json", "--data", str(golden["boxes"]), "--json"
    )
    yield Subject("detections", "evaluate", detectors, "run/detections.json", measured, weight=6)
    scored = home / "scored"
    shutil.copytree(own, scored)
    command("evaluate", "{}/run", "--keep-scores", "--json")(scored)
    kept = "run/scores/*/*"
    yield Subject("kept scores", "evaluate", scored, kept, evaluated, True, weight=6)
    yield Subject("forged files", "scores", scored, kept, evaluated, weight=3, forged=True)
    yield from model_subjects(home, own, detectors, golden)


def model_subjects(
    home: Path, own: Path, detectors: Path, golden: dict[str, Path]
) -> Iterator[Subject]:
    models = home / "models"
    models.mkdir()
    shutil.copy(own / "run" / "model.safetensors", models)
    yield Subject("model files", "load", models, "model.safetensors", model_logits, True, weight=8)
    name = "model.safetensors"
    yield Subject("forged files", "load", models, name, model_logits, weight=6, forged=True)
    predicted = command(
        "predict",
        "{}/model.safetensors",
        str(golden["images"] / "val" / "moss" / "26.jpg"),
        "--json",
    )
    yield Subject("model files", "predict", models, "*", predicted, True, weight=2)
    old = home / "first models"
    old.mkdir()
    shutil.copy(golden["photographs"] / "model.safetensors", old)
    yield Subject(
        "model files, first edition", "load", old, "model.safetensors", model_logits, weight=6
    )
    detected = command("detect", "{}/run", str(golden["boxes"] / "val" / "12.jpg"), "--json")
    yield Subject(
        "model files, first edition",
        "detect",
        detectors,
        "run/model.safetensors",
        detected,
        weight=3,
    )
    packed = home / "packed"
    packed.mkdir()
    command("pack", str(golden["images"]), "{}/set", "--json")(packed)
    shutil.copytree(packed / "set", packed, dirs_exist_ok=True)
    shutil.rmtree(packed / "set")
    yield Subject("packed images", "read", packed, "*/*", all_images, True, weight=8)
    checked = command("check", "{}", "--size", "64", "--json")
    yield Subject("packed images", "check", packed, "*/*", checked)


def akamaster_state() -> dict[str, torch.Tensor]:
    """Return random weights of a ResNet-20 under akamaster's names."""
    shapes: references.Shapes = {
        "conv1.weight": (16, 3, 3, 3),
        "linear.weight": (10, 64),
        "linear.bias": (10,),
    }
    references.norm(shapes, "bn1", 16)
    before = 16
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(3):
            for number, inputs in ((1, before), (2, width)):
                shapes[f"layer{stage}.{block}.conv{number}.weight"] = (width, inputs, 3, 3)
                references.norm(shapes, f"layer{stage}.{block}.bn{number}", width)
            before = width
    rng = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=rng) for name, shape in shapes.items()}


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def shard_subjects(home: Path) -> Iterator[Subject]:
    """Yield shards as other programs write them."""
    for name, label in {"cls.tar": "{n}", "json.tar": '{{"label": {n}}}', "cls.tgz": "{n}"}.items():
        folder = home / "shards" / name
        folder.mkdir(parents=True)
        suffix = name.partition(".")[0]
        mode: Any = "w:gz" if name.endswith("tgz") else "w"
        for number in range(2):
            with tarfile.open(folder / f"{number:06}{Path(name).suffix}", mode) as tar:
                for row in range(6):
                    data = io.BytesIO()
                    drawing("RGB", row + 6 * number).save(data, "JPEG")
                    add_member(tar, f"{row}.jpg", data.getvalue())
                    add_member(tar, f"{row}.{suffix}", label.format(n=row % 2).encode())
        yield Subject("shards of others", name, folder, "0*", all_images, weight=3)


def named(folder: Path) -> object:
    """Name the outputs of a model by a file of classes."""
    (file,) = folder.glob("classes.*")
    net = build_resnet(config_named("resnet20"), torch.Generator())
    model = Model(net, tuple(map(str, range(10))), minus_mean(torch.zeros(3, 1, 1)), {}, [])
    renamed = name_outputs(model, file)
    return renamed.classes, renamed.ids


def list_subjects(home: Path) -> Iterator[Subject]:
    """Yield files of class names and of means, for imported weights."""
    for name, row in {"classes.csv": "{n},n{n},kind {n}\n", "classes.txt": "kind {n}\n"}.items():
        folder = home / "named" / name
        folder.mkdir(parents=True)
        header = "index,id,name\n" if name.endswith("csv") else ""
        (folder / name).write_text(header + "".join(row.format(n=n) for n in range(10)))
        yield Subject("tables of labels", f"names, {name}", folder, name, named, weight=2)
    for name, write in {"mean.npy": np.save, "mean.npz": np.savez}.items():
        folder = home / "means" / name
        folder.mkdir(parents=True)
        write(folder / name, np.full((3, 8, 8), 120.0, np.float32))
        read = partial(lambda name, folder: read_mean(folder / name).tolist(), name)
        yield Subject("weights of others", name, folder, name, read, weight=2)


def weight_subjects(home: Path) -> Iterator[Subject]:
    state = akamaster_state()
    for name, write in {
        "net.safetensors": lambda file: save_file(state, file),
        "net.pth": lambda file: torch.save({"state_dict": state, "epoch": 3}, file),
        "net-legacy.th": lambda file: torch.save(
            {"state_dict": state}, file, _use_new_zipfile_serialization=False
        ),
        "net.npz": lambda file: save_npz(state, file),
    }.items():
        folder = home / "weights" / name
        folder.mkdir(parents=True)
        write(folder / name)
        zipped = name in ("net.pth", "net.npz")
        kind = f"weights of others{', zip archives' if zipped else ''}"
        yield Subject(kind, name, folder, name, imported, zipped, weight=6)


def all_subjects(home: Path) -> list[Subject]:
    """Create all files in `home`, and return the subjects."""
    os.environ["RESLAB_TRACEBACK"] = "1"
    return [
        *image_subjects(home), *table_subjects(home), *box_subjects(home), *run_subjects(home),
        *shard_subjects(home), *weight_subjects(home), *list_subjects(home),
    ]  # fmt: skip
