"""The recipe: one frozen, complete description of a run, JSON both ways."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reslab.data.sets import SetName
from reslab.models.names import config_named
from reslab.models.resnet import ResNetConfig
from reslab.words import unknown
from reslab.world import Precision


class Warmup(BaseModel):
    """The closed-loop warm-up of the 110-layer net (Sec. 4.2): low rate until it learns."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(0.01, gt=0)
    until_train_error: float = Field(80.0, ge=0, le=100)  # percent
    window: int = Field(10, ge=1)  # iterations whose mean error decides; not in the paper
    cap: int = Field(2000, ge=1)  # iterations after which it ends whatever the error is


class Recipe(BaseModel):
    """What a run does, all of it but its seed and places. Defaults: Sec. 4.2 of the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    model: ResNetConfig
    data: SetName
    held_out: int = Field(0, ge=0)  # training pictures kept back; 5000 in the paper's 45k/5k split
    iterations: int = Field(64_000, ge=1)
    batch_size: int = Field(128, ge=1)  # the total, over all virtual GPUs
    virtual_gpus: int = Field(2, ge=1)  # "trained with a mini-batch size of 128 on two GPUs"
    learning_rate: float = Field(0.1, gt=0)
    drops: tuple[float, ...] = (0.5, 0.75)  # of `iterations`: divided by 10 at 32k and 48k
    warmup: Warmup | None = None
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    pad: int = Field(4, ge=0)
    flip: bool = True
    precision: Precision = "auto"
    recompute_bn: int = Field(200, ge=0)  # batches after training; 0 keeps moving averages
    eval_every: int = Field(1000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    log_every: int = Field(10, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size % self.virtual_gpus:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.virtual_gpus} equal "
                "virtual_gpus"
            )
        if self.batch_size // self.virtual_gpus < 2:
            raise ValueError("batch norm needs at least 2 pictures on each of virtual_gpus")
        bounds = (0.0, *self.drops, 1.0)
        if any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ValueError(f"drops {list(self.drops)} must rise, between 0 and 1")
        return self

    def with_changes(self, changes: Sequence[str]) -> "Recipe":
        """This recipe with KEY=VALUE changes; a dotted key reaches inside `model` and `warmup`."""
        fields = self.model_dump(mode="json")
        for change in changes:
            key, equals, text = change.partition("=")
            if not equals:
                raise ValueError(f"--set {change}: write it as KEY=VALUE")
            _change(fields, key.strip(), _value(text.strip()))
        return recipe_from_json(json.dumps(fields))

    def differences(self, other: "Recipe") -> list[str]:
        """One line for each field in which `other` differs: `key: here -> there`."""
        here, there = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
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
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown("recipe key", key, Recipe.model_fields)
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
        fields["name"] = f"{fields['data']}-{value}"
        value = config_named(value).model_dump(mode="json")
    *path, last = key.split(".")
    place: Any = fields
    for part in path:
        if part == "warmup" and place.get(part) is None:
            place[part] = Warmup().model_dump(mode="json")
        if not isinstance(place.get(part), dict):
            raise ValueError(unknown("recipe key", key, _flat(fields)))
        place = place[part]
    if last not in place:
        raise ValueError(unknown("recipe key", key, {*_flat(fields), *fields}))
    if isinstance(place[last], float) and type(value) is int:
        value = float(value)
    place[last] = value


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
