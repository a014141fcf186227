"""The steps of `gpu.py` on image files: classifiers of photographs, detectors."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gpu_runs import compared, repeated, result, rows, sets
from gpu_steps import Notes, Setting, command, finished, memory, said_json


def draw_images(folder: Path, classes: int, each: int) -> Path:
    """Draw images as large as photographs: one colour and shape per class, on noise."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        for number in range(each):
            noise = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
            image = noise.resize((500, 375), Image.Resampling.BICUBIC)
            x, y, radius = rng.integers(100, 300), rng.integers(100, 250), rng.integers(40, 100)
            hue = tuple(int(value) for value in rng.integers(0, 90, 3) + 20 * label)
            box = (int(x - radius), int(y - radius), int(x + radius), int(y + radius))
            pen = ImageDraw.Draw(image)
            (pen.ellipse if label % 2 else pen.rectangle)(box, fill=hue)
            image.save(folder / f"class{label}" / f"{number}.jpg", quality=90)
    return folder


def images(setting: Setting, notes: Notes) -> None:
    """Train on a user's folder; evaluate by several protocols, predict, fine-tune."""
    where = setting.out / "work" / "images"
    data = draw_images(where / "data", 4, setting.size(40, 8))
    length = setting.size(60, 4)
    changes = sets(
        iterations=length, eval_every=length // 2, checkpoint_every=max(length // 6, 1),
        recompute_bn=setting.size(10, 1), **{"augmentation.size": setting.size(224, 64)},
    )  # fmt: skip
    words = ["train", "own-resnet18", "--data", data, *changes]
    repeated(where / "auto", notes, words, label="auto_")
    repeated(where / "same", notes, words, label="deterministic_", deterministic=True)
    model = where / "auto" / "one"
    reports = {}
    for name, more in {
        "one-crop": [],
        "ten-crop": ["--protocol", "ten-crop"],
        "multi-scale": ["--protocol", "multi-scale"],
        "bf16": ["--precision", "bf16", "--keep-scores"],
    }.items():
        pair = [
            command(
                where / f"{name}-{place}.log", "evaluate", model, *more, "--json",
                cpu=place == "cpu",
            )
            for place in ("gpu", "cpu")
            if name in ("one-crop", "ten-crop") or place == "gpu"
        ]  # fmt: skip
        finished(*pair)
        found = [said_json(it)[-1] for it in pair]
        reports[name] = [[it["top1_error"], it["loss"]] for it in found]
    notes.add(evaluated=reports)
    some = sorted(data.rglob("*.jpg"))[:6]
    named = [
        command(where / f"named-{place}.log", "predict", model, *some, "--json", cpu=place == "cpu")
        for place in ("gpu", "cpu")
    ]
    finished(*named)
    one, other = ([it["predictions"][0] for it in said_json(run)] for run in named)
    notes.add(
        predicted_apart=max(
            abs(a["probability"] - b["probability"]) for a, b in zip(one, other, strict=True)
        ),
        predicted_same=[a["class"] for a in one] == [b["class"] for b in other],
    )
    tuned = command(
        where / "tuned.log", "train", "own-resnet18", "--data", data, "--weights", model,
        *sets(iterations=setting.size(20, 2), batch_norm="recalibrate"), "--out", where / "tuned",
    )  # fmt: skip
    finished(tuned)
    notes.add(tuned=result(where / "tuned")["evaluation"][-1]["top1_error"])


def imagenet(setting: Setting, notes: Notes) -> None:
    """Train by the paper's ImageNet recipe, twice: bits, memory, images per second."""
    where = setting.out / "work" / "imagenet"
    data = draw_images(where / "data", 4, setting.size(80, 8))
    model, batch = ("resnet50", 256) if setting.size(1, 0) else ("resnet18", 16)
    changes = sets(
        iterations=setting.size(16, 2), batch_size=batch, recompute_bn=2, log_every=1,
        eval_every=1000, **{"model.classes": 4},
    )  # fmt: skip
    words = ["train", f"imagenet-{model}", "--data", data, *changes]
    runs = {}
    for name in ("one", "two"):
        runs[name] = command(where / f"{name}.log", *words, "--out", where / name)
        finished(runs[name])
    hashes = [result(where / name)["state_sha256"][:12] for name in runs]
    lines = rows(where / "two", "train")
    notes.add(
        hashes=hashes, same=len(set(hashes)) == 1, gib=memory(runs["one"]),
        losses=[lines[0]["loss"], lines[-1]["loss"]],
        images_per_second=[row["images_per_second"] for row in lines],
        run_seconds=result(where / "two")["seconds"],
    )  # fmt: skip


def detector(setting: Setting, notes: Notes) -> None:
    """Repeat and kill a detector's run; compare losses and detections with the CPU's."""
    where = setting.out / "work" / "detector"
    where.mkdir(parents=True, exist_ok=True)
    scenes = where / "scenes"
    finished(command(where / "scenes.log", "scenes", scenes, "--train", 40, "--test", 8))
    length = setting.size(24, 4)
    side = setting.size(400, 100)
    changes = sets(
        iterations=length, shorter=f"[{side}]", eval_every=length, checkpoint_every=length // 4,
        watched=2, log_every=1, fixed_stages=0, **{"model.norm": "group", "search.shorter": side},
    )  # fmt: skip
    words = [
        "train",
        "own-detection-resnet18-c4",
        "--data",
        scenes,
        *changes,
        *sets(fixed_stages=0),
    ]
    repeated(where / "auto", notes, words, label="auto_")
    repeated(where / "same", notes, words, label="deterministic_", deterministic=True)
    short = [*words, *sets(precision="fp32", iterations=setting.size(6, 2))]
    pair = [
        command(where / f"{place}.log", *short, "--out", where / place, cpu=place == "cpu")
        for place in ("gpu", "cpu")
    ]
    finished(*pair)
    notes.add(fp32=compared(where / "gpu", where / "cpu"))
    shown = sorted(scenes.rglob("*.png")) or sorted(scenes.rglob("*.jpg"))
    found = [
        command(
            where / f"found-{place}.log", "detect", where / "gpu", *shown[:4],
            "--threshold", 0.001, "--json", cpu=place == "cpu",
        )
        for place in ("gpu", "cpu")
    ]  # fmt: skip
    finished(*found)
    notes.add(found=found_apart(*map(said_json, found)))


def found_apart(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare two devices' detections: object counts, largest score difference at equal rank."""
    pairs = [(a["objects"], b["objects"]) for a, b in zip(one, other, strict=True)]
    scores = [abs(a["score"] - b["score"]) for x, y in pairs for a, b in zip(x, y, strict=False)]
    return {
        "objects": [[len(x), len(y)] for x, y in pairs],
        "scores_apart": max(scores, default=None),
    }


def alternating(setting: Setting, notes: Notes) -> None:
    """Train by Faster R-CNN's four-step alternating training."""
    where = setting.out / "work" / "alternating"
    where.mkdir(parents=True, exist_ok=True)
    scenes = where / "scenes"
    finished(command(where / "scenes.log", "scenes", scenes, "--train", 12, "--test", 4))
    changes = sets(
        iterations=setting.size(8, 2), shorter=f"[{setting.size(300, 100)}]", fixed_stages=0,
        training="alternating", **{"model.norm": "group"},
    )  # fmt: skip
    words = ["train", "own-detection-resnet18-c4", "--data", scenes, *changes]
    run = command(where / "run.log", *words, "--out", where / "run")
    finished(run)
    notes.add(
        run_seconds=result(where / "run")["seconds"],
        map_50=result(where / "run")["evaluation"][-1]["map_50"],
    )
