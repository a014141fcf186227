"""The steps of `gpu.py` that check the updates of classifiers and detectors on a GPU."""

import io
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gpu_setting import CPU, ENGINES, RATE, Notes, Setting, Trainer, distance, trainer
from reslab.data.boxes.sets import DetectionSet, DetectionSplits, GroundTruth
from reslab.data.datasets import Splits
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import setup_detection
from reslab.detection.task import DetectionTask
from reslab.models.config import config_named
from reslab.recipes.detection import voc_recipe
from reslab.runtime.device import Device
from reslab.runtime.files import sha256_of
from reslab.runtime.threads import usable_cores
from reslab.training.classification import ClassificationTask
from reslab.training.loop import LOSS, Update, eager_update_of

Precision = Literal["bf16", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
SCENES, SCENE_UPDATES = 8, 3  # images and updates of a detector
# Bounds of relative differences. Sums in another order move a few ReLUs to the other side of 0,
# which changes the gradient far more than the loss: by 6e-3 in ResNet-110 on a CPU.
LOSS_FP32, GRADIENT_FP32, LOSS_BF16 = 1e-4, 0.02, 0.05
# how much farther from fp32 the gradient of another engine in bf16 may be than eager bf16's
FARTHER = 1.5
# a detector's: another proposal, of almost the same score, is another region to learn from
REGIONS, REGIONS_BF16 = 0.01, 0.1


def machine(setting: Setting, notes: Notes) -> None:
    """Record the hardware, the software and the engines."""
    notes.fact("Python", sys.version.split()[0])
    notes.fact("torch", f"{torch.__version__}, CUDA {torch.version.cuda}")
    notes.fact("cores", usable_cores())
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        gib = properties.total_memory / 2**30
        notes.fact("device", f"{properties.name}, {gib:.1f} GiB")
        notes.fact("cuDNN", torch.backends.cudnn.version())
        query = ["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"]
        with suppress(OSError):  # the tool is not everywhere
            found = subprocess.run(query, capture_output=True, text=True).stdout
            notes.fact("driver and power limit", found.strip())
    for engine in ENGINES:
        built = trainer(setting, 20, engine)
        notes.fact(f"engine={engine}", "there" if isinstance(built, Trainer) else built)


@dataclass(frozen=True)
class Outcome:
    """The result of a few updates from the same initial weights."""

    losses: list[float]
    gradient: Tensor  # of the first update, with weight decay: fp32 [parameters], on the CPU
    bits: str  # SHA-256 of the state after the last

    @property
    def loss(self) -> float:
        return self.losses[0]


def outcome(task: ClassificationTask | DetectionTask, update: Update, count: int) -> Outcome:
    """Make `count` updates, from iteration 0 on."""
    losses, gradient = [], torch.empty(0)
    for iteration in range(count):
        table = update(task.draws(iteration), RATE)
        losses.append(table[:, LOSS].mean().item())
        if iteration == 0:  # so the velocities are the gradients
            velocities = task.optimizer.state().tensors
            gradient = torch.cat([velocities[name].float().cpu().flatten() for name in velocities])
    state = task.net.state_dict() | task.optimizer.state().tensors
    return Outcome(losses, gradient, sha256_of(state))


def eager(
    setting: Setting, depth: int, precision: Precision, place: torch.device | None = None
) -> Outcome:
    """Make the updates of a net eagerly."""
    built = trainer(setting, depth, "torch", precision, place=place)
    assert isinstance(built, Trainer)
    return outcome(built.task, eager_update_of(built.task), setting.sizes.updates)


def engines(setting: Setting, notes: Notes) -> None:
    """Compare the updates of each engine with the eager ones."""
    for depth in setting.sizes.compared:
        exact = eager(setting, depth, "fp32")
        for precision in PRECISIONS:
            plain = exact if precision == "fp32" else eager(setting, depth, precision)
            for engine in ENGINES:
                what = f"ResNet-{depth} in {precision}, engine={engine}"
                built = trainer(setting, depth, engine, precision)
                if isinstance(built, str):
                    notes.fact(what, built)
                    continue
                made = outcome(built.task, built.update, setting.sizes.updates)
                if setting.device.type == "cuda":
                    notes.check(f"{what}: in a graph", not built.said, built.said or "yes")
                again = trainer(setting, depth, engine, precision)
                assert isinstance(again, Trainer)
                repeated = outcome(again.task, again.update, setting.sizes.updates)
                same = made.bits == repeated.bits
                notes.check(f"{what}: the same bits when repeated", same, made.bits[:12])
                if engine == "torch" or made.bits == plain.bits:
                    equal = made.bits == plain.bits
                    notes.check(f"{what}: the bits of the eager update", equal, plain.bits[:12])
                else:
                    compare_with_eager(what, made, plain, exact, notes)
                notes.fact(f"{what}: last loss", [made.losses[-1], plain.losses[-1]])


def compare_with_eager(
    what: str, made: Outcome, plain: Outcome, exact: Outcome, notes: Notes
) -> None:
    """Compare an engine with kernels of its own: its loss and gradient, beside eager fp32's.

    `plain` is the eager update in the engine's precision.
    """
    is_exact = plain is exact
    loss = abs(made.loss / exact.loss - 1)
    notes.within(f"{what}: loss beside eager fp32", loss, LOSS_FP32 if is_exact else LOSS_BF16)
    bound = max(GRADIENT_FP32, FARTHER * distance(plain.gradient, exact.gradient))
    apart = distance(made.gradient, exact.gradient)
    notes.within(f"{what}: gradient beside eager fp32", apart, bound)


def precision(setting: Setting, notes: Notes) -> None:
    """Compare the GPU with the CPU in fp32, and bf16 with fp32."""
    exact = eager(setting, 20, "fp32")
    on_cpu = eager(setting, 20, "fp32", CPU)
    what = "ResNet-20 in fp32 on GPU and CPU"
    notes.within(f"{what}: loss", abs(exact.loss / on_cpu.loss - 1), LOSS_FP32)
    notes.within(f"{what}: gradient", distance(exact.gradient, on_cpu.gradient), GRADIENT_FP32)
    rounded = eager(setting, 20, "bf16")
    sums = [sum(made.losses) for made in (rounded, exact)]
    what = f"ResNet-20 in bf16 and fp32: mean loss of {len(exact.losses)} updates"
    notes.within(what, abs(sums[0] / sums[1] - 1), LOSS_BF16)


def scenes(side: int) -> DetectionSplits:
    """Draw images with two rectangles of two colours each, as a set with boxes."""
    rng = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    truths = []
    for number in range(SCENES):
        noise = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((side, side))
        corners = rng.integers(0, side // 2, (2, 2))
        boxes = np.concatenate((corners, corners + rng.integers(side // 4, side // 2, (2, 2))), 1)
        for box, colour in zip(boxes.tolist(), ("red", "blue"), strict=True):
            ImageDraw.Draw(image).rectangle(box, fill=colour)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files[f"{number}.png"] = buffer.getvalue()
        nothing = torch.zeros(2, dtype=torch.bool)
        labels = torch.tensor([0, 1])
        truths.append(GroundTruth(torch.from_numpy(boxes).float(), labels, nothing, nothing))
    names, sizes = list(files), [(side, side)] * SCENES
    classes = ("red", "blue")
    images = DetectionSet(
        "train", names, truths, classes, classes, files.__getitem__, sizes, range(SCENES)
    )
    return Splits(images, images)


def detector_recipe(setting: Setting) -> DetectionRecipe:
    """Return VOC's recipe for a small trunk without weights to start from."""
    sizes = setting.sizes
    run_recipe = voc_recipe("resnet18", config_named("resnet18"))
    changes = ["model.norm=group", "fixed_stages=0", "model.classes=2", f"shorter=[{sizes.scene}]"]
    return run_recipe.with_changes([*changes, "batch_size=2", *sizes.detector])


def detector(setting: Setting, notes: Notes) -> None:
    """Repeat a detector's updates; compare them with the CPU's, and bf16 with fp32."""
    sets = scenes(setting.sizes.scene)

    def made(place: torch.device, precision: Precision) -> Outcome:
        task = setup_detection(
            detector_recipe(setting), 1, sets, "voc", Device(place, precision),
            weights=None, preprocessing=None, proposer=None, begun=False, log=notes.log,
        )  # fmt: skip
        with closing(task):
            return outcome(task, eager_update_of(task), SCENE_UPDATES)

    exact, rounded = (made(setting.device, precision) for precision in PRECISIONS)
    again, on_cpu = made(setting.device, "bf16"), made(CPU, "fp32")
    same = rounded.bits == again.bits
    notes.check("detector in bf16: the same bits when repeated", same, rounded.bits[:12])
    loss = abs(exact.loss / on_cpu.loss - 1)
    notes.within("detector in fp32 on GPU and CPU: loss", loss, REGIONS)
    apart = distance(exact.gradient, on_cpu.gradient)
    notes.within("detector in fp32 on GPU and CPU: gradient", apart, REGIONS)
    loss = abs(rounded.loss / exact.loss - 1)
    notes.within("detector in bf16 and fp32: loss", loss, REGIONS_BF16)
