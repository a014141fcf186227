"""A recipe of the other task, with as little of its own as there can be."""

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
        """`shorter=paper` stands for two changes."""
        return (
            {"shorter": 600, "batch_size": 8}
            if (key, value) == ("shorter", "paper")
            else {key: value}
        )
