"""The metadata of exported files: keys that other tools read too, and a model's facts as JSON."""

import ast
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

import reslab
from reslab.models.model_facts import config_in, misfit, must_have_types, names_in, quoted
from reslab.models.model_file import Model
from reslab.models.parts import STRICT
from reslab.models.preprocessing import Channels, Interpolation
from reslab.runtime.files import sha256_of, to_json
from reslab.runtime.json_text import parse_json

Takes = Literal["images", "crops"]  # whether a file resizes and crops images, or takes crops
NAMES, TASK = "names", "task"
PREPROCESSING = "reslab.preprocessing"
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


def metadata_of(model: Model, takes: Takes, task: str = "classify") -> dict[str, str]:
    """Return the metadata of a classifier's exported file; all but its verdict, `PARITY`.

    The first keys are those of Ultralytics, which other tools read.
    """
    preprocessing = model.preprocessing
    mean, side = preprocessing.mean, model.native_side
    facts = ExportedPreprocessing(
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
    return {
        NAMES: str(dict(enumerate(model.classes))),
        TASK: task,
        **({"imgsz": str([side, side])} if side else {}),
        "stride": "1",
        "batch": "1",
        "channels": "3",
        "description": f"reslab {model.recipe.get('name', 'classifier')}",
        "version": reslab.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        IDS: to_json(model.ids),
        RECIPE: to_json(model.recipe),
        PREPROCESSING: facts.model_dump_json(),
        WEIGHTS: sha256_of(model.net.state_dict() | preprocessing.tensors()),
    }


def facts_in(metadata: Mapping[str, str], file: Path) -> dict[str, Any]:
    """Return the classes, ids, recipe and preprocessing in the metadata of an exported classifier.

    Raise ValueError if the file was not exported by reslab, or holds a detector or other facts
    than an export writes.
    """
    if missing := {NAMES, TASK, IDS, RECIPE, PREPROCESSING} - metadata.keys():
        raise ValueError(
            f"{file} was not exported by reslab: its metadata have no {', '.join(sorted(missing))}"
        )
    if metadata[TASK] == "detect":
        raise ValueError(f"{file} is a detector: use detect")
    try:
        named = ast.literal_eval(metadata[NAMES])
        ids, recipe, preprocessing = (
            parse_json(metadata[key]) for key in (IDS, RECIPE, PREPROCESSING)
        )
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise misfit(file, "its metadata cannot be parsed") from None
    if not isinstance(named, dict) or list(named) != list(range(len(named))):
        raise misfit(file, f"names is {quoted(named)}, but must number the classes from 0")
    facts: dict[str, Any] = {"classes": list(named.values()), "ids": ids, "recipe": recipe}
    must_have_types(facts | {"metrics": []}, {"recipe": dict}, file)
    facts["classes"], facts["ids"] = names_in(facts, None, file)
    section = "preprocessing"
    facts[section] = config_in(ExportedPreprocessing, preprocessing, file, section)
    return facts
