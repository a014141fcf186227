"""Recipes: all settings of a run except its seed and paths; validated, frozen, stored as JSON."""

import itertools
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
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

from reslab.data.augment import PadAndCrop, ResizedCrop, ScaleCrop
from reslab.data.builtin import SetName
from reslab.models.config import ResNetConfig, config_named
from reslab.models.parts import NORMS, BatchNorm, NoisyBatchNorm
from reslab.runtime.cpu import Precision
from reslab.training.overrides import (
    Fields,
    Kinds,
    json_value,
    parse_override,
    recipe_differences,
    set_field,
    validation_message,
)


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
    """Settings for a run on image files (`data` is "pictures"), besides the augmentation.

    With the augmentation pad-and-crop, all images are squares with the side `resize`.
    """

    resize: int = Field(256, ge=1)  # shorter side at test time (Sec. 3.4)
    mean: Literal["pixel", "channel"] = "pixel"  # "per-pixel mean subtracted", or its average
    colour: Literal["set", "imagenet"] = "set"  # source of the principal components
    validation: float = Field(0.2, gt=0, lt=1)  # fraction of an unsplit folder
    bad_limit: float = Field(0.01, ge=0, le=1)  # fraction of files that may be undecodable


class Deviations(Section):
    """Parts of a run that the user gave in Python, each described as `label; details; digest`.

    A field is None where the recipe's part is used.
    """

    net: str | None = None
    data: str | None = None
    optimizer: str | None = None

    @property
    def parts(self) -> list[str]:
        """The names of the parts that were given."""
        return [name for name, line in self if line is not None]

    def resume_command(self, folder: Path) -> str:
        """Return the command that resumes a run with these parts."""
        if not self.parts:
            return f"`reslab resume {folder}`"
        parts = ", ".join(f"{part}=..." for part in self.parts)
        return f"`reslab.train(recipe, {str(folder)!r}, {parts})` in Python, with the same parts"


def label_of(line: str) -> str:
    """Return the label in a line of `Deviations`, for tables and figures."""
    return line.partition(";")[0]


# fields added later, with the defaults at which they are not written
UNWRITTEN: Fields = {"keep_every": None, "recompute": "none", "engine": "auto"}
# sections that may be absent; setting one key of a section fills in defaults for the others
OPTIONAL = {"warmup": Warmup(), "plateau": Plateau()}
EngineName = Literal["torch", "native", "graph"]
TaskName = Literal["classification", "detection"]
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
    # native: kernels in C++, on a CPU; graph: kernels in Triton, replayed on a GPU; auto: the one
    # for this device. All fall back to PyTorch for what they do not support
    engine: Literal["auto", EngineName] = "auto"
    eval_every: int = Field(1000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    keep_every: int | None = Field(None, ge=1)  # checkpoints at its multiples are never deleted
    log_every: int = Field(10, ge=1)
    deviations: Deviations = Deviations()  # parts of the user's own, given in Python

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}: {self.iterations:,} iterations of "
            f"{self.batch_size} images, learning rate {self.learning_rate:g})"
        )

    def __str__(self) -> str:
        return self.model_dump_json(indent=2)

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
        given = fields.get("deviations") or {}
        fields["deviations"] = {part: line for part, line in given.items() if line is not None}
        for key, default in {**UNWRITTEN, "deviations": {}}.items():
            if key in fields and fields[key] == default:
                del fields[key]
        names = {key: fields[key] for key in ("name", "task") if key in fields}
        of_task = {key: fields[key] for key in fields if key not in RunRecipe.model_fields}
        return names | of_task | fields

    @model_validator(mode="after")
    def _shares_are_whole(self) -> Self:
        if self.batch_size % self.virtual_gpus:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be split into {self.virtual_gpus} equal "
                "virtual_gpus"
            )
        return self

    @model_validator(mode="after")
    def _rate_falls_in_one_way(self) -> Self:
        bounds = (0.0, *self.drops, 1.0)
        if any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ValueError(f"drops {list(self.drops)} must increase, between 0 and 1")
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
        kind, with its defaults, and `model` to the name of a network. Raise ValueError for an
        unknown key, with the nearest one, or a value that is not allowed.
        """
        return self._changed([*(changes or {}).items(), *fields.items()])

    def with_changes(self, changes: Sequence[str]) -> Self:
        """Return this recipe with KEY=VALUE changes, as `--set` gives them; see `with_`."""
        return self._changed(map(parse_override, changes))

    def _changed(self, changes: Iterable[tuple[str, object]]) -> Self:
        unwritten = {key: UNWRITTEN[key] for key in UNWRITTEN if key in type(self).model_fields}
        fields = unwritten | self.model_dump(mode="json")
        for change, new in changes:
            for key, value in self.expand_override(fields, change, json_value(change, new)).items():
                set_field(fields, key, value, self.kinds, OPTIONAL)
        return self.from_json(json.dumps(fields))

    def differences(self, other: "RunRecipe") -> list[str]:
        """Return a line `key: this -> other` for each field that differs."""
        return recipe_differences(
            UNWRITTEN | self.model_dump(mode="json"), UNWRITTEN | other.model_dump(mode="json")
        )


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
    data: Literal[SetName, "pictures", "own"]  # own: images in memory, given in Python
    pictures: PhotographSettings | None = None
    augmentation: AnyAugmentation = PadAndCrop()
    balance: Literal["none", "sampler", "loss"] = "none"  # for classes of unequal size
    held_out: int = Field(0, ge=0)  # training images held out; 5000 in the paper's 45k/5k split
    batch_norm: Literal["train", "frozen", "recalibrate"] = "train"
    classifier_rate: float = Field(
        1.0, gt=0
    )  # factor of its `learning_rate`, above 1 for a new one
    recompute_bn: int = Field(200, ge=0)  # mini-batches after training; 0 keeps the moving averages
    # blocks: compute their activations again in the backward pass, to save memory; with PyTorch,
    # the bits are the same
    recompute: Literal["none", "blocks"] = "none"

    @property
    def in_memory(self) -> bool:
        """Whether the training images have one size and are kept in memory."""
        return isinstance(self.augmentation, PadAndCrop)

    @model_validator(mode="after")
    def _shares_have_statistics(self) -> Self:
        norms = self.model.norms
        measures = any(isinstance(norm, BatchNorm | NoisyBatchNorm) for norm in norms)
        few = self.batch_size // self.virtual_gpus < 2
        if few and measures and self.batch_norm == "train":
            raise ValueError("batch norm needs at least 2 images on each of virtual_gpus")
        return self

    @model_validator(mode="after")
    def _data_fit(self) -> Self:
        photographs = self.data == "pictures"
        if photographs != (self.pictures is not None):
            needed = "needs" if photographs else "does not go with"
            raise ValueError(f"data {self.data!r} {needed} the section " + '"pictures"')
        if not photographs and not self.in_memory:
            raise ValueError(
                f"augmentation {self.augmentation.kind!r} is not for data {self.data!r}"
            )
        if self.data == "own" and self.deviations.data is None:
            raise ValueError(
                "data 'own' is for images given in Python: reslab.train(recipe, out, data=...)"
            )
        if self.batch_norm != "train" and self.weights is None:
            raise ValueError(
                f"batch_norm {self.batch_norm!r} keeps statistics of trained weights: "
                "start from some with `weights`, or choose 'train'"
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
