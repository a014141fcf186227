"""The runs and files on which editions are compared; each is made when first needed."""

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.editions.edition import Edition

SHORT = ("precision=fp32", "iterations=3", "eval_every=2", "checkpoint_every=2", "log_every=1")
# at least 8 channels: with fewer, torch's 1x1 convolution of stride 2 fails under AVX2
SMALL = (*SHORT, "recompute_bn=2", "model.widths=[8,8,16]", "model.blocks=[1,2,1]")
SIZES = ("augmentation.size=128", "augmentation.shorter_side=[128,160]", "pictures.resize=144")
IMAGES = (*SHORT, "recompute_bn=2", "model.widths=[8,8,16,16]", "batch_size=4", *SIZES)
BOXES = (
    *SHORT, "data=boxes", "model.norm=group", "fixed_stages=0", "model.width=8", "shorter=[64]",
    "longest=80", "search.shorter=64", "search.longest=80", "sampling.anchors=32",
    "sampling.before=120", "sampling.proposals=40", "sampling.regions=16", "search.before=120",
    "search.proposals=20", "batch_size=2", "watched=3",
)  # fmt: skip
SMALL_TRUNK = ("model.trunk.widths=[8,8,16]", "model.trunk.blocks=[1,1,1]")
DIGITS, SCENES = "digits-resnet20", "digit-scenes-resnet20-c4"
CLASSES = "model.classes=2"  # as in the sets with boxes


@dataclass(frozen=True)
class Run:
    """The arguments of a run."""

    recipe: str
    changes: tuple[str, ...]
    data: str | None = None  # a set in `sets.py`, or a name in FILES
    weights: str | None = None  # the name of another run
    seed: int = 1
    processes: int = 1


RUNS = {
    "plain": Run("digits-plain20", SMALL),
    "residual": Run(DIGITS, SMALL, seed=2),
    "projection": Run("digits-resnet20-B", SMALL),
    "all-projections": Run("digits-resnet20-C", (*SMALL, "weight_decay=0.001", "momentum=0.8")),
    "plateau": Run(
        DIGITS,
        (*SMALL, "iterations=8", "eval_every=1", "drops=[]", "plateau.patience=1", "held_out=300",
         "warmup.cap=2", "warmup.window=2", "recompute_bn=0"),
    ),
    "drops": Run(DIGITS, (*SMALL, "iterations=6", "warmup=null", "drops=[0.5,0.75]")),
    "whole": Run(DIGITS, (*SHORT, "recompute_bn=2")),  # has the widths that detectors need
    "tuned": Run(DIGITS, (*SHORT, "batch_norm=recalibrate"), weights="whole"),
    "cifar": Run("cifar10-resnet20", (*SMALL, "eval_every=3"), data="cifar"),
    "images": Run("own-resnet18", IMAGES, data="images"),
    "bottleneck": Run(
        "own-resnet50",
        (*SHORT, "recompute_bn=2", "model.widths=[8,8,16,16]", "batch_size=4",
         "augmentation={\"kind\":\"resized-crop\",\"size\":96,\"colour\":0.1}", "balance=sampler",
         "pictures.mean=pixel", "pictures.resize=110"),
        data="parts",
    ),
    "weighted": Run("own-plain18", (*IMAGES, "balance=loss"), data="parts"),
    "large": Run(  # a net that torchvision also has
        "own-resnet18",
        (*SHORT, *SIZES, "batch_size=4", "recompute_bn=2", "iterations=2", "checkpoint_every=9",
         "model.pool=padded"),
        data="images",
    ),
    "fine-tuned": Run("own-resnet18", (*SHORT, *SIZES, "batch_size=4", "checkpoint_every=9"),
                      data="parts", weights="large"),
    "shards": Run("own-resnet18", IMAGES, data="packed"),
    "joint": Run(SCENES, (*BOXES, *SMALL_TRUNK, CLASSES), data="coco"),
    "joint-voc": Run(
        "own-detection-resnet18-c4",
        (*BOXES, "model.trunk.widths=[8,8,16,16]", "model.pooling=align", "model.context=true",
         "model.sizes=[16,32,64]", "shorter=[48,64]"),
        data="voc",
    ),
    "recomputed": Run(
        SCENES, (*BOXES, CLASSES, "model.norm=recompute", "fixed_stages=1", "iterations=2"),
        data="coco", weights="whole",
    ),
    "frozen": Run(
        SCENES, (*BOXES, CLASSES, "model.norm=frozen", "iterations=2"), data="coco",
        weights="whole",
    ),
    "alternating": Run(
        SCENES, (*BOXES, *SMALL_TRUNK, CLASSES, "training=alternating"), data="coco"
    ),
    "two-processes": Run(DIGITS, SMALL, seed=2, processes=2),
    "two-processes-boxes": Run(
        SCENES, (*BOXES, *SMALL_TRUNK, CLASSES, "virtual_gpus=2"), data="coco", processes=2
    ),
}  # fmt: skip

# stopped runs: the full run, the file whose existence triggers the signal, the signal
LONG = ("iterations=12", "checkpoint_every=2")
STOPPED = {
    "killed": ("residual", "checkpoints/00000002.safetensors", signal.SIGKILL),
    "stopped": ("images", "checkpoints/00000004.safetensors", signal.SIGTERM),
    "stopped-joint": ("joint", "checkpoints/00000002.safetensors", signal.SIGINT),
    "stopped-alternating": ("alternating", "step2/checkpoints/00000002.safetensors",
                            signal.SIGTERM),
    "killed-alternating": ("alternating", "step3/recipe.json", signal.SIGKILL),
}  # fmt: skip


def made(edition: Edition, name: str) -> Path:
    """Return the folder of the run or files called `name`; make it if it is missing."""
    place, marker = edition.home / "runs" / name, edition.home / "runs" / f"{name}.made"
    if not marker.exists():
        shutil.rmtree(place, ignore_errors=True)
        if name in RUNS:
            edition.command(*words_of(edition, RUNS[name], place))
        elif name in STOPPED:
            stop(edition, name, place)
        else:
            FILES[name](edition, place)
        marker.touch()
    return place


def words_of(edition: Edition, run: Run, out: Path, *more: str) -> list[object]:
    """Return the arguments of the `train` command of a run."""
    words: list[object] = ["train", run.recipe, "--out", out, "--seed", run.seed]
    if run.data:
        words += [
            "--data",
            made(edition, run.data) if run.data in FILES else edition.data / run.data,
        ]
    if run.weights:
        words += ["--weights", made(edition, run.weights)]
    if run.processes > 1:
        words += ["--processes", run.processes]
    for change in (*run.changes, *more):
        words += ["--set", change]
    return words


def stop(edition: Edition, name: str, place: Path) -> None:
    """Start a run and stop it by a signal before it ends."""
    base, seen, number = STOPPED[name]
    edition.stopped(number, place / seen, *words_of(edition, RUNS[base], place, *LONG))
    if (place / "result.json").exists():
        raise RuntimeError(f"{name} finished before it was stopped")


def pack(edition: Edition, out: Path) -> None:
    edition.command("pack", edition.data / "images", out)


def export(edition: Edition, out: Path) -> None:
    out.mkdir()
    model = made(edition, "large")
    edition.command("export", model, "--to", "torchvision", "--out", out / "net.safetensors")
    edition.command("export", model, "--to", "torchvision", "--out", out / "net.pth")


def import_(edition: Edition, out: Path) -> None:
    out.mkdir()
    names = out / "names.txt"
    names.write_text("brick\nslate\n")
    words = ["--as", "resnet18", "--out", out / "model.safetensors", "--classes", names]
    edition.command("import", made(edition, "exported") / "net.pth", *words)


def keep_scores(edition: Edition, out: Path) -> None:
    """Copy a run and keep the scores of its test images."""
    shutil.copytree(made(edition, "images"), out)
    edition.command("evaluate", out, "--keep-scores", "--json")
    edition.command("evaluate", out, "--protocol", "ten-crop:144-128", "--keep-scores", "--json")


FILES: dict[str, Callable[[Edition, Path], None]] = {
    "packed": pack,
    "exported": export,
    "imported": import_,
    "scores": keep_scores,
}
