"""The recipe: one frozen, complete description of a run, JSON both ways."""

import itertools
import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, final

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from reslab.data.augment import PadAndCrop, ResizedCrop, ScaleCrop
from reslab.data.sets import SetName
from reslab.models.names import config_named
from reslab.models.resnet import ResNetConfig
from reslab.train.changes import Fields, Kinds, differences, key_and_value, put, refusal
from reslab.train.sections import Pictures, Plateau, Section, Warmup
from reslab.world import Precision

TASKS = {"classification": "classifier", "detection": "detector"}  # what a run of each trains
AnyAugmentation = Annotated[PadAndCrop | ScaleCrop | ResizedCrop, Field(discriminator="kind")]


class RunRecipe(Section):
    """What every run has, whatever it trains, but its seed and places: the abstract part of a
    recipe. Defaults: Sec. 4.2 of the paper."""

    kinds: ClassVar[Kinds] = {}

    name: str
    task: str  # one of TASKS; each class of recipes allows its own alone
    weights: str | None = None  # SHA-256 of the weights that training starts from
    iterations: int = Field(64_000, ge=1)
    batch_size: int = Field(128, ge=1)  # the total, over all virtual GPUs
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
    log_every: int = Field(10, ge=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Strictly: ValueError for an unknown key, a wrong type, an impossible value, in a line."""
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise ValueError(refusal(error, cls.model_fields, cls.kinds)) from None

    @model_serializer(mode="wrap")
    def _what_before_how(self, fields_of: SerializerFunctionWrapHandler) -> Fields:
        """Fields of the task first, as a person reads them; pydantic would put them last."""
        fields = fields_of(self)
        first = {key: fields[key] for key in ("name", "task") if key in fields}
        own = {key: it for key, it in fields.items() if key not in RunRecipe.model_fields}
        return first | own | fields

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
    def meant(fields: Fields, key: str, value: Any) -> Fields:
        """The changes of fields that KEY=VALUE stands for; `fields` are those before it."""

    def with_changes(self, changes: Sequence[str]) -> Self:
        """This recipe with KEY=VALUE changes; a dotted key reaches inside a section.

        A section that comes in kinds can be set to one, which brings its defaults.
        """
        fields = self.model_dump(mode="json")
        for change in changes:
            for key, value in self.meant(fields, *key_and_value(change)).items():
                named = key in self.kinds and isinstance(value, str)
                put(fields, key, {"kind": value} if named else value)
        return self.from_json(json.dumps(fields))

    def differences(self, other: "RunRecipe") -> list[str]:
        """One line for each field in which `other` differs: `key: here -> there`."""
        return differences(self.model_dump(mode="json"), other.model_dump(mode="json"))


@final
class Recipe(RunRecipe):
    """What a run of a classifier does."""

    kinds: ClassVar[Kinds] = {"augmentation": ("pad-and-crop", "scale-crop", "resized-crop")}

    task: Literal["classification"] = "classification"
    model: ResNetConfig
    data: Literal[SetName, "pictures"]
    pictures: Pictures | None = None
    augmentation: AnyAugmentation = PadAndCrop()
    balance: Literal["none", "sampler", "loss"] = "none"  # for classes of unequal size
    held_out: int = Field(0, ge=0)  # training pictures kept back; 5000 in the paper's 45k/5k split
    batch_norm: Literal["train", "frozen", "recalibrate"] = "train"
    classifier_rate: float = Field(1.0, gt=0)  # times `learning_rate`; for a new one on old weights
    recompute_bn: int = Field(200, ge=0)  # batches after training; 0 keeps moving averages

    @model_validator(mode="after")
    def _shares_have_statistics(self) -> Self:
        if self.batch_size // self.virtual_gpus < 2 and self.batch_norm == "train":
            raise ValueError("batch norm needs at least 2 pictures on each of virtual_gpus")
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

    @staticmethod
    def meant(fields: Fields, key: str, value: Any) -> Fields:
        """A network may be named: it keeps the classes, and the recipe is called after it."""
        if key != "model" or not isinstance(value, str):
            return {key: value}
        classes = fields["model"]["classes"]
        return {
            "name": f"{fields['name'].split('-')[0]}-{value}",
            "model": config_named(value).model_dump(mode="json") | {"classes": classes},
        }
