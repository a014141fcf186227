"""The learning rate: a function of the iteration and of what training has shown so far."""

from dataclasses import dataclass, replace

from torch import Tensor

from reslab.training.recipe import Plateau, RunRecipe, Warmup

DROP = 10  # "divided by 10" (Sec. 3.4, 4.2)


@dataclass(frozen=True)
class WarmupState:
    """The warm-up's memory."""

    errors: tuple[float, ...] = ()  # the last training errors, percent, at most `window`
    ended_at: int | None = None  # updates done when it ended
    capped: bool = False  # ended by its cap, not by its error

    def after(self, warmup: Warmup, iteration: int, train_error: float) -> "WarmupState":
        """Return the state after update number `iteration`, from 1, and its training error."""
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
    """The memory of the watch for plateaus."""

    drops: int = 0
    best: float | None = None  # error since the last drop, percent
    waited: int = 0  # evaluations since then that were no better

    def after(self, plateau: Plateau, error: float) -> "PlateauState":
        """Return the state after an evaluation; `error` in percent."""
        if self.best is None or error < self.best - plateau.threshold:
            return PlateauState(self.drops, error, 0)
        if self.waited + 1 < plateau.patience:
            return replace(self, waited=self.waited + 1)
        return PlateauState(self.drops + 1)


@dataclass(frozen=True)
class ScheduleState:
    """The memory of a schedule; part of a checkpoint."""

    warmup: WarmupState = WarmupState()
    plateau: PlateauState = PlateauState()


class Schedule:
    """The learning rate of every update, given the errors of training and evaluation so far."""

    def __init__(self, recipe: RunRecipe, state: ScheduleState = ScheduleState()) -> None:
        self.recipe, self.state = recipe, state

    @property
    def warming(self) -> bool:
        """Whether the next update still belongs to the warm-up."""
        return self.recipe.warmup is not None and self.state.warmup.ended_at is None

    def rate(self, iteration: int) -> float:
        """Return the learning rate of the update that follows `iteration` updates."""
        recipe = self.recipe
        passed = sum(iteration >= round(drop * recipe.iterations) for drop in recipe.drops)
        rate = recipe.learning_rate / DROP ** (passed + self.state.plateau.drops)
        if self.warming and recipe.warmup is not None:
            return min(rate, recipe.warmup.learning_rate)
        return rate

    def observe_training(self, iteration: int, train_error: Tensor) -> bool:
        """Take in the training error of update number `iteration`, from 1; return whether the
        warm-up ended with it. The error is read from its device during a warm-up alone."""
        if not self.warming or self.recipe.warmup is None:
            return False
        warmup = self.state.warmup.after(self.recipe.warmup, iteration, train_error.item())
        self.state = replace(self.state, warmup=warmup)
        return warmup.ended_at is not None

    def observe_evaluation(self, error: float) -> None:
        """Take in the error, in percent, of an evaluation during training."""
        if self.recipe.plateau is not None:
            plateau = self.state.plateau.after(self.recipe.plateau, error)
            self.state = replace(self.state, plateau=plateau)
