"""How a picture is searched: what the paper fixes in testing, and the switches of its App. B."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from reslab.train.sections import Section


class Search(Section):
    """Numbers of Faster R-CNN's testing; the defaults are the paper's baseline (App. A)."""

    shorter: PositiveInt = 600  # the side that a picture is shown with, in pixels
    longest: PositiveInt = 1000  # unless the other side would be longer than this
    smallest: float = Field(16, ge=0)  # side of a proposal, in pixels of the picture as it came
    before: PositiveInt = 6000  # proposals that suppression looks at
    proposals: PositiveInt = 300  # that are left of them
    threshold: float = Field(0.05, ge=0, le=1)  # probability below which nothing is reported
    overlap: float = Field(0.3, ge=0, le=1)  # IoU above which two of a class are the same object
    most: PositiveInt = 100  # detections of a picture, as COCO counts
    refine: bool = False  # "box refinement": judge the boxes found once more, and vote
    # "multi-scale testing": shorter sides, of which each region is seen at two, the larger of the
    # features kept; the paper's are 200, 400, 600, 800, 1000. Proposals come from `shorter`
    scales: tuple[PositiveInt, ...] = ()

    @model_validator(mode="after")
    def _scales_have_neighbours(self) -> Self:
        if len(self.scales) == 1 or any(a >= b for a, b in pairwise(self.scales)):
            raise ValueError(f"scales {list(self.scales)}: two or more that rise, or none")
        return self

    def with_changes(self, changes: Mapping[str, Any]) -> "Search":
        """The same but for some fields; ValueError in a line for an impossible value."""
        try:
            return Search.model_validate(self.model_dump() | dict(changes))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "value_error":  # ours: it names what it is about
                raise ValueError(str(first["ctx"]["error"])) from None
            key, value, why = first["loc"][0], first["input"], first["msg"].lower()
            raise ValueError(f"{key} cannot be {value!r}: {why}") from None
