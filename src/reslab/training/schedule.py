"""The learning rate as a function of the iteration and of the errors measured so far."""

from dataclasses import dataclass, replace

from torch import Tensor

from reslab.training.recipe import Plateau, RunRecipe, Warmup

DROP = 10  # "divided by 10" (Sec. 3.4, 4.2)


@dataclass(frozen=True)
class WarmupState:
    """The state of the warm-up."""

    errors: tuple[float, ...] = ()  # the last training errors in percent, at most `window` of them
    ended_at: int | None = None  # updates made when the warm-up ended
    capped: bool = False  # whether it ended by its cap, not by its error

    def after(self, warmup: Warmup, iteration: int, train_error: float) -> "WarmupState":
        """Return the state after update number `iteration`, counted from 1."""
        assert self.ended_at is None
        errors = (*self.errors, train_error)[-warmup.window :]
        learned = (
            len(errors) == warmup.window and sum(errors) / len(errors) < warmup.until_train_error
        )
        if learned or iteration >= warmup.cap:
            return WarmupState((), iteration, capped=not learned)
        return replace(self, errors=errors)


@dataclass(frozen=True)
class PlateauState:
    """The state of plateau detection."""

    drops: int = 0
    best: float | None = None  # lowest error since the last drop, in percent
    waited: int = 0  # evaluations since the best one

    def after(self, plateau: Plateau, error: float) -> "PlateauState":
        """Return the state after an evaluation; `error` in percent."""
        if self.best is None or error < self.best - plateau.threshold:
            return PlateauState(self.drops, error, 0)
        if self.waited + 1 < plateau.patience:
            return replace(self, waited=self.waited + 1)
        return PlateauState(self.drops + 1)


@dataclass(frozen=True)
class ScheduleState:
    """The state of a schedule, stored in checkpoints."""

    warmup: WarmupState = WarmupState()
    plateau: PlateauState = PlateauState()


class Schedule:
    """The learning rate for every update, given the training and evaluation errors so far."""

    def __init__(self, recipe: RunRecipe, state: ScheduleState = ScheduleState()) -> None:
        self.recipe, self.state = recipe, state

    @property
    def warming(self) -> bool:
        """Whether the next update still belongs to the warm-up."""
        return self.recipe.warmup is not None and self.state.warmup.ended_at is None

    def rate(self, iteration: int) -> float:
        """Return the learning rate for the update after `iteration` updates."""
        recipe = self.recipe
        passed = sum(iteration >= round(drop * recipe.iterations) for drop in recipe.drops)
        rate = recipe.learning_rate / DROP ** (passed + self.state.plateau.drops)
        if self.warming and recipe.warmup is not None:
            return min(rate, recipe.warmup.learning_rate)
        return rate

    def observe_training(self, iteration: int, train_error: Tensor) -> bool:
        """Record the training error of update number `iteration`, counted from 1.

        Return whether the warm-up ended with it. The error is read from its device only during a
        warm-up.
        """
        if not self.warming or self.recipe.warmup is None:
            return False
        warmup = self.state.warmup.after(self.recipe.warmup, iteration, train_error.item())
        self.state = replace(self.state, warmup=warmup)
        return warmup.ended_at is not None

    def observe_evaluation(self, error: float) -> None:
        """Record the error, in percent, of an evaluation during training."""
        if self.recipe.plateau is not None:
            plateau = self.state.plateau.after(self.recipe.plateau, error)
            self.state = replace(self.state, plateau=plateau)
