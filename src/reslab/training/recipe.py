"""Recipes: all settings of a run except its seed and paths; validated, frozen, stored as JSON."""

import itertools
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticSerializationError, to_jsonable_python

from reslab.data.augment import PadAndCrop, ResizedCrop, ScaleCrop
from reslab.data.builtin import SetName
from reslab.errors import unknown_name
from reslab.models.config import ResNetConfig, config_named
from reslab.models.parts import FORMS, NORMS, BatchNorm, NoisyBatchNorm
from reslab.runtime.device import Precision


class Section(BaseModel):
    """A section of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Warmup(Section):
    """The closed-loop warm-up of the 110-layer net (Sec. 4.2): a low rate until the error falls."""

    learning_rate: float = Field(0.01, gt=0)
    until_train_error: float = Field(80.0, ge=0, le=100)  # percent
    window: int = Field(10, ge=1)  # iterations that the error is averaged over; not in the paper
    cap: int = Field(2000, ge=1)  # iterations after which the warm-up ends, whatever the error


class Plateau(Section):
    """ "Divided by 10 when the error plateaus" (Sec. 3.4); the definition of a plateau is ours.

    The error is measured on the set monitored during training. A plateau is `patience` consecutive
    evaluations that are not `threshold` points below the best one since the rate last changed.
    """

    patience: int = Field(6, ge=1)
    threshold: float = Field(0.1, ge=0)  # percentage points


class PhotographSettings(Section):
    """Settings for a run on photographs (`data` is "pictures"), besides the augmentation."""

    resize: int = Field(256, ge=1)  # shorter side at test time (Sec. 3.4)
    mean: Literal["pixel", "channel"] = "pixel"  # "per-pixel mean subtracted", or its average
    colour: Literal["set", "imagenet"] = "set"  # source of the principal components
    validation: float = Field(0.2, gt=0, lt=1)  # fraction of an unsplit folder
    bad_limit: float = Field(0.01, ge=0, le=1)  # fraction of files that may be undecodable


Fields = dict[str, Any]  # a recipe as parsed from JSON
# sections that come in several kinds -> each kind, by name, with its defaults
Kinds = Mapping[str, Mapping[str, BaseModel]]
# sections that may be absent; setting one key of a section fills in defaults for the others
UNWRITTEN = ("keep_every",)  # fields that are written only if they are set
OPTIONAL = {"warmup": Warmup(), "plateau": Plateau()}


def parse_override(change: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; a value that is not valid JSON is a string."""
    key, equals, text = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change}: write it as KEY=VALUE")
    try:
        return key.strip(), json.loads(text.strip())
    except json.JSONDecodeError:
        return key.strip(), text.strip()


def json_value(key: str, value: object) -> Any:
    """Return a Python value as JSON would give it; raise ValueError if JSON cannot hold it."""
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        kind = type(value).__name__
        raise ValueError(f"recipe key {key!r} cannot be a {kind}: {value!r}") from None


def set_field(fields: Fields, key: str, value: Any) -> None:
    """Set one field in place; a dotted key addresses a field in a section."""
    *path, last = key.split(".")
    section: Any = fields
    for name in path:
        if name in OPTIONAL and section.get(name) is None:
            section[name] = OPTIONAL[name].model_dump(mode="json")
        if not isinstance(section.get(name), dict):
            raise ValueError(unknown_name("recipe key", key, flatten(fields)))
        section = section[name]
    if last not in section:
        raise ValueError(unknown_name("recipe key", key, {*flatten(fields), *fields}))
    if isinstance(section[last], float) and type(value) is int:
        value = float(value)
    section[last] = value


def flatten(fields: Fields, prefix: str = "") -> Fields:
    """Return nested fields as one flat mapping with dotted keys."""
    flat = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def recipe_differences(first: Fields, second: Fields) -> list[str]:
    """Return a line `key: first -> second` for each field that differs, except the name."""
    first, second = flatten(first), flatten(second)
    return [
        f"{key}: {first.get(key)} -> {second.get(key)}"
        for key in dict.fromkeys([*first, *second])
        if key != "name" and first.get(key) != second.get(key)
    ]


def kind_in(section: object) -> object:
    """Return the kind that a section names, or the value that was given instead of a section."""
    return section.get("kind") if isinstance(section, Mapping) else section


def named_kinds(value: Any, kinds: Mapping[str, BaseModel]) -> Any:
    """Replace the name of a kind, or each name in a list, by that kind with its defaults."""
    if isinstance(value, list):
        return [named_kinds(item, kinds) for item in value]
    if not isinstance(value, str):
        return value
    return kinds[value].model_dump(mode="json") if value in kinds else {"kind": value}


def must_have_field(fields: Fields, key: str, kinds: Kinds) -> None:
    """Raise ValueError if `key` is a field of another kind than the section has in `fields`."""
    name, _, last = key.rpartition(".")
    present = flatten(fields)
    kind = present.get(f"{name}.kind")
    having = [other for other, section in kinds.get(name, {}).items() if last in dict(section)]
    if kind is not None and having and kind not in having:
        choices = " or ".join(f"{name}={other}" for other in having)
        raise ValueError(f"{name} {kind!r} has no {last!r}: first set {choices}")


def validation_message(error: ValidationError, keys: Iterable[str], kinds: Kinds) -> str:
    """Return a one-line message for the first error; `keys` are the valid keys of the recipe."""
    first = error.errors(include_url=False)[0]
    # pydantic puts the union alternative it tried into the path; users' keys do not contain it
    tried = {*FORMS, *(kind for several in kinds.values() for kind in several)}
    key = ".".join(str(part) for part in first["loc"] if part not in tried)
    if first["type"] == "extra_forbidden":
        return unknown_name("recipe key", key, keys)
    if first["type"].startswith("union_tag"):
        section = key.rstrip(".0123456789")  # one entry of a list
        return unknown_name(key, str(kind_in(first["input"])), kinds[section])
    if first["type"] == "missing":
        return f"the recipe has no {key!r}"
    if first["type"] == "value_error":  # ours: the message names the fields itself
        return str(first["ctx"]["error"])
    if first["type"] == "json_invalid":
        return f"the recipe is not valid JSON: {first['msg']}"
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return f"recipe key {key!r} cannot be {first['input']!r}: {reason}"


TASKS = {"classification": "classifier", "detection": "detector"}  # task -> what it trains
AnyAugmentation = Annotated[PadAndCrop | ScaleCrop | ResizedCrop, Field(discriminator="kind")]


class RunRecipe(Section):
    """The abstract base of recipes: settings common to all tasks, with the defaults of Sec. 4.2."""

    kinds: ClassVar[Kinds] = {}

    name: str
    task: str  # one of TASKS; fixed by each subclass
    weights: str | None = None  # SHA-256 of the initial weights, if not from the seed
    iterations: int = Field(64_000, ge=1)
    batch_size: int = Field(128, ge=1)  # in total, over all virtual GPUs
    virtual_gpus: int = Field(2, ge=1)  # "trained with a mini-batch size of 128 on two GPUs"
    learning_rate: float = Field(0.1, gt=0)
    drops: tuple[float, ...] = (0.5, 0.75)  # of `iterations`: divided by 10 at 32k and 48k
    plateau: Plateau | None = None
    warmup: Warmup | None = None
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    precision: Precision = "auto"
    eval_every: int = Field(1000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    keep_every: int | None = Field(None, ge=1)  # checkpoints at its multiples are never deleted
    log_every: int = Field(10, ge=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse strictly; raise a one-line ValueError for an unknown key, a wrong type or value."""
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise ValueError(validation_message(error, cls.model_fields, cls.kinds)) from None

    @model_serializer(mode="wrap")
    def _what_before_how(self, fields_of: SerializerFunctionWrapHandler) -> Fields:
        """Put the task's own fields first, for readers; pydantic puts them last.

        Fields added later are left out where they are not set, so that recipes stay as they were.
        """
        fields = fields_of(self)
        for key in UNWRITTEN:
            if fields.get(key) is None:
                fields.pop(key, None)
        names = {key: fields[key] for key in ("name", "task") if key in fields}
        of_task = {key: fields[key] for key in fields if key not in RunRecipe.model_fields}
        return names | of_task | fields

    @model_validator(mode="after")
    def _shares_are_whole(self) -> Self:
        if self.batch_size % self.virtual_gpus:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.virtual_gpus} equal "
                "virtual_gpus"
            )
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

    @staticmethod
    @abstractmethod
    def expand_override(fields: Fields, key: str, value: Any) -> Fields:
        """Return the field changes that KEY=VALUE stands for, given the current `fields`."""

    def with_(self, changes: Mapping[str, object] | None = None, /, **fields: object) -> Self:
        """Return this recipe with changed fields, checked as `--set` checks them.

        `with_(learning_rate=0.2)`, or `with_({"model.classes": 26})`, where a dotted key addresses
        a field in a section. A section that comes in several kinds can be set to the name of a
        kind, with its defaults, and `model` to the name of a network. Raises ValueError for an
        unknown key, with the nearest one, or a value that is not allowed.
        """
        return self._changed([*(changes or {}).items(), *fields.items()])

    def with_changes(self, changes: Sequence[str]) -> Self:
        """Return this recipe with KEY=VALUE changes, as `--set` gives them; see `with_`."""
        return self._changed(map(parse_override, changes))

    def _changed(self, changes: Iterable[tuple[str, object]]) -> Self:
        fields = dict.fromkeys(UNWRITTEN) | self.model_dump(mode="json")
        for change, new in changes:
            for key, value in self.expand_override(fields, change, json_value(change, new)).items():
                if key in self.kinds:
                    value = named_kinds(value, self.kinds[key])
                must_have_field(fields, key, self.kinds)
                set_field(fields, key, value)
        return self.from_json(json.dumps(fields))

    def differences(self, other: "RunRecipe") -> list[str]:
        """Return a line `key: this -> other` for each field that differs."""
        return recipe_differences(self.model_dump(mode="json"), other.model_dump(mode="json"))


TaskRecipe = TypeVar("TaskRecipe", bound=RunRecipe)


@final
class Recipe(RunRecipe):
    """The recipe of a classifier."""

    kinds: ClassVar[Kinds] = {
        "augmentation": {kind.kind: kind for kind in (PadAndCrop(), ScaleCrop(), ResizedCrop())},
        "model.norm": {norm.kind: norm for norm in NORMS},
    }

    task: Literal["classification"] = "classification"
    model: ResNetConfig
    data: Literal[SetName, "pictures"]
    pictures: PhotographSettings | None = None
    augmentation: AnyAugmentation = PadAndCrop()
    balance: Literal["none", "sampler", "loss"] = "none"  # for classes of unequal size
    held_out: int = Field(0, ge=0)  # training images held out; 5000 in the paper's 45k/5k split
    batch_norm: Literal["train", "frozen", "recalibrate"] = "train"
    classifier_rate: float = Field(1.0, gt=0)  # times `learning_rate`; new on trained weights
    recompute_bn: int = Field(200, ge=0)  # mini-batches after training; 0 keeps the moving averages

    @model_validator(mode="after")
    def _shares_have_statistics(self) -> Self:
        norms = (place.norm for place in self.model.places())
        measures = any(isinstance(norm, BatchNorm | NoisyBatchNorm) for norm in norms)
        few = self.batch_size // self.virtual_gpus < 2
        if few and measures and self.batch_norm == "train":
            raise ValueError("batch norm needs at least 2 images on each of virtual_gpus")
        return self

    @model_validator(mode="after")
    def _data_fit(self) -> Self:
        photographs = self.data == "pictures"
        if photographs != (self.pictures is not None):
            raise ValueError(f"data {self.data!r} and the section images do not go together")
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

    @staticmethod
    def expand_override(fields: Fields, key: str, value: Any) -> Fields:
        """Expand `model=NAME` to the network's fields, keep the classes and rename the recipe."""
        if key != "model" or not isinstance(value, str):
            return {key: value}
        classes = fields["model"]["classes"]
        return {
            "name": f"{fields['name'].split('-')[0]}-{value}",
            "model": config_named(value).model_dump(mode="json") | {"classes": classes},
        }
