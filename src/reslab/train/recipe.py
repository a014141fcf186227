"""The recipe: one frozen, complete description of a run, JSON both ways."""

import itertools
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from reslab.data.augment import PadAndCrop, ResizedCrop, ScaleCrop
from reslab.data.sets import SetName
from reslab.models.names import config_named
from reslab.models.resnet import ResNetConfig
from reslab.train.sections import Pictures, Plateau, Section, Warmup
from reslab.words import unknown
from reslab.world import Precision

AnyAugmentation = Annotated[PadAndCrop | ScaleCrop | ResizedCrop, Field(discriminator="kind")]
KINDS = ("pad-and-crop", "scale-crop", "resized-crop")
# sections that may be absent; changing a key of one brings the others' defaults
OPTIONAL = {"warmup": Warmup(), "plateau": Plateau()}


class Recipe(Section):
    """What a run does, all of it but its seed and places. Defaults: Sec. 4.2 of the paper."""

    name: str
    model: ResNetConfig
    data: Literal[SetName, "pictures"]
    pictures: Pictures | None = None
    augmentation: AnyAugmentation = PadAndCrop()
    balance: Literal["none", "sampler", "loss"] = "none"  # for classes of unequal size
    held_out: int = Field(0, ge=0)  # training pictures kept back; 5000 in the paper's 45k/5k split
    weights: str | None = None  # SHA-256 of the weights that training starts from
    batch_norm: Literal["train", "frozen", "recalibrate"] = "train"
    iterations: int = Field(64_000, ge=1)
    batch_size: int = Field(128, ge=1)  # the total, over all virtual GPUs
    virtual_gpus: int = Field(2, ge=1)  # "trained with a mini-batch size of 128 on two GPUs"
    learning_rate: float = Field(0.1, gt=0)
    classifier_rate: float = Field(1.0, gt=0)  # times `learning_rate`; for a new one on old weights
    drops: tuple[float, ...] = (0.5, 0.75)  # of `iterations`: divided by 10 at 32k and 48k
    plateau: Plateau | None = None
    warmup: Warmup | None = None
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    precision: Precision = "auto"
    recompute_bn: int = Field(200, ge=0)  # batches after training; 0 keeps moving averages
    eval_every: int = Field(1000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    log_every: int = Field(10, ge=1)

    @model_validator(mode="after")
    def _shares_are_whole(self) -> Self:
        share, rest = divmod(self.batch_size, self.virtual_gpus)
        if rest:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.virtual_gpus} equal "
                "virtual_gpus"
            )
        if share < 2 and self.batch_norm == "train":
            raise ValueError("batch norm needs at least 2 pictures on each of virtual_gpus")
        return self

    @model_validator(mode="after")
    def _rate_falls_in_one_way(self) -> Self:
        bounds = (0.0, *self.drops, 1.0)
        if any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ValueError(f"drops {list(self.drops)} must rise, between 0 and 1")
        if self.plateau and self.drops:
            raise ValueError(
                "the rate falls at drops or at a plateau: set drops=[] or plateau=null"
            )
        return self

    @model_validator(mode="after")
    def _data_fit(self) -> Self:
        photographs = self.data == "pictures"
        if photographs != (self.pictures is not None):
            raise ValueError(f"data {self.data!r} and the section pictures do not go together")
        if photographs == isinstance(self.augmentation, PadAndCrop):
            raise ValueError(
                f"augmentation {self.augmentation.kind!r} is not for data {self.data!r}"
            )
        if self.batch_norm != "train" and self.weights is None:
            raise ValueError(
                f"batch_norm {self.batch_norm!r} keeps statistics of trained weights: "
                "start from some (--weights), or choose 'train'"
            )
        return self

    def with_changes(self, changes: Sequence[str]) -> "Recipe":
        """This recipe with KEY=VALUE changes; a dotted key reaches inside a section."""
        fields = self.model_dump(mode="json")
        for change in changes:
            key, equals, text = change.partition("=")
            if not equals:
                raise ValueError(f"--set {change}: write it as KEY=VALUE")
            _change(fields, key.strip(), _value(text.strip()))
        return recipe_from_json(json.dumps(fields))

    def differences(self, other: "Recipe") -> list[str]:
        """One line for each field in which `other` differs: `key: here -> there`."""
        here, there = flat(self.model_dump(mode="json")), flat(other.model_dump(mode="json"))
        keys = list(dict.fromkeys([*here, *there]))
        return [
            f"{key}: {here.get(key)} -> {there.get(key)}"
            for key in keys
            if key != "name" and here.get(key) != there.get(key)
        ]


def recipe_from_json(text: str | bytes) -> Recipe:
    """Strictly: ValueError for an unknown key, a wrong type or an impossible value, in one line."""
    try:
        return Recipe.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(_one_line(error)) from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    # a union names the alternative that it tried; a person who sets a key does not
    key = ".".join(str(part) for part in first["loc"] if part not in KINDS)
    if first["type"] == "extra_forbidden":
        return unknown("recipe key", key, Recipe.model_fields)
    if first["type"].startswith("union_tag"):
        return unknown("augmentation", str(first["input"].get("kind")), KINDS)
    if first["type"] == "value_error":  # ours: it names the fields itself
        return str(first["ctx"]["error"])
    if first["type"] == "json_invalid":
        return f"the recipe is not valid JSON: {first['msg']}"
    return f"recipe key {key!r} cannot be {first['input']!r}: {first['msg'].lower()}"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _change(fields: dict[str, Any], key: str, value: Any) -> None:
    if key == "model" and isinstance(value, str):
        fields["name"] = f"{fields['name'].split('-')[0]}-{value}"
        classes = fields["model"]["classes"]
        value = config_named(value).model_dump(mode="json") | {"classes": classes}
    if key == "augmentation" and isinstance(value, str):
        value = {"kind": value}
    *path, last = key.split(".")
    place: Any = fields
    for part in path:
        if part in OPTIONAL and place.get(part) is None:
            place[part] = OPTIONAL[part].model_dump(mode="json")
        if not isinstance(place.get(part), dict):
            raise ValueError(unknown("recipe key", key, flat(fields)))
        place = place[part]
    if last not in place:
        raise ValueError(unknown("recipe key", key, {*flat(fields), *fields}))
    if isinstance(place[last], float) and type(value) is int:
        value = float(value)
    place[last] = value


def flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted keys."""
    found = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
