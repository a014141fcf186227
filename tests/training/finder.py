"""A minimal recipe of the task detection, for tests of what all tasks share."""

from typing import Any, Literal, final

from reslab.training.overrides import Fields
from reslab.training.recipe import RunRecipe


@final
class FinderRecipe(RunRecipe):
    task: Literal["detection"] = "detection"
    shorter: int = 600
    learning_rate: float = 0.001

    @staticmethod
    def expand_override(fields: Fields, key: str, value: Any) -> Fields:
        """Expand `shorter=paper` to two changes."""
        return (
            {"shorter": 600, "batch_size": 8}
            if (key, value) == ("shorter", "paper")
            else {key: value}
        )
