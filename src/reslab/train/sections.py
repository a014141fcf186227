"""The parts of a recipe that belong together."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Warmup(Section):
    """The closed-loop warm-up of the 110-layer net (Sec. 4.2): low rate until it learns."""

    learning_rate: float = Field(0.01, gt=0)
    until_train_error: float = Field(80.0, ge=0, le=100)  # percent
    window: int = Field(10, ge=1)  # iterations whose mean error decides; not in the paper
    cap: int = Field(2000, ge=1)  # iterations after which it ends whatever the error is


class Plateau(Section):
    """ "Divided by 10 when the error plateaus" (Sec. 3.4); what a plateau is, is our reading.

    The error is that of the set evaluated on the way. A plateau is `patience` evaluations in a row
    that were not `threshold` points below the best one since the rate last changed.
    """

    patience: int = Field(6, ge=1)
    threshold: float = Field(0.1, ge=0)  # points of that error


class Pictures(Section):
    """What a run on photographs needs beyond its augmentation; `data` is then "pictures"."""

    resize: int = Field(256, ge=1)  # shorter side in testing (Sec. 3.4)
    mean: Literal["pixel", "channel"] = "pixel"  # "per-pixel mean subtracted", or its average
    colour: Literal["set", "imagenet"] = "set"  # whose principal components the colours follow
    validation: float = Field(0.2, gt=0, lt=1)  # of a folder that has no parts of its own
    bad_limit: float = Field(0.01, ge=0, le=1)  # share of files that may be undecodable
