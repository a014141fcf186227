"""The images on which int8 is calibrated, and what int8 loses on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

from reslab.api.export_images import images_of_set, own_test_set
from reslab.api.inputs import find_images
from reslab.api.test_sets import open_images_in, resize_and_crop
from reslab.data.datasets import EncodedImages, ImageSet
from reslab.data.location import parse_location
from reslab.deploy.int8 import CALIBRATION_IMAGES
from reslab.evaluation.fuse import model_for_inference
from reslab.evaluation.predict import match_classes
from reslab.evaluation.report import build_report, score_set
from reslab.evaluation.scoring import Reading
from reslab.evaluation.views import protocol_named
from reslab.models.model_file import Model
from reslab.runtime.events import silent
from reslab.runtime.files import read_regular

MEASURED_IMAGES = 500
LEAST_AGREEMENT = 92.0  # percent of images with the same answer as in fp32


@dataclass(frozen=True)
class Int8Images:
    """The images of an int8 export."""

    calibration: Sequence[np.ndarray]  # RGB uint8 [H, W, 3]
    measured: ImageSet  # others, if there are enough
    labelled: bool
    source: str


@dataclass(frozen=True)
class Int8Loss:
    """What a model in int8 answers differently from fp32, in percent."""

    images: int
    source: str
    agreement: float  # of images, those with the same most probable class
    top1: tuple[float, float] | None  # accuracy in fp32 and in int8; None without labels

    def __str__(self) -> str:
        line = f"int8: {self.agreement:.1f} % of {self.images} images ({self.source}) as in fp32"
        if self.top1 is None:
            return f"{line}; top-1 not measured, as the images have no labels"
        exact, rounded = self.top1
        return f"{line}; top-1 {rounded:.1f} %, {rounded - exact:+.1f} points against fp32"

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the loss for JSON and for the file's metadata."""
        exact, rounded = self.top1 or (None, None)
        return {
            "images": self.images,
            "source": self.source,
            "agreement": self.agreement,
            "top1_fp32": exact,
            "top1_int8": rounded,
        }


def images_for_int8(model: Model, path: Path, check: Path | None) -> Int8Images:
    """Return images for calibration, and other images on which to measure the loss.

    They come from the folder `check`, with or without a subfolder per class, by default from the
    model's own test set. `path` is where the model was loaded from. Raise ValueError if there are
    no images.
    """
    images, labelled = (
        (own_test_set(model, path), True) if check is None else in_folder(model, path, check)
    )
    if images is None:
        raise ValueError(
            "int8 is calibrated on images, and the model's own are not on this machine: name a "
            "folder of images with `check`"
        )
    images, _ = match_classes(images, model.classes, model.ids)
    total = len(images)
    step = max(total // CALIBRATION_IMAGES, 1)
    others = [index for index in range(total) if index % step or index >= step * CALIBRATION_IMAGES]
    source = images.name
    if len(others) < CALIBRATION_IMAGES:
        others = list(range(total))
        source += f", of which {min(total, CALIBRATION_IMAGES)} calibrated it"
    spread = others[:: max(len(others) // MEASURED_IMAGES, 1)][:MEASURED_IMAGES]
    calibration = images_of_set(images, CALIBRATION_IMAGES)
    if not calibration:
        raise ValueError(f"no image of {images.name} can be decoded")
    measured = images.take(images.name, torch.tensor(spread))
    return Int8Images(calibration, measured, labelled, source)


def in_folder(model: Model, path: Path, folder: Path) -> tuple[ImageSet, bool]:
    """Open a folder of images; the second value is False if their classes are unknown."""
    try:
        images = open_images_in(parse_location(folder), [(path, model)], silent)
        return match_classes(images, model.classes, model.ids)[0], True
    except ValueError:
        found, _ = find_images(folder)
    files = [image.file for image in found]
    labels = torch.zeros(len(files), dtype=torch.int64)
    ids = model.ids or model.classes
    return EncodedImages(str(folder), files, labels, model.classes, ids, read_regular), False


def measure_loss(model: Model, rounded: Model, path: Path, images: Int8Images) -> Int8Loss:
    """Compare a model with itself in int8 on `images.measured`.

    Raise ValueError if none of them can be decoded.
    """
    prepared, measured = model.preprocessing, images.measured
    protocol = protocol_named("one-crop", *resize_and_crop(path, model, measured))
    reading = Reading(prepared.interpolation, prepared.as_stored)
    exact, found = (
        score_set(it, measured, protocol, device=prepared.std.device, reading=reading)
        for it in (model_for_inference(model), rounded)
    )
    pairs = zip(exact.log_probabilities, found.log_probabilities, strict=True)
    same = [
        bool(wanted.argmax() == answer.argmax())
        for index, (wanted, answer) in enumerate(pairs)
        if index not in exact.bad
    ]
    if not same:
        raise ValueError(f"no image of {measured.name} can be decoded")
    top1 = None
    if images.labelled:
        reports = (build_report(scores, measured, str(protocol)) for scores in (exact, found))
        accuracy, with_int8 = (100 - report.top1_error for report in reports)
        top1 = (accuracy, with_int8)
    return Int8Loss(len(same), images.source, 100 * sum(same) / len(same), top1)
