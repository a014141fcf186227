"""Commands run on the golden folders, and how their JSON is compared with the stored JSON."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.editions.facts import CLOCKS, NUMBER, PROSE

GOLDEN = Path(__file__).parent
RECIPES, ANSWERS = GOLDEN / "recipes.json", GOLDEN / "answers.json"

# The arguments of a command; of several, the last one's output is the answer. --json is added.
# {NAME} is a copy of a golden folder, {new} a folder with weights in torchvision's layout
QUESTIONS = {
    "evaluate a classifier": "evaluate {classifier}",
    "evaluate several": "evaluate {classifier} {classifier}/model.safetensors --on digits",
    "evaluate images": "evaluate {photographs}",
    "evaluate ten crops": "evaluate {photographs} --protocol ten-crop:72-64",
    "evaluate scales": "evaluate {photographs} --data {images} --protocol multi-scale:64,72",
    "evaluate kept scores": "evaluate {scored}",
    "evaluate a detector": "evaluate {detector}",
    "evaluate detectors": "evaluate {detector} {alternating} --refine",
    "evaluate detections": "evaluate {detector}/detections.json --data {boxes}",
    "predict": "predict {photographs} {images}/val --top 2",
    "detect": "detect {detector} {boxes}/val --threshold 0.5 --scales 48,64",
    "check images": "check {images} --size 64",
    "check boxes": "check {boxes}",
    "check shards": "check {packed} --size 64",
    "plan": "plan digits-resnet20 --set model.widths=[8,8,8] --set model.blocks=[1,1,1] "
    "--iterations 1",
    "plan a detector": "plan own-detection-resnet18-c4 --data {boxes} --set model.norm=group "
    "--set fixed_stages=0 --set model.trunk.widths=[8,8,8,8] --set shorter=[64] "
    "--set model.trunk.blocks=[1,1,1,1] --set model.width=8 --iterations 1",
    "recipes of images": "recipes own-resnet34 --data {images}",
    "recipes of shards": "recipes own-resnet50 --data {packed}",
    "recipes of boxes": "recipes own-detection-resnet18-c4 --data {boxes}",
    "pack": "pack {images} {new}/packed --shorter-side 64",
    "import": "import {new}/foreign.safetensors --as resnet18 --out {new}/own.safetensors",
    "export": "import {new}/foreign.safetensors --as resnet18 --out {new}/model.safetensors && "
    "export {new}/model.safetensors --to torchvision --out {new}/net.safetensors",
    "report": "report {classifier} {photographs} --out {new}/page",
    "report detectors": "report {detector} {alternating} --out {new}/boxes",
    "study": "study depth --depths 20 --iterations 2 --out {study}",
    "study responses": "study responses {classifier} --out {new}/responses",
    "train": "train digits-resnet20-B --out {new}/train --set model.widths=[8,8,8] "
    "--set model.blocks=[1,1,1] --set iterations=4 --set recompute_bn=2 --set precision=fp32",
    "resume a finished run": "resume {classifier}",
    "resume a classifier": "resume {unfinished}",
    "resume a run with kernels": "resume {native}",
    "resume an alternating run": "resume {alternating-half}",
}

# keys besides CLOCKS whose values depend on processor, library or day: only types are compared
VARYING = CLOCKS | {"weights_sha256", "state_sha256", "device", "precision", "bytes", "probability"}
# tolerances for sums on another processor: relative, and absolute by key
RELATIVE = 0.01
ABSOLUTE = {"score": 0.01, "box": 0.5, "detections": 2, "map_50": 1.0, "map_50_95": 1.0}


def copy_golden(target: Path) -> dict[str, Path]:
    """Copy the golden folders, since commands may change them; point runs to the copied data."""
    places = {}
    for folder in sorted(GOLDEN.iterdir()):
        if folder.is_dir() and not folder.name.startswith("__"):
            shutil.copytree(folder, target / folder.name)
            places[folder.name] = target / folder.name
    if "scores" in places:
        places["scored"] = target / "scored"
        shutil.copytree(places["photographs"], places["scored"])
        places["scores"].rename(places["scored"] / "scores")
    for file in target.rglob("environment.json"):
        environment = json.loads(file.read_bytes())
        if environment["data"]:
            file.write_text(json.dumps(environment | {"data": str(target / environment["data"])}))
    places["new"] = target / "new"
    places["new"].mkdir()
    write_foreign(places["new"] / "foreign.safetensors")
    return places


def write_foreign(file: Path) -> None:
    """Write the weights of a ResNet-18 under torchvision's names."""
    import torch
    from safetensors.torch import save_file

    tensors = {"conv1.weight": torch.full((64, 3, 7, 7), 0.01)}
    tensors |= {"fc.weight": torch.full((3, 512), 0.01), "fc.bias": torch.zeros(3)}
    norms = {"bn1": 64}
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            home = f"layer{stage}.{block}"
            tensors[f"{home}.conv1.weight"] = torch.full((width, before, 3, 3), 0.01)
            tensors[f"{home}.conv2.weight"] = torch.full((width, width, 3, 3), 0.01)
            norms |= {f"{home}.bn1": width, f"{home}.bn2": width}
            if before != width:
                tensors[f"{home}.downsample.0.weight"] = torch.full((width, before, 1, 1), 0.01)
                norms[f"{home}.downsample.1"] = width
            before = width
    for name, width in norms.items():
        for kind in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{name}.{kind}"] = torch.ones(width)
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(1)
    save_file(tensors, file)


def commands_of(name: str, places: dict[str, Path]) -> list[list[str]]:
    """Return the arguments of each command of a question."""
    commands = []
    for line in QUESTIONS[name].split(" && "):
        words = line.split()
        for folder, path in places.items():
            words = [word.replace(f"{{{folder}}}", str(path)) for word in words]
        commands.append([*words, "--json"])
    return commands


def settled(value: Any, places: dict[str, Path], key: str = "") -> Any:
    """Reduce an answer to what is stored: VARYING to types, prose to numbers, paths to names."""
    if isinstance(value, dict):
        inner = {name: key if key in VARYING else name for name in value}
        return {name: settled(item, places, inner[name]) for name, item in value.items()}
    if key in VARYING:
        return type_of(value)
    if isinstance(value, list):
        return [settled(item, places, key) for item in value]
    if not isinstance(value, str):
        return value
    for name, path in places.items():
        value = value.replace(str(path), f"{{{name}}}")
    return NUMBER.findall(value) if key in PROSE else value


def type_of(value: Any) -> str:
    return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"


def different(stored: Any, answer: Any, place: str = "", key: str = "") -> Iterator[str]:
    """Yield a line for each difference from the stored answer; numbers have tolerances."""
    if isinstance(stored, dict) and isinstance(answer, dict):
        if stored.keys() != answer.keys():
            yield f"{place} has the keys {sorted(answer)}, expected {sorted(stored)}"
        for name in stored.keys() & answer.keys():
            yield from different(stored[name], answer[name], f"{place}.{name}", name)
    elif isinstance(stored, list) and isinstance(answer, list) and len(stored) == len(answer):
        for index, (before, now) in enumerate(zip(stored, answer, strict=True)):
            yield from different(before, now, f"{place}[{index}]", key)
    elif type(stored) is not type(answer) or not same(stored, answer, key):
        yield f"{place} is {answer!r}, expected {stored!r}"


def same(stored: Any, answer: Any, key: str) -> bool:
    if not isinstance(stored, int | float) or isinstance(stored, bool):
        return stored == answer
    if math.isnan(stored) or math.isnan(answer):
        return math.isnan(stored) and math.isnan(answer)
    absolute = ABSOLUTE.get(key, 1e-3 if isinstance(stored, float) else 0)
    relative = RELATIVE if isinstance(stored, float) else 0
    return abs(answer - stored) <= max(absolute, relative * abs(stored))


def lines_of(values: dict[str, Any]) -> str:
    """Return JSON with one line per entry, so that a changed entry is one changed line."""
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
