"""Apply a model to a user's images: predict classes, or detect objects and draw their boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from reslab.api.drawings import DrawingFolder, open_drawing_folder, without_drawings
from reslab.api.inputs import ImageResult, InputImage, find_images
from reslab.api.models import (
    Classifier,
    DetectorModel,
    open_classifier,
    open_detector,
    set_precision,
)
from reslab.data.decode import BadImage, ImageInput
from reslab.detection.predict import (
    SHOWN_SCORE,
    Detection,
    DetectorPredictor,
    detector_predictor,
)
from reslab.evaluation.predict import Prediction, Predictor
from reslab.runtime.device import setup_device


def predict(
    model: Classifier,
    images: ImageInput | Sequence[ImageInput],
    *,
    top: int = 5,
    protocol: str = "one-crop",
    precision: str = "fp32",
    backend: str = "auto",
) -> list[ImageResult[Prediction]]:
    """Classify images: return the `top` most probable classes of each.

    `model` is a run folder, a model file, an exported file or the result of `load`. `images` is a
    file, a folder, encoded bytes, a uint8 array, RGB [H, W, 3] or grey [H, W], or a Pillow image,
    or several of these; files in folders that are not images are left out. A bad image raises no
    exception: its result has an `error`, and no classes.

    `protocol` is "one-crop", "ten-crop" or "multi-scale", optionally with sizes
    ("ten-crop:256-224"); `precision` is "fp32", or "bf16", which is faster; `backend` is as in
    `load`. Raise ValueError if the model is not a classifier.
    """
    files, _ = find_images(images)
    return list(
        predict_each(model, files, top=top, protocol=protocol, precision=precision, backend=backend)
    )


def predict_each(
    model: Classifier,
    images: Sequence[InputImage],
    *,
    top: int,
    protocol: str,
    precision: str,
    backend: str,
) -> Iterator[ImageResult[Prediction]]:
    """Yield the `top` most probable classes of each image, one image after another."""
    _, loaded = open_classifier(model, setup_device("fp32").torch_device, backend)
    predictor = Predictor(set_precision(loaded, precision))
    sources = (image.source for image in images)
    predictions = predictor.each(sources, top=top, protocol=protocol)
    return (
        ImageResult(image.file, error=image.reason(predicted))
        if isinstance(predicted, BadImage)
        else ImageResult(image.file, predicted)
        for image, predicted in zip(images, predictions, strict=True)
    )


def detect(
    model: DetectorModel,
    images: ImageInput | Sequence[ImageInput],
    *,
    out: str | Path | None = None,
    threshold: float | None = None,
    refine: bool | None = None,
    scales: Sequence[int] | None = None,
) -> list[ImageResult[Detection]]:
    """Detect the objects in images: return their classes, probabilities and boxes.

    `model` is a detector's run folder, model file or exported file, or the result of
    `load_detector`. `images` and bad images are as in `predict`; an image given twice is searched
    once. With `out`, the images are drawn into this folder with their boxes, and detections.json
    lists all objects in COCO's results format.

    `threshold` is the lowest probability reported, by default 0.5 or that of the loaded detector.
    `refine` and `scales`, shorter sides in pixels, are the box refinement and the multi-scale
    testing of App. B. Raise ValueError if the model is not a detector.
    """
    files, _ = images_to_search(images, out)
    predictor = open_predictor(model, threshold, refine, scales)
    drawings = open_drawing_folder(Path(out), files) if out else None
    try:
        return list(detect_each(predictor, files, drawings))
    finally:  # also if interrupted, so that every drawn image is listed
        if drawings:
            drawings.finish()


def images_to_search(
    images: ImageInput | Sequence[ImageInput], out: str | Path | None
) -> tuple[list[InputImage], Counter[str]]:
    """Return each image once, and the suffixes of files left out, as `find_images` does.

    The drawings of an earlier call in the folder `out` are not among the images.
    """
    files, left_out = find_images(images)
    files = list({image.file: image for image in files}.values())
    return without_drawings(files, Path(out)) if out else files, left_out


def open_predictor(
    model: DetectorModel,
    threshold: float | None = None,
    refine: bool | None = None,
    scales: Sequence[int] | None = None,
) -> DetectorPredictor:
    """Return a detector that is ready to detect; None keeps its own settings."""
    path, detector = open_detector(model, setup_device("fp32").torch_device)
    if threshold is None:
        threshold = SHOWN_SCORE if isinstance(model, str | Path) else model.threshold
    return detector_predictor(
        detector, path, threshold=threshold, refine=refine, scales=scales or None
    )


def detect_each(
    predictor: DetectorPredictor, images: Sequence[InputImage], drawings: DrawingFolder | None
) -> Generator[ImageResult[Detection]]:
    """Yield the objects in each image, one image after another; add drawings to `drawings`."""
    detected = predictor.each_image(image.source for image in images)
    for image, result in zip(images, detected, strict=True):
        if isinstance(result, BadImage):
            yield ImageResult(image.file, error=image.reason(result))
            continue
        if drawings:
            drawings.add(image, result, predictor.classes)
        yield ImageResult(image.file, result.objects)
