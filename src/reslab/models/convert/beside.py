"""Facts about imported weights: class names in their file, and the JSON files beside it."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reslab.models.convert.layouts import HUGGING_FACE, TORCHVISION, Colour, Layout
from reslab.models.convert.wrapping import Weights
from reslab.models.preprocessing import Channels
from reslab.runtime.files import read_json

# under these keys, other programs store the names of a network's outputs
NAME_KEYS = (
    "class_to_idx", "idx_to_class", "CLASSES", "classes", "class_names", "categories",
    "label_names", "id2label", "label2id", "labels", "names",
)  # fmt: skip
# settings of Hugging Face's nets that change what they compute, as in the paper's nets
EXPECTED = {"hidden_act": "relu", "downsample_in_first_stage": False}


@dataclass(frozen=True)
class Sidecar:
    """Settings that a library writes beside the weights; None where it writes none."""

    config: Mapping[str, Any] = field(default_factory=dict)  # with the names of the outputs
    stride_on: str | None = None
    mean: Colour | None = None  # RGB from 0 to 255
    std: Colour | None = None
    channels: Channels | None = None


def read_sidecar(file: Path, layout: Layout, weights: Weights) -> Sidecar:
    """Read Hugging Face's or timm's config.json in the folder of `file`, or MMPretrain's settings.

    Raise ValueError if they describe a network with other layers than the paper's.
    """
    config_file = file.with_name("config.json")
    if layout is HUGGING_FACE:
        return hugging_face_settings(file, json_object(config_file))
    if layout is not TORCHVISION:
        return Sidecar()
    try:
        config = json_object(config_file)
    except ValueError:
        config = {}  # of some other program
    if str(config.get("architecture", "")).startswith("resnet"):
        images = config.get("pretrained_cfg")
        images = images if isinstance(images, dict) else {}
        return Sidecar(config, None, colour_in(images, "mean"), colour_in(images, "std"))
    text = weights.fact("cfg") or weights.fact("config")
    return mm_settings(text) if isinstance(text, str) else Sidecar()


def hugging_face_settings(file: Path, config: Mapping[str, Any]) -> Sidecar:
    """Return the settings in config.json and in preprocessor_config.json beside it."""
    for key, value in EXPECTED.items():
        if config.get(key, value) != value:
            raise ValueError(
                f"{file.with_name('config.json')}: {key} is {config[key]!r}, but the paper's "
                f"networks have {value!r}"
            )
    stride_on = "1x1" if config.get("downsample_in_bottleneck") else None
    images = json_object(file.with_name("preprocessor_config.json"))
    mean, std = colour_in(images, "image_mean"), colour_in(images, "image_std")
    return Sidecar(config, stride_on, mean, std)


def mm_settings(text: str) -> Sidecar:
    """Return the stride, mean, deviation and channels in MMPretrain's configuration."""
    stride_on = "1x1" if re.search(r"style\s*=\s*['\"]caffe", text) else None
    mean, std = colour_in_text(text, "mean"), colour_in_text(text, "std")
    if not mean or not std:
        return Sidecar(stride_on=stride_on)
    if re.search(r"to_rgb\s*=\s*False", text):
        return Sidecar({}, stride_on, mean[::-1], std[::-1], "BGR")
    return Sidecar({}, stride_on, mean, std, "RGB")


def colour_in_text(text: str, key: str) -> Colour | None:
    """Return three numbers that a text gives as `key=[...]`, or None."""
    number = r"\s*(\d+\.?\d*)\s*"
    match = re.search(rf"\b{key}\s*=\s*\[{number},{number},{number}\]", text)
    return (float(match[1]), float(match[2]), float(match[3])) if match else None


def json_object(file: Path) -> dict[str, Any]:
    """Return a file's JSON object; an empty one if there is no file. ValueError if damaged."""
    content = read_json(file) if file.exists() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__} instead of settings")
    return content


def colour_in(facts: Mapping[str, Any], key: str) -> Colour | None:
    """Return three numbers from 0 to 1 as a colour from 0 to 255, or None."""
    value = facts.get(key)
    if not isinstance(value, list) or len(value) != 3:
        return None
    if not all(isinstance(part, int | float) and 0 < part <= 1 for part in value):
        return None
    red, green, blue = (255 * part for part in value)
    return red, green, blue


def class_names(weights: Weights, sidecar: Sidecar, outputs: int) -> tuple[tuple[str, ...], str]:
    """Return the names of the outputs, or () if none are known, and a note for the user or ""."""
    note = ""
    for key in NAME_KEYS:
        for facts in (weights.fact(key), sidecar.config.get(key)):
            names = names_in_order(facts)
            if len(names) == outputs:
                return distinct(names), ""
            if names:
                note = f"{key} names {len(names)} classes, but there are {outputs} outputs"
    return (), note


def names_in_order(facts: Any) -> tuple[str, ...]:
    """Return the names in a list, in {name: number} or in {number: name}; () for anything else."""
    if isinstance(facts, dict):
        pairs = list(facts.items())
        if not all(isinstance(number, int) for _, number in pairs):
            pairs = [(name, int(number)) for number, name in pairs if str(number).isdecimal()]
        by_number = {number: name for name, number in pairs}
        if len(pairs) != len(facts) or by_number.keys() != set(range(len(pairs))):
            return ()
        facts = [by_number[number] for number in range(len(pairs))]
    if not isinstance(facts, list) or not all(isinstance(name, str) for name in facts):
        return ()
    default = [f"LABEL_{number}" for number in range(len(facts))]  # Hugging Face's, for no names
    return () if facts == default else tuple(facts)


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, repeated ones with their output's number (ImageNet has two cranes)."""
    counts = Counter(names)
    return tuple(
        f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names)
    )
