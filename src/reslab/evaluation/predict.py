"""Classify images: files, bytes or arrays -> class names and probabilities."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from reslab.data.class_names import ClassIndex
from reslab.data.datasets import EncodedImages, ImageSet, ImagesInMemory
from reslab.data.decode import IMAGE_TYPES, BadImage, ImageInput, image_name, load_image
from reslab.data.resize import Interpolation
from reslab.evaluation.fuse import InferenceCache, is_of_blocks
from reslab.evaluation.scoring import ResizedViews, log_mean, log_probabilities, resize_to_sizes
from reslab.evaluation.views import (
    Sizes,
    View,
    must_be_one_crop,
    protocol_named,
    sizes_needed,
)
from reslab.models.model_file import Model, model_file
from reslab.runtime.text import printable
from reslab.runtime.threads import map_in_order, usable_cores

BATCH_IMAGES = 32  # images per batch, and number of images decoded ahead


@dataclass(frozen=True)
class Prediction:
    """A class and its probability."""

    name: str
    probability: float  # 0 to 1
    id: str  # folder name of the class; often equal to `name`

    def __str__(self) -> str:
        return f"{100 * self.probability:5.1f} %  {printable(self.name)}"


@dataclass(frozen=True)
class Predictor:
    """A classifier that accepts images as paths, bytes, arrays or Pillow images.

    Predictions are computed by a faster copy of the network, which is made again when its weights
    have changed; changes through `.data`, which torch does not count, go unnoticed.
    """

    model: Model
    path: Path | None = None  # the model file or run folder that the model was loaded from
    _cache: InferenceCache = field(
        default_factory=InferenceCache, init=False, repr=False, compare=False
    )

    def __repr__(self) -> str:
        return f"Predictor({str(self.path)!r}, {self.model!r})"

    def __call__(self, images: Tensor) -> Tensor:
        """Compute logits; RGB uint8 [B, 3, H, W] -> [B, classes]."""
        return self.model(images)

    def dense(self, images: Tensor) -> Tensor:
        """Compute logits at every position; RGB uint8 [B, 3, H, W] -> [B, classes, h, w]."""
        return self.model.dense(images)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.classes

    def to(self, device: torch.device) -> "Predictor":
        return replace(self, model=self.model.to(device))

    @overload
    def predict(
        self, images: ImageInput, *, top: int = 5, protocol: str = "one-crop"
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self, images: Sequence[ImageInput], *, top: int = 5, protocol: str = "one-crop"
    ) -> list[list[Prediction]]: ...
    def predict(
        self, images: ImageInput | Sequence[ImageInput], *, top: int = 5, protocol: str = "one-crop"
    ) -> list[Prediction] | list[list[Prediction]]:
        """Return the `top` most probable classes of an image, or of each image in a list.

        An image is a path, the bytes of a file, a uint8 array, RGB [H, W, 3] or grey [H, W], or a
        Pillow image. Raise BadImage, naming the image and the reason, if an image cannot be
        decoded.
        """
        single = isinstance(images, IMAGE_TYPES)
        answers = []
        for answer in self.each([images] if single else images, top=top, protocol=protocol):
            if isinstance(answer, BadImage):
                raise answer
            answers.append(answer)
        return answers[0] if single else answers

    def each(
        self, images: Iterable[ImageInput], *, top: int = 5, protocol: str = "one-crop"
    ) -> Iterator[list[Prediction] | BadImage]:
        """Predict image by image in bounded memory; yield the error in place of a bad image.

        Threads read, decode and resize images ahead of the network.
        """
        preprocessing = self.model.preprocessing
        if self.model.resizes:
            must_be_one_crop(protocol)
        views = protocol_named(protocol, preprocessing.resize, preprocessing.size).views()
        if top < 1:
            raise ValueError(f"top={top} must be at least 1")
        sizes = sizes_needed(views)
        input_side = fixed_side(self.model)

        def prepare(image: ImageInput) -> tuple[ResizedViews, bool] | BadImage:
            try:
                return fit_and_resize(
                    load_image(image), sizes, input_side, image_name(image),
                    preprocessing.interpolation,
                )  # fmt: skip
            except BadImage as error:
                return error

        # the generator is a separate method, so that invalid arguments raise an error immediately
        return self._predict_batches(
            map_in_order(prepare, images, usable_cores(), BATCH_IMAGES), views, top
        )

    def _predict_batches(
        self,
        prepared: Iterator[tuple[ResizedViews, bool] | BadImage],
        views: Sequence[View],
        top: int,
    ) -> Iterator[list[Prediction] | BadImage]:
        warned = False
        while batch := list(islice(prepared, BATCH_IMAGES)):
            good = [item for item in batch if not isinstance(item, BadImage)]
            if not warned and any(fitted for _, fitted in good):
                side = fixed_side(self.model)
                warnings.warn(
                    f"this network takes only {side}x{side} images: images of other sizes are "
                    f"resized to a shorter side of {side} and cropped to the centre",
                    stacklevel=3,
                )
                warned = True
            predictions = iter(self._predict([resized for resized, _ in good], views, top))
            for item in batch:
                yield item if isinstance(item, BadImage) else next(predictions)

    @torch.no_grad()
    def _predict(
        self, images: Sequence[ResizedViews], views: Sequence[View], top: int
    ) -> list[list[Prediction]]:
        if not images:
            return []
        device = self.model.preprocessing.std.device
        model = self.model
        if is_of_blocks(model):
            model = replace(model, net=self._cache.for_inference(model.net))
        logs = log_mean([log_probabilities(model, images, view, device) for view in views])
        if logs.isnan().any():
            place = f"{model_file(self.path)}: " if self.path else ""
            raise RuntimeError(f"{place}the network's scores are NaN: its weights are unusable")
        if logs.shape[1] != len(self.classes):  # a network of the user's own has no configuration
            raise ValueError(
                f"the network has {logs.shape[1]} outputs, the model names {len(self.classes)} "
                "classes"
            )
        # ties go to the lower index, as for the error rates
        ranked = logs.exp().sort(dim=1, descending=True, stable=True)
        ids = self.model.ids or self.classes
        return [
            [Prediction(self.classes[k], p, ids[k]) for k, p in list(zip(*row, strict=True))[:top]]
            for row in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        ]


def fixed_side(model: Model) -> int | None:
    """Return the image size of a network that subtracts a mean image and has no crop, else None."""
    return None if model.preprocessing.size else model.native_side


def fit_and_resize(
    pixels: np.ndarray,
    sizes: Sizes,
    input_side: int | None,
    file: str,
    interpolation: Interpolation = "bilinear",
) -> tuple[ResizedViews, bool]:
    """Resize an image, RGB uint8 [H, W, 3], as in `resize_to_sizes`.

    If the network takes only images of `input_side`, a larger or smaller image is resized to this
    shorter side and cropped to the centre instead of used as it is. The second value is True if
    this was necessary.
    """
    if input_side is None or None not in sizes or pixels.shape[:2] == (input_side, input_side):
        return resize_to_sizes(pixels, sizes, file, interpolation), False
    centre = resize_to_sizes(pixels, {input_side: input_side}, file, interpolation)[input_side]
    return resize_to_sizes(pixels, sizes, file, interpolation) | {None: centre}, True


def match_classes(
    images: ImageSet, classes: tuple[str, ...], ids: tuple[str, ...] = ()
) -> tuple[ImageSet, list[str]]:
    """Relabel a set with a model's outputs; also return a message for each unmatched class.

    A class is matched by its id (ImageNet: wnid) or its name, as in `ClassIndex`. The set may have
    fewer classes than the model has outputs, but predictions are made among all outputs. Images of
    unmatched classes are left out. Raise ValueError if no class matches.
    """
    set_ids = images.ids if isinstance(images, EncodedImages) else ()
    if images.classes == classes and (not ids or not set_ids or set_ids == ids):
        return images, []
    index = ClassIndex(classes, ids)
    words = [
        tuple(dict.fromkeys([*set_ids[row : row + 1], name]))
        for row, name in enumerate(images.classes)
    ]
    outputs = index.match(words)
    pairs = zip(words, outputs, strict=True)
    unmatched = [explain_unmatched(names, index) for names, output in pairs if output < 0]
    if max(outputs, default=-1) < 0:
        raise ValueError(
            f"no class of {images.name} matches an output of the model: {unmatched[0]}"
            if unmatched
            else f"{images.name} has no classes"
        )
    labels = torch.tensor(outputs, device=images.labels.device)[images.labels]
    kept = (labels >= 0).nonzero()[:, 0]
    rest = images if len(kept) == len(labels) else images.take(images.name, kept)
    if isinstance(rest, ImagesInMemory):
        return replace(rest, labels=labels[kept], classes=classes), unmatched
    return replace(rest, labels=labels[kept], classes=classes, ids=ids or classes), unmatched


def explain_unmatched(words: Sequence[str], index: ClassIndex) -> str:
    name = " ".join(repr(word) for word in words)
    if index.is_ambiguous(words):
        return (
            f"class {name} matches several outputs of the model, or the same output as another "
            "class; rename the folder to its id"
        )
    return f"class {name} is not an output of the model{index.hint(words[-1])}"
