"""`reslab evaluate` of detectors: one by one, and several together as an ensemble."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reslab.cli.console import counting, warn
from reslab.cli.evaluate_detections import show_precision
from reslab.errors import unknown_name

if TYPE_CHECKING:
    from reslab.data.boxes.sets import DetectionSet
    from reslab.data.location import Location
    from reslab.detection.average_precision.measure import AveragePrecision
    from reslab.detection.model import Detector
    from reslab.detection.recipe import InferenceConfig

    Named = tuple[Path, Detector]


SCENES = "digit-scenes"


def evaluate_detectors(
    models: Sequence[Path],
    on: str | None,
    data: "Location | None",
    protocol: str | None,
    changes: Mapping[str, object],
    page: Path | None,
    as_json: bool,
) -> None:
    """Search the images of a test set and measure what is found."""
    from reslab.detection.model import load_detector
    from reslab.runtime.device import setup_device

    device = setup_device("fp32")
    loaded = [(path, load_detector(path).to(device.torch_device)) for path in models]
    detectors_must_share_classes(loaded)
    images, usual = images_of(loaded, on, data)
    searches = [detector.search.with_changes(changes) for _, detector in loaded]
    must_search_alike(loaded, searches)
    entries = []
    for (path, detector), search in zip(loaded, searches, strict=True):
        entries.append(
            (str(path), measure_detections([detector], images, search, protocol or usual))
        )
    if len(loaded) > 1:
        together = [detector for _, detector in loaded]
        title = f"ensemble of {len(loaded)} detectors"
        entries.append(
            (title, measure_detections(together, images, searches[0], protocol or usual))
        )
    show_precision("model", entries, page, as_json)


def measure_detections(
    detectors: "Sequence[Detector]",
    images: "DetectionSet",
    search: "InferenceConfig",
    protocol: str,
) -> "AveragePrecision":
    from reslab.detection.average_precision.measure import measure
    from reslab.detection.evaluation import detect_set

    with counting(len(images), "images") as on_progress:
        seen, found = detect_set(detectors, images, search, on_progress)
    return measure(seen, found, protocol)


def images_of(
    models: "Sequence[Named]", on: str | None, data: "Location | None"
) -> "tuple[DetectionSet, str]":
    """The set to test on, and how results on it are published; the first model's own if not
    told."""
    from reslab.data.location import to_folder

    path, detector = models[0]
    if on is not None:
        if on != SCENES:
            raise ValueError(unknown_name("set for a detector", on, (SCENES,)))
        return digit_scenes_set()
    if data is None:
        return own_images(path, detector)
    return folder_images(to_folder(data, "a detector needs"), path, detector)


def digit_scenes_set() -> "tuple[DetectionSet, str]":
    from reslab.data.boxes.digit_scenes import digit_scenes

    return digit_scenes().test, "coco"


def own_images(path: Path, detector: "Detector") -> "tuple[DetectionSet, str]":
    """Those that a detector was tested on when it was trained."""
    from reslab.detection.recipe import DetectionRecipe
    from reslab.detection.setup import open_detection_data

    recipe = DetectionRecipe.model_validate(detector.recipe)
    folder = detector_image_folder(path)
    if recipe.data == "boxes" and folder is None:
        raise ValueError(f"the images that {path} was trained on are not found: say --data FOLDER")
    opened = open_detection_data(recipe, folder)
    return opened.sets.test, opened.protocol


def folder_images(data: Path, path: Path, detector: "Detector") -> "tuple[DetectionSet, str]":
    """The test part of a folder, or all of it; never those that the detector was trained on, as
    far as is known."""
    from reslab.data.boxes.annotations import detection_set
    from reslab.data.boxes.folder import evaluation_part, read_annotations
    from reslab.detection.average_precision.measure import usual_protocol

    folder = detector_image_folder(path)
    if folder is not None and folder.resolve() == data.resolve():
        return own_images(path, detector)
    annotations = read_annotations(data, detector.recipe.get("years", "") if folder else "")
    part = evaluation_part(annotations)
    images = detection_set(part)
    if part is annotations:
        warn(f"{data} is tested whole")
    return images, usual_protocol(part)


def detector_image_folder(path: Path) -> Path | None:
    """The folder of images of a run, if it is known and still there."""
    from reslab.training.folder import RunFolder

    if not path.is_dir():
        return None
    known = RunFolder.open(path).environment()["data"]
    return Path(known) if known and Path(known).is_dir() else None


def detectors_must_share_classes(models: "Sequence[Named]") -> None:
    """ValueError unless the outputs of all detectors mean the same."""
    first, known = models[0]
    for path, detector in models[1:]:
        if (detector.ids, detector.classes) != (known.ids, known.classes):
            raise ValueError(
                f"{path} knows other classes than {first}: they cannot be taken together; "
                "evaluate them one at a time"
            )


def must_search_alike(models: "Sequence[Named]", searches: "Sequence[InferenceConfig]") -> None:
    """ValueError unless all detectors look at an image in one way."""
    for (path, _), search in zip(models, searches, strict=True):
        if search != searches[0]:
            raise ValueError(
                f"{path} searches images otherwise than {models[0][0]}: they cannot be taken "
                "together; evaluate them one at a time"
            )
