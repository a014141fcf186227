"""The function that trains a detector into a run folder, in one step or in Faster R-CNN's four."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reslab.data.location import Location, parse_location
from reslab.detection.initial import (
    Weights,
    fit_detector_to_weights,
    load_weights,
    must_match_trunk,
)
from reslab.detection.model import Detector, load_detector
from reslab.detection.network import FasterRCNN
from reslab.detection.recipe import DetectionRecipe, Step
from reslab.detection.setup import open_training_data, setup_with_data
from reslab.detection.task import parts_of
from reslab.runtime.device import Device, setup_device
from reslab.runtime.events import Callback, note
from reslab.training.checkpoint import checkpoints_in
from reslab.training.environment import environment
from reslab.training.folder import RunFolder
from reslab.training.origin import FILE, InitialState, initial_state_bytes, read_initial_state
from reslab.training.run import Interrupted, Stop
from reslab.training.train import (
    Begun,
    must_divide_evenly,
    train_in_folder,
)

STEPS: tuple[Step, ...] = (1, 2, 3)  # the fourth is the run itself


@dataclass(frozen=True)
class StepStart:
    """What a step starts from, beside its recipe and its data."""

    weights: Weights | None
    proposer: FasterRCNN | None = None  # a net of its own, whose proposals regions learn from


def train_detector(
    recipe: DetectionRecipe,
    out: str | Path,
    *,
    seed: int = 1,
    data: str | Location | None = None,
    weights: str | Path | None = None,
    on_event: Callback = lambda row: None,
    stop: Stop = lambda: None,
) -> dict[str, Any]:
    """Train `recipe` into the folder `out`, or go on with the run that is there; its result.

    `weights` is a classifier or a detector to start from, a model file or run folder. Alternating
    training has its first three steps as runs inside `out`.
    """
    given = load_weights(weights) if weights else None
    if given and recipe.weights is None:
        recipe = fit_detector_to_weights(recipe, given)
    run = DetectorRun(
        recipe, Path(out), seed, parse_location(data) if data else None,
        Path(weights) if weights else None, given, setup_device(recipe.precision), on_event, stop,
    )  # fmt: skip
    if recipe.training == "alternating" and recipe.step is None:
        folder = run.begin_folder()
        if run.weights is None and (named := folder.environment().get("weights")):
            run = replace(run, weights=Path(named))  # steps that are not begun need them too
        for step in () if folder.result() else STEPS:
            run.take_step(step)
    return run.carry_out()


@dataclass(frozen=True)
class DetectorRun:
    """One call of `train_detector`."""

    recipe: DetectionRecipe
    out: Path
    seed: int
    data: Location | None
    weights: Path | None
    given: Weights | None
    device: Device
    on_event: Callback
    stop: Stop

    def begin_folder(self) -> RunFolder:
        """Make the folder that the steps lie in; data and weights are looked at before."""
        processes = self.device.processes
        must_divide_evenly(self.recipe, processes)
        here = environment(self.device, seed=self.seed, data=self.data, weights=self.weights)

        def enter() -> None:
            if not (self.out / "recipe.json").exists():
                must_match_trunk(self.recipe, self.given)
                open_training_data(self.recipe, self.data)
            RunFolder.create(self.out, self.recipe, here)

        processes.run_on_first(enter)
        return RunFolder(self.out, writes=processes.first)

    def take_step(self, step: Step) -> None:
        """One of the first three, in a run folder of its own."""
        recipe = self.recipe.model_copy(
            update={"name": f"{self.recipe.name}-step{step}", "step": step}
        )
        self.on_event(note(f"step {step} of 4"))
        try:
            replace(self, recipe=recipe, out=self.step_folder(step)).carry_out()
        except Interrupted as interrupted:  # what goes on is the whole
            raise Interrupted(interrupted.signal, self.out, interrupted.iteration) from None

    def carry_out(self) -> dict[str, Any]:
        return train_in_folder(
            self.recipe, self.out, self.begin, device=self.device, seed=self.seed, data=self.data,
            weights=self.weights, on_event=self.on_event, stop=self.stop,
        )  # fmt: skip

    def begin(self, folder: RunFolder | None) -> Begun:
        """Data, network and weights of the run."""
        begun = folder is not None and bool(checkpoints_in(folder.checkpoints))
        origin = read_initial_state(folder.path, begun=begun) if folder else InitialState()
        start = self.beginning(folder, begun)
        it = setup_with_data(
            self.recipe, self.seed, open_training_data(self.recipe, self.data), self.device,
            weights=start.weights, preprocessing=origin.preprocessing, proposer=start.proposer,
            begun=begun, log=lambda text: self.on_event(note(text)),
        )  # fmt: skip
        kept = initial_state_bytes(InitialState(preprocessing=it.preprocessing))
        return Begun(parts_of(it), it.close, {FILE: kept})

    def beginning(self, folder: RunFolder | None, begun: bool) -> StepStart:
        """Of a run that has a checkpoint, what is not in it."""
        match self.recipe.stage:
            case 3:
                return StepStart(self.with_proposals_of(1, self.model_of(2)))
            case 4:
                return StepStart(self.model_of(3))
        proposer = self.model_of(1).net if self.recipe.stage == 2 else None
        if begun:
            return StepStart(None, proposer)
        weights = self.given
        named = folder.environment().get("weights") if folder else self.weights
        if weights is None and named is not None:
            weights = load_weights(named)
        must_match_trunk(self.recipe, weights)
        return StepStart(weights, proposer)

    def step_folder(self, step: Step) -> Path:
        """Beside this one for a step, inside it for the whole."""
        return (self.out.parent if self.recipe.step else self.out) / f"step{step}"

    def model_of(self, step: Step) -> Detector:
        return load_detector(self.step_folder(step))

    def with_proposals_of(self, step: Step, detector: Detector) -> Detector:
        """A detector whose proposals are those of an earlier step."""
        detector.net.proposals.load_state_dict(self.model_of(step).net.proposals.state_dict())
        return detector
