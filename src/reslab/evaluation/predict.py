"""Images to names and probabilities, by what the model file says and nothing else."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from reslab.data.datasets import EncodedImages, ImagesInMemory
from reslab.data.decode import BadImage, ImageInput, image_name, load_image
from reslab.evaluation.scoring import (
    AnySet,
    ResizedViews,
    at_sides,
    log_mean,
    log_probabilities,
)
from reslab.evaluation.views import View, protocol_named
from reslab.models import model_file as weights
from reslab.models.model_file import Model
from reslab.runtime.threads import map_in_order, usable_cores

TOGETHER = 32  # images whose views are scored in one go; as many again are decoded meanwhile


@dataclass(frozen=True)
class Prediction:
    """One of a model's classes, and how probable it holds it to be."""

    name: str
    probability: float  # 0 to 1
    id: str  # what folders call the class; the name where they call it that

    def __str__(self) -> str:
        return f"{100 * self.probability:5.1f} %  {self.name}"


@dataclass(frozen=True)
class Prepared:
    """An image at the sizes that a protocol looks at."""

    sized: ResizedViews
    fitted: bool  # made to fit a network that knows one size only


@dataclass(frozen=True)
class Predictor:
    """A model that takes images as people have them: files, bytes, arrays."""

    model: Model

    def __call__(self, images: Tensor) -> Tensor:
        """RGB bytes [B, 3, H, W] -> scores before the softmax, [B, classes]."""
        return self.model(images)

    def dense(self, images: Tensor) -> Tensor:
        """RGB bytes [B, 3, H, W] -> scores at every position, [B, classes, h, w]."""
        return self.model.dense(images)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the model can call an image."""
        return self.model.classes

    def to(self, device: torch.device) -> "Predictor":
        """The same on a device."""
        return Predictor(self.model.to(device))

    @overload
    def predict(
        self, images: ImageInput, *, top: int = 5, protocol: str = "one-crop"
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self, images: Sequence[ImageInput], *, top: int = 5, protocol: str = "one-crop"
    ) -> list[list[Prediction]]: ...
    def predict(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        top: int = 5,
        protocol: str = "one-crop",
    ) -> list[Prediction] | list[list[Prediction]]:
        """The `top` classes of an image, the most probable first; of a list, a list for each.

        An image is a path, the bytes of a file, RGB uint8 [H, W, 3], or Pillow's. BadImage
        says which one is bad, and why.
        """
        alone = isinstance(images, ImageInput)
        found = []
        for answer in self.each([images] if alone else images, top=top, protocol=protocol):
            if isinstance(answer, BadImage):
                raise answer
            found.append(answer)
        return found[0] if alone else found

    def each(
        self, images: Iterable[ImageInput], *, top: int = 5, protocol: str = "one-crop"
    ) -> Iterator[list[Prediction] | BadImage]:
        """As `predict`, one answer after the other, in bounded memory; a bad image is an answer.

        Images are read, decoded and resized by threads, ahead of the network.
        """
        preprocessing = self.model.preprocessing
        views = protocol_named(protocol, preprocessing.resize, preprocessing.size).views()
        if top < 1:
            raise ValueError(f"top={top}: at least one class")
        sides = list(dict.fromkeys(view.side for view in views))
        own = only_side(self.model)

        def prepared(image: ImageInput) -> Prepared | BadImage:
            try:
                return resize_to_sides(load_image(image), sides, own, image_name(image))
            except BadImage as bad:
                return bad

        return self._answers(map_in_order(prepared, images, usable_cores(), TOGETHER), views, top)

    def _answers(
        self, coming: Iterator[Prepared | BadImage], views: Sequence[View], top: int
    ) -> Iterator[list[Prediction] | BadImage]:
        said = False
        while together := list(islice(coming, TOGETHER)):
            good = [it for it in together if isinstance(it, Prepared)]
            if not said and any(it.fitted for it in good):
                side = only_side(self.model)
                warnings.warn(
                    f"this network knows images of {side}x{side} only: others are resized until "
                    "their shorter side fits, and their centre is taken",
                    stacklevel=3,
                )
                said = True
            named = iter(self._named([it.sized for it in good], views, top))
            for it in together:
                yield it if isinstance(it, BadImage) else next(named)

    @torch.no_grad()
    def _named(
        self, images: Sequence[ResizedViews], views: Sequence[View], top: int
    ) -> list[list[Prediction]]:
        if not images:
            return []
        device = self.model.preprocessing.std.device
        logs = log_mean([log_probabilities(self.model, images, view, device) for view in views])
        if logs.isnan().any():
            raise RuntimeError("the network's scores are not numbers: its weights are of no use")
        # of equal scores the lower index ranks first, as for the errors
        ranked = logs.exp().sort(dim=1, descending=True, stable=True)
        ids = self.model.ids or self.classes
        return [
            [Prediction(self.classes[k], p, ids[k]) for k, p in list(zip(*row, strict=True))[:top]]
            for row in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        ]


def load_predictor(path: str | Path) -> Predictor:
    """A model file, or the one in a run folder, ready to name images."""
    return Predictor(weights.load_model(path))


def only_side(model: Model) -> int | None:
    """The one size that a network knows which has a mean image and no crop: CIFAR's, digits'."""
    return None if model.preprocessing.size else model.own_side


def resize_to_sides(
    pixels: np.ndarray, sides: Sequence[int | None], own: int | None, file: str
) -> Prepared:
    """An image with its shorter side made each of `sides`; RGB uint8 [H, W, 3].

    None is the image as it came, but for a network that knows one size only its `own` size.
    """
    if own is None or None not in sides or pixels.shape[:2] == (own, own):
        return Prepared(at_sides(pixels, sides, file), fitted=False)
    sized = at_sides(pixels, [own if side is None else side for side in sides], file)
    centre = View(own, "centre", own).of(sized[own])
    return Prepared(sized | {None: centre}, fitted=True)


def match_classes(
    images: AnySet, classes: tuple[str, ...], ids: tuple[str, ...] = ()
) -> tuple[AnySet, list[str]]:
    """The set with its labels as a model's outputs, and a line for each class that is none.

    A class is found by its id (ImageNet: wnid) or its name, as it is written if that is an
    output's (folders of letters have an a and an A), else whatever their case. The set may hold
    any of the outputs; all of them compete. Images of classes that are not found are left out.
    ValueError if none is.
    """
    own_ids = images.ids if isinstance(images, EncodedImages) else ()
    if images.classes == classes and (not ids or not own_ids or own_ids == ids):
        return images, []
    exactly, outputs = (outputs_by_name(kind, classes, ids) for kind in (str, normalise))
    found, lost = [], []
    for at, name in enumerate(images.classes):
        words = dict.fromkeys([*own_ids[at : at + 1], name])
        places = [exactly.get(word, outputs.get(normalise(word), -1)) for word in words]
        output = next((at for at in places if at not in (None, -1)), None)
        found.append(-1 if output is None else output)
        if output is None:
            lost.append(described(list(words), None in places, outputs))
    if max(found, default=-1) < 0:
        raise ValueError(
            f"no class of {images.name} is an output of the model: {lost[0]}"
            if lost
            else f"{images.name} has no classes"
        )
    labels = torch.tensor(found, device=images.labels.device)[images.labels]
    kept = (labels >= 0).nonzero()[:, 0]
    rest = images if len(kept) == len(labels) else images.take(images.name, kept)
    if isinstance(rest, ImagesInMemory):
        return replace(rest, labels=labels[kept], classes=classes), lost
    return replace(rest, labels=labels[kept], classes=classes, ids=ids or classes), lost


def normalise(name: str) -> str:
    """A name as it is compared: neither case nor the kind of gap counts."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def outputs_by_name(
    kind: Callable[[str], str], classes: Sequence[str], ids: Sequence[str]
) -> dict[str, int | None]:
    """Where each name leads; None for one that several outputs share (ImageNet has two cranes)."""
    outputs: dict[str, int | None] = {}
    for at, name in enumerate(map(kind, classes)):
        outputs[name] = None if name in outputs else at
    return outputs | {kind(name): at for at, name in enumerate(ids)}


def described(words: Sequence[str], shared: bool, outputs: dict[str, int | None]) -> str:
    """What is said of a class that is not found."""
    name = " ".join(repr(word) for word in words)
    if shared:
        return f"class {name}: several outputs have this name; call the folder by its id"
    near = get_close_matches(normalise(words[-1]), list(outputs), n=1, cutoff=0.5)
    return f"class {name} is no output of the model" + (f"; nearest: {near[0]!r}" if near else "")
