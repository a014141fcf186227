"""A detector's recipe and its inference settings (App. A, B)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self, final

from pydantic import Field, PositiveInt, ValidationError, model_validator

from reslab.detection.config import DetectorConfig
from reslab.models.parts import NORMS
from reslab.training.overrides import Fields, Kinds
from reslab.training.recipe import RunRecipe, Section


class InferenceConfig(Section):
    """Settings of Faster R-CNN's inference; the defaults are the paper's baseline (App. A)."""

    shorter: PositiveInt = 600  # pixels to which an image's shorter side is resized
    longest: PositiveInt = 1000  # upper bound of the other side, in pixels
    smallest: float = Field(16, ge=0)  # shortest proposal side, in pixels of the original image
    before: PositiveInt = 6000  # proposals before non-maximum suppression
    proposals: PositiveInt = 300  # proposals after it
    threshold: float = Field(0.05, ge=0, le=1)  # lowest probability reported
    overlap: float = Field(0.3, ge=0, le=1)  # IoU threshold of non-maximum suppression
    most: PositiveInt = 100  # detections per image, as in COCO
    refine: bool = False  # "box refinement": classify the regressed boxes again, and vote
    # "multi-scale testing": shorter sides; each region's features are the maximum over two of them.
    # The paper's are 200, 400, 600, 800, 1000. Proposals come from `shorter`
    scales: tuple[PositiveInt, ...] = ()

    @model_validator(mode="after")
    def _scales_have_neighbours(self) -> Self:
        if len(self.scales) == 1 or any(a >= b for a, b in pairwise(self.scales)):
            raise ValueError(
                f"scales {list(self.scales)} must be two or more increasing sides, or none"
            )
        return self

    def with_changes(self, changes: Mapping[str, Any]) -> "InferenceConfig":
        """Return these settings with changes; raise a one-line ValueError for a bad value."""
        try:
            return InferenceConfig.model_validate(self.model_dump() | dict(changes))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "value_error":  # ours: the message names the field itself
                raise ValueError(str(first["ctx"]["error"])) from None
            key, value, why = first["loc"][0], first["input"], first["msg"].lower()
            raise ValueError(f"{key} cannot be {value!r}: {why}") from None


DataName = Literal["digit-scenes", "boxes"]
Step = Literal[1, 2, 3]


class Sampling(Section):
    """Samples per image in the losses (Faster R-CNN, Sec. 3.1.3; Fast R-CNN, Sec. 2.3)."""

    anchors: PositiveInt = 256  # at most half of them positive
    before: PositiveInt = 12_000  # proposals before suppression, as in the released code
    proposals: PositiveInt = 2000  # proposals after it
    regions: PositiveInt = 128  # sampled from the proposals; at most a quarter foreground
    # lowest IoU with an object for a background region: 0.1 in Fast R-CNN, as a heuristic for hard
    # example mining; 0 in the released code's joint training
    background: float = Field(0.0, ge=0, lt=0.5)


@final
class DetectionRecipe(RunRecipe):
    """The recipe of a detector. The defaults follow App. A and, where the paper refers to it, the
    released code of Faster R-CNN."""

    kinds: ClassVar[Kinds] = {"model.trunk.norm": {norm.kind: norm for norm in NORMS}}

    task: Literal["detection"] = "detection"
    model: DetectorConfig
    data: DataName
    years: str = ""  # selects among a folder's years: 07+12 for VOC, 2014 for COCO
    validation: float = Field(0.2, gt=0, lt=1)  # fraction of an unsplit folder used for testing
    bad_limit: float = Field(0.01, ge=0, le=1)  # fraction of images that may be bad
    # Faster R-CNN's approximate joint training, or its four steps, which train 1. proposals,
    # 2. regions with a second trunk, 3. proposals on the second trunk, 4. regions again. The run
    # itself is step 4
    training: Literal["joint", "alternating"] = "joint"
    step: Step | None = None  # set in the runs inside an alternating run
    fixed_stages: int = Field(1, ge=0)  # 1: conv1 and conv2_x are frozen
    shorter: tuple[PositiveInt, ...] = Field((600,), min_length=1)  # one is sampled per image
    longest: PositiveInt = 1000
    flip: bool = True
    sampling: Sampling = Sampling()
    search: InferenceConfig = InferenceConfig()
    watched: PositiveInt = 500  # maximum number of test images evaluated during training
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
        """Return which of the four steps this run is, or None for joint training."""
        return self.step or (4 if self.training == "alternating" else None)

    @model_validator(mode="after")
    def _stages_are_there(self) -> Self:
        shared = len(self.model.trunk.blocks) - 1
        if shared < 1 or self.fixed_stages > shared:
            raise ValueError(
                f"fixed_stages={self.fixed_stages}: {shared} stages precede the region head; "
                f"at least {max(self.fixed_stages, 1)} are needed"
            )
        if self.step is not None and self.training != "alternating":
            raise ValueError(f"step={self.step} requires training=alternating")
        return self
