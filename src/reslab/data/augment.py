"""Training augmentation as values: what a recipe names and a loader carries out."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Augmentation(BaseModel):
    """What all augmentations share; one of the final ones below is meant."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flip: bool = True


class PadAndCrop(Augmentation):
    """Sec. 4.2, for pictures of one size: zeros on each side, then a crop of the old size."""

    kind: Literal["pad-and-crop"] = "pad-and-crop"
    pad: int = Field(4, ge=0)


class ScaleCrop(Augmentation):
    """Sec. 3.4: shorter side drawn from a range, a random crop, colours moved along their PCA."""

    kind: Literal["scale-crop"] = "scale-crop"
    size: int = Field(224, ge=1)
    shorter_side: tuple[int, int] = (256, 480)
    colour: float = Field(0.1, ge=0)  # standard deviation of the PCA's factors; AlexNet's

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        low, high = self.shorter_side
        if not self.size <= low <= high:
            raise ValueError(
                f"augmentation.shorter_side {[low, high]} must rise, and hold a crop of {self.size}"
            )
        return self


class ResizedCrop(Augmentation):
    """Not the paper's: a crop of random area and shape, stretched to the size (RandomResizedCrop
    of GoogLeNet and of today's recipes)."""

    kind: Literal["resized-crop"] = "resized-crop"
    size: int = Field(224, ge=1)
    area: tuple[float, float] = (0.08, 1.0)  # of the picture
    ratio: tuple[float, float] = (0.75, 4 / 3)  # width over height, drawn in logarithms
    colour: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"augmentation.area {list(self.area)} must rise, between 0 and 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"augmentation.ratio {list(self.ratio)} must rise, above 0")
        return self
