"""The configuration of a detector: Faster R-CNN on a residual trunk (App. A)."""

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from reslab.models.config import MOST_CLASSES, ResNetConfig, Width

if TYPE_CHECKING:
    from reslab.detection.targets import Anchors

Norm = Literal["frozen", "recompute", "group"]


class DetectorConfig(BaseModel):
    """The complete description of one detector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trunk: ResNetConfig  # its last stage is applied to regions, the others to the image
    classes: int = Field(ge=1, le=MOST_CLASSES)  # without the background
    # batch norm as a fixed affine map, with the statistics loaded with the weights or recomputed
    # over the images; or group normalisation instead
    norm: Norm = "frozen"
    sizes: tuple[PositiveFloat, ...] = Field((128, 256, 512), min_length=1)  # of anchors, pixels
    ratios: tuple[PositiveFloat, ...] = Field((0.5, 1, 2), min_length=1)  # height to width
    width: Width = 512  # channels of the region proposal network
    pooling: Literal["max", "align"] = "max"
    pooled: int = Field(
        14, ge=1, le=100
    )  # side of pooled maps; conv5_1 halves it (docs/deviations.md)
    context: bool = False  # concatenate whole-image features to each region's (App. B)

    @property
    def stride(self) -> int:
        """The side of a feature-map cell, in pixels of the image."""
        return (4 if self.trunk.stem == "imagenet" else 1) * 2 ** (len(self.trunk.blocks) - 2)

    @property
    def anchors(self) -> "Anchors":
        from reslab.detection.targets import Anchors

        return Anchors(self.sizes, self.ratios, self.stride)
