"""The learning rate as a function of the iteration and, for the warm-up, of the training error."""

from dataclasses import dataclass, replace

from reslab.train.recipe import Recipe, Warmup

DROP = 10  # "divided by 10" (Sec. 3.4, 4.2)


@dataclass(frozen=True)
class WarmupState:
    """What the warm-up has seen; part of a checkpoint."""

    errors: tuple[float, ...] = ()  # the last training errors, percent, at most `window`
    ended_at: int | None = None  # updates done when it ended
    capped: bool = False  # ended by its cap, not by its error

    def after(self, warmup: Warmup, iteration: int, train_error: float) -> "WarmupState":
        """The state after update number `iteration` (from 1), whose training error is given."""
        assert self.ended_at is None
        errors = (*self.errors, train_error)[-warmup.window :]
        learned = (
            len(errors) == warmup.window and sum(errors) / len(errors) < warmup.until_train_error
        )
        if learned or iteration >= warmup.cap:
            return WarmupState((), iteration, capped=not learned)
        return replace(self, errors=errors)


def warming(recipe: Recipe, state: WarmupState) -> bool:
    """Whether the next update still belongs to the warm-up."""
    return recipe.warmup is not None and state.ended_at is None


def learning_rate(recipe: Recipe, iteration: int, state: WarmupState) -> float:
    """The rate of the update after `iteration` updates are done."""
    passed = sum(iteration >= round(drop * recipe.iterations) for drop in recipe.drops)
    rate = recipe.learning_rate / DROP**passed
    if recipe.warmup is not None and state.ended_at is None:
        return min(rate, recipe.warmup.learning_rate)
    return rate
