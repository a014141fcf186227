"""The parts of a block that a configuration can choose: its shortcut and normalisation."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    Tag,
)

Option = Literal["A", "B", "C"]  # of a shortcut (Sec. 4.1)
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # unknown keys are errors


class BatchNorm(BaseModel):
    """Batch normalisation after each convolution, as in the paper (Sec. 3.4)."""

    model_config = STRICT

    kind: Literal["batch"] = "batch"


class GroupNorm(BaseModel):
    """Group normalisation after each convolution (Wu & He, arXiv 1803.08494)."""

    model_config = STRICT

    kind: Literal["group"] = "group"
    groups: PositiveInt = 8  # must divide the channels of every convolution


class NoNorm(BaseModel):
    """No normalisation: each convolution has a bias, initialised to zero.

    Such networks need a learning rate that is smaller by orders of magnitude.
    """

    model_config = STRICT

    kind: Literal["none"] = "none"


class NoisyBatchNorm(BaseModel):
    """Batch normalisation followed by noise when training (Santurkar et al., arXiv 1805.11604).

    Each channel of each image is scaled and shifted at random (their App. A): in every iteration
    and for every channel, mu ~ U(-shift, shift) and sigma ~ U(1, scale) are drawn; then for every
    image, the shift ~ U(mu - shift_spread, mu + shift_spread) and the scale ~ N(sigma,
    scale_spread), where `scale_spread` is a standard deviation.
    """

    model_config = STRICT

    kind: Literal["noisy-batch"] = "noisy-batch"
    shift: NonNegativeFloat = 0.5
    scale: float = Field(1.25, ge=1)
    shift_spread: NonNegativeFloat = 0.1
    scale_spread: NonNegativeFloat = 0.1


NORMS = (BatchNorm(), GroupNorm(), NoNorm(), NoisyBatchNorm())  # every kind, with its defaults
Norm = Annotated[BatchNorm | GroupNorm | NoNorm | NoisyBatchNorm, Field(discriminator="kind")]
FORMS = ("one", "each")  # tags that pydantic inserts in error locations, not parts of a key


def form_of(value: object) -> str:
    """Return which of FORMS a value has: one for all blocks, or a list with one for each block."""
    return "each" if isinstance(value, list | tuple) else "one"


Norms = Annotated[
    Annotated[Norm, Tag("one")] | Annotated[tuple[Norm, ...], Tag("each")], Discriminator(form_of)
]
Shortcuts = Annotated[
    Annotated[Option | None, Tag("one")] | Annotated[tuple[Option | None, ...], Tag("each")],
    Discriminator(form_of),
]
