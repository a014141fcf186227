"""The metadata of exported files: keys that other tools read too, and a model's facts as JSON."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

import reslab
from reslab.deploy.prepare import centre_of
from reslab.detection.inference import Detector
from reslab.detection.recipe import InferenceConfig
from reslab.models.model_facts import config_in, misfit, must_have_types, names_in, quoted
from reslab.models.model_file import Model
from reslab.models.parts import STRICT
from reslab.models.preprocessing import Channels, Interpolation, Preprocessing
from reslab.runtime.files import sha256_of, to_json
from reslab.runtime.json_text import parse_json

Takes = Literal["images", "crops"]  # whether a file resizes and crops images, or takes crops
NAMES, TASK = "names", "task"
CLASSIFY, DETECT = "classify", "detect"  # the tasks of classifiers and detectors
PREPROCESSING = "reslab.preprocessing"
SEARCH = "reslab.search"  # the settings of an exported detector
IDS, RECIPE = "reslab.ids", "reslab.recipe"
WEIGHTS, PARITY = "reslab.weights_sha256", "reslab.parity"


class ExportedPreprocessing(BaseModel):
    """The preprocessing of an exported model: what happens inside the file, and what before it."""

    model_config = STRICT

    takes: Takes
    mean: tuple[float, ...]  # RGB from 0 to 255; of a mean image, its average colour
    std: tuple[float, ...]
    channels: Channels
    resize: int | None  # the shorter side, in pixels
    size: int | None  # the side of the centre crop; None: whole images
    interpolation: Interpolation = "bilinear"
    as_stored: bool = False  # whether the images of a test set are not turned upright
    mean_image_sha256: str | None = None


def metadata_of(model: Model, takes: Takes) -> dict[str, str]:
    """Return the metadata of a classifier's exported file, except for its verdict (`PARITY`).

    The first keys are those of Ultralytics, which other tools read.
    """
    side = model.native_side
    # a network with a mean image may have no crop, but it sees only images of one size
    resize, size = centre_of(model) or (None, None)
    prepared = replace(model.preprocessing, resize=resize, size=size)
    preprocessing = exported_preprocessing(prepared, takes)
    return {
        TASK: CLASSIFY,
        **({"imgsz": str([side, side])} if side else {}),
        **common_metadata(model.classes, model.ids, model.recipe),
        PREPROCESSING: preprocessing.model_dump_json(),
        WEIGHTS: digest_of_weights(model),
    }


def digest_of_weights(model: Model) -> str:
    """Return the SHA-256 of a model's weights and of the numbers in its preprocessing."""
    return sha256_of(model.net.state_dict() | model.preprocessing.tensors())


def detector_metadata(detector: Detector) -> dict[str, str]:
    """Return the metadata of a detector's exported file, except for its verdict (`PARITY`)."""
    search = detector.search
    preprocessing = exported_preprocessing(detector.preprocessing, "images")
    return {
        TASK: DETECT,
        "imgsz": str([search.shorter, search.longest]),
        **common_metadata(detector.classes, detector.ids, detector.recipe),
        PREPROCESSING: preprocessing.model_dump_json(),
        SEARCH: search.model_dump_json(),
        WEIGHTS: sha256_of(detector.net.state_dict() | detector.preprocessing.tensors()),
    }


def common_metadata(
    classes: Sequence[str], ids: Sequence[str], recipe: Mapping[str, Any]
) -> dict[str, str]:
    """Return the metadata that classifiers and detectors have in common."""
    return {
        NAMES: str(dict(enumerate(classes))),
        "stride": "1",
        "batch": "1",
        "channels": "3",
        "description": f"reslab {recipe.get('name', 'model')}",
        "version": reslab.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        IDS: to_json(ids),
        RECIPE: to_json(recipe),
    }


def exported_preprocessing(preprocessing: Preprocessing, takes: Takes) -> ExportedPreprocessing:
    """Return the facts about a model's preprocessing for the metadata."""
    mean = preprocessing.mean
    return ExportedPreprocessing(
        takes=takes,
        mean=tuple(mean.mean((1, 2)).tolist()),
        std=tuple(preprocessing.std.flatten().tolist()),
        channels=preprocessing.channels,
        resize=preprocessing.resize,
        size=preprocessing.size,
        interpolation=preprocessing.interpolation,
        as_stored=preprocessing.as_stored,
        mean_image_sha256=sha256_of({"mean": mean}) if mean[0].numel() > 1 else None,
    )


def facts_in(metadata: Mapping[str, str], file: Path) -> dict[str, Any]:
    """Return the classes, ids, recipe and preprocessing in the metadata of an exported classifier.

    Raise ValueError if the file was not exported by reslab, holds a detector, or has metadata that
    no export writes.
    """
    if metadata.get(TASK) == DETECT:
        raise ValueError(f"{file} is a detector: use detect")
    facts = common_facts(metadata, PREPROCESSING, file)
    section = "preprocessing"
    facts[section] = config_in(ExportedPreprocessing, facts[PREPROCESSING], file, section)
    return facts


def detector_facts_in(metadata: Mapping[str, str], file: Path) -> dict[str, Any]:
    """Return the classes, ids, recipe and settings in the metadata of an exported detector.

    Raise ValueError if the file was not exported by reslab, holds a classifier, or has metadata
    that no export writes.
    """
    if metadata.get(TASK) not in (None, DETECT):
        raise ValueError(f"{file} is a classifier, not a detector: use predict")
    facts = common_facts(metadata, SEARCH, file)
    if not facts["ids"]:
        raise misfit(file, "ids is empty: a detector has one for each class")
    facts["search"] = config_in(InferenceConfig, facts[SEARCH], file)
    return facts


def common_facts(metadata: Mapping[str, str], also: str, file: Path) -> dict[str, Any]:
    """Return the classes, ids and recipe in the metadata, and the JSON under the key `also`."""
    if missing := {NAMES, TASK, IDS, RECIPE, also} - metadata.keys():
        raise ValueError(
            f"{file} was not exported by reslab: its metadata have no {', '.join(sorted(missing))}"
        )
    try:
        named = ast.literal_eval(metadata[NAMES])
        ids, recipe, other = (parse_json(metadata[key]) for key in (IDS, RECIPE, also))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise misfit(file, "its metadata cannot be parsed") from None
    if not isinstance(named, dict) or list(named) != list(range(len(named))):
        raise misfit(file, f"names is {quoted(named)}, but must number the classes from 0")
    facts: dict[str, Any] = {"classes": list(named.values()), "ids": ids, "recipe": recipe}
    must_have_types(facts | {"metrics": []}, {"recipe": dict}, file)
    facts["classes"], facts["ids"] = names_in(facts, None, file)
    return facts | {also: other}
