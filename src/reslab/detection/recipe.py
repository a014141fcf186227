"""The recipe of a detector, and how images are searched in testing (App. A, B)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, Self, final

from pydantic import Field, PositiveInt, ValidationError, model_validator

from reslab.detection.network import DetectorConfig
from reslab.training.recipe import Fields, RunRecipe, Section


class InferenceConfig(Section):
    """Numbers of Faster R-CNN's testing; the defaults are the paper's baseline (App. A)."""

    shorter: PositiveInt = 600  # the side that an image is shown with, in pixels
    longest: PositiveInt = 1000  # unless the other side would be longer than this
    smallest: float = Field(16, ge=0)  # side of a proposal, in pixels of the image as it came
    before: PositiveInt = 6000  # proposals that suppression looks at
    proposals: PositiveInt = 300  # that are left of them
    threshold: float = Field(0.05, ge=0, le=1)  # probability below which nothing is reported
    overlap: float = Field(0.3, ge=0, le=1)  # IoU above which two of a class are the same object
    most: PositiveInt = 100  # detections of an image, as COCO counts
    refine: bool = False  # "box refinement": judge the boxes found once more, and vote
    # "multi-scale testing": shorter sides, of which each region is seen at two, the larger of the
    # features kept; the paper's are 200, 400, 600, 800, 1000. Proposals come from `shorter`
    scales: tuple[PositiveInt, ...] = ()

    @model_validator(mode="after")
    def _scales_have_neighbours(self) -> Self:
        if len(self.scales) == 1 or any(a >= b for a, b in pairwise(self.scales)):
            raise ValueError(f"scales {list(self.scales)}: two or more that rise, or none")
        return self

    def with_changes(self, changes: Mapping[str, Any]) -> "InferenceConfig":
        """Return these numbers with changes; ValueError, in a line, for an impossible value."""
        try:
            return InferenceConfig.model_validate(self.model_dump() | dict(changes))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "value_error":  # ours: it names what it is about
                raise ValueError(str(first["ctx"]["error"])) from None
            key, value, why = first["loc"][0], first["input"], first["msg"].lower()
            raise ValueError(f"{key} cannot be {value!r}: {why}") from None


DataName = Literal["digit-scenes", "boxes"]
Step = Literal[1, 2, 3]


class Sampling(Section):
    """What the losses sample of an image (Faster R-CNN, Sec. 3.1.3; Fast R-CNN, Sec. 2.3)."""

    anchors: PositiveInt = 256  # of which at most one half are positive
    before: PositiveInt = 12_000  # proposals that suppression looks at; the released code's
    proposals: PositiveInt = 2000  # that are left of them
    regions: PositiveInt = 128  # sampled from those; at most a quarter is foreground
    # IoU with any object above which a region is background: 0.1 in Fast R-CNN, where that seeks
    # the hard ones; 0 in the released code's joint training
    background: float = Field(0.0, ge=0, lt=0.5)


@final
class DetectionRecipe(RunRecipe):
    """The recipe of a detector. Defaults: App. A, and Faster R-CNN's released code where the paper
    refers to it."""

    task: Literal["detection"] = "detection"
    model: DetectorConfig
    data: DataName
    years: str = ""  # of a folder that holds several: 07+12 of VOC, 2014 of COCO
    validation: float = Field(0.2, gt=0, lt=1)  # of a folder that has no parts of its own
    bad_limit: float = Field(0.01, ge=0, le=1)  # share of files that may be undecodable
    # Faster R-CNN's approximate joint training, or its four steps: proposals, regions with a
    # trunk of their own, proposals on that trunk, regions again. The last is the run itself
    training: Literal["joint", "alternating"] = "joint"
    step: Step | None = None  # of the runs inside an alternating one
    fixed_stages: int = Field(1, ge=0)  # 1: conv1 and conv2_x keep their weights
    shorter: tuple[PositiveInt, ...] = Field((600,), min_length=1)  # several: one at random
    longest: PositiveInt = 1000
    flip: bool = True
    sampling: Sampling = Sampling()
    search: InferenceConfig = InferenceConfig()
    watched: PositiveInt = 500  # test images evaluated on the way, at most
    iterations: int = Field(80_000, ge=1)
    batch_size: int = Field(1, ge=1)
    virtual_gpus: int = Field(1, ge=1)
    learning_rate: float = Field(0.001, gt=0)
    drops: tuple[float, ...] = (0.75,)
    weight_decay: float = Field(0.0005, ge=0)
    eval_every: int = Field(5000, ge=1)

    @staticmethod
    def expand_override(fields: Fields, key: str, value: Any) -> Fields:
        return {key: value}

    @property
    def stage(self) -> Literal[1, 2, 3, 4] | None:
        """Return which of the four steps this run is; None for joint training."""
        return self.step or (4 if self.training == "alternating" else None)

    @model_validator(mode="after")
    def _stages_are_there(self) -> Self:
        shared = len(self.model.trunk.blocks) - 1
        if shared < 1 or self.fixed_stages > shared:
            raise ValueError(
                f"fixed_stages={self.fixed_stages}: {shared} stages come before the regions"
            )
        if self.step is not None and self.training != "alternating":
            raise ValueError(f"step {self.step} is one of training=alternating")
        return self
