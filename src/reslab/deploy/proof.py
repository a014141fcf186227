"""The proof of an export: the exported file in its runtime must answer as reslab does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from reslab.evaluation.fuse import model_for_inference
from reslab.evaluation.predict import fit_and_resize, fixed_side
from reslab.evaluation.scoring import log_mean_softmax
from reslab.evaluation.views import protocol_named, sizes_needed
from reslab.models.model_file import Model

BATCHES = (1, 2, 7)  # images at a time
SIZES = 3  # sizes of images at which all batches are tried
LEAST_LOG = -80.0  # exported probabilities below e^-80 are not normal numbers in fp32
LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class ProofImages:
    """The images of a proof, RGB uint8 [H, W, 3], and where they come from."""

    images: Sequence[np.ndarray]
    source: str


@dataclass(frozen=True)
class Limits:
    """How far the answers of an exported file may be from reslab's; None is no limit."""

    probability: float | None  # between probabilities
    # between logarithms of probabilities, in multiples of their standard deviation over images: a
    # net that is sure of everything has equal probabilities for different inputs
    relative: float | None
    agreement: float = 1.0  # least share of images with the same most probable class


@dataclass(frozen=True)
class Verdict:
    """What a proof found."""

    runtime: str
    images: int
    sizes: int
    source: str
    answers: int  # images, counted again for each batch that they were in
    same_classes: bool  # whether the file names the outputs as the model does
    same_names: int  # answers with the same most probable class
    difference: float  # largest, between probabilities
    relative: float  # largest, between logarithms, as in `Limits`
    limits: Limits

    @property
    def passed(self) -> bool:
        limits = self.limits
        return (
            self.same_classes
            and self.same_names >= limits.agreement * self.answers
            # not >, so that NaN fails
            and (limits.probability is None or self.difference <= limits.probability)
            and (limits.relative is None or self.relative <= limits.relative)
        )

    def __str__(self) -> str:
        first = (
            f"{self.images} images ({self.source}), {self.sizes} sizes, batches "
            f"{'/'.join(map(str, BATCHES))} in {self.runtime}"
        )
        limit = self.limits.probability
        allowed = f" (limit {limit:g})" if limit is not None else ""
        different = self.answers - self.same_names
        names = f"{different} of {self.answers} names differ" if different else "all names equal"
        found = f"{first}: max |dp| {self.difference:.1e}{allowed}, {names}"
        if self.limits.relative is not None and not self.relative <= self.limits.relative:
            found += f", logarithms of probabilities differ by {100 * self.relative:.1f} % of "
            found += f"their deviation (limit {100 * self.limits.relative:g} %)"
        return found if self.same_classes else f"{found}, classes named differently"

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the verdict for JSON and for the file's metadata."""
        return asdict(self) | {"batches": [*BATCHES], "passed": self.passed}


@torch.no_grad()
def prove(model: Model, exported: Model, images: ProofImages, limits: Limits) -> Verdict:
    """Compare an exported file, opened as a model, with the model that it was made from, in fp32.

    Every image is classified alone, and images of `SIZES` different sizes also in batches.
    """
    if model.dtype != torch.float32:  # files of fewer digits are exported in fp32, too
        model = replace(model, net=deepcopy(model.net).to(torch.float32))
    batches = list(batches_of(images.images))
    expected = log_answers(model_for_inference(model), batches)
    found = log_answers(exported, batches)
    same_shape = found.shape == expected.shape
    found = found if same_shape else torch.full_like(expected, torch.nan)
    difference = (found.exp() - expected.exp()).abs().max().item()
    spread = (expected - expected.mean(0)).square().mean().sqrt().clamp_min(LEAST_SPREAD)
    return Verdict(
        runtime=(exported.own_net or "torch").partition(";")[0],
        images=len(images.images),
        sizes=len({image.shape for image in images.images}),
        source=images.source,
        answers=len(expected),
        same_classes=(exported.classes, exported.ids) == (model.classes, model.ids),
        same_names=same_names(expected.exp(), found.exp(), limits.probability or 0),
        difference=difference,
        relative=((found - expected).abs().max() / spread).item(),
        limits=limits,
    )


def same_names(expected: Tensor, found: Tensor, tolerance: float) -> int:
    """Count the images whose most probable class is the same, [N, classes]; ties may differ."""
    best, chosen = expected.max(1).values, found.argmax(1, keepdim=True)
    return int((expected.gather(1, chosen)[:, 0] >= best - tolerance).sum())


def log_answers(model: Model, batches: Iterable[Sequence[np.ndarray]]) -> Tensor:
    """Return the logarithms of a model's probabilities, at least LEAST_LOG; [N, classes]."""
    rows = [
        log_mean_softmax(model(torch.stack([network_input(model, image) for image in batch])))
        for batch in batches
    ]
    return torch.cat(rows).double().clamp_min(LEAST_LOG)


def network_input(model: Model, image: np.ndarray) -> Tensor:
    """Return a model's input for an image in a one-crop test, uint8 [3, h, w]."""
    preprocessing = model.preprocessing
    views = protocol_named("one-crop", preprocessing.resize, preprocessing.size).views()
    resized, _ = fit_and_resize(
        image, sizes_needed(views), fixed_side(model), "image", preprocessing.interpolation
    )
    return views[0].of(resized[views[0].side])


def batches_of(images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield each image alone, then batches of variants of `SIZES` images of different sizes."""
    yield from ([image] for image in images)
    different = list({image.shape: image for image in images}.values())
    assert len(different) >= SIZES
    for image in different[:SIZES]:
        variants = variants_of(image)
        yield from (variants[:count] for count in BATCHES[1:])


def variants_of(image: np.ndarray) -> list[np.ndarray]:
    """Return as many different images of one size as the largest batch has."""
    turned = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    moved = [np.roll(image, image.shape[1] // part, axis=1) for part in (2, 3, 4)]
    return [np.ascontiguousarray(variant) for variant in turned + moved]
