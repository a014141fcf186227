"""Train a detector: jointly, or in the four steps of Faster R-CNN's alternating training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reslab.data.boxes.folder import read_annotations
from reslab.data.location import Location
from reslab.detection.inference import Detector
from reslab.detection.network import FasterRCNN
from reslab.detection.predict import load_detector
from reslab.detection.recipe import DetectionRecipe, Step
from reslab.detection.setup import (
    OpenedSets,
    Weights,
    fit_detector_to_weights,
    must_be_trainable,
    must_match_trunk,
    open_detection_data,
    read_weights,
    setup_detection,
)
from reslab.detection.task import DetectionTask, detector_train_mode
from reslab.models.model_file import Model
from reslab.runtime.device import setup_device
from reslab.runtime.events import Callback, silent
from reslab.training.data_record import DATA_FILE, examine_data, must_have_known_classes
from reslab.training.folder import RunFolder
from reslab.training.loop import Observer
from reslab.training.origin import read_initial_state
from reslab.training.probe import FILES, ProbeTarget
from reslab.training.run import Interrupted, Stop
from reslab.training.setup import Inputs, inputs_at
from reslab.training.train import Job, must_divide_evenly, train_in_folder

SCENES = "digit-scenes"  # built-in data, which do not change
STEPS: tuple[Step, ...] = (1, 2, 3)  # the fourth step is the run itself
PROBED_IMAGES = 8  # images on which detection is timed


def train_detector(
    recipe: DetectionRecipe,
    out: str | Path,
    *,
    seed: int = 1,
    data: str | Location | Inputs | None = None,
    weights: str | Path | None = None,
    observer: Observer | None = None,
    on_event: Callback = silent,
    stop: Stop = lambda: None,
) -> dict[str, Any]:
    """Train `recipe` into the folder `out`, or continue the run in `out`, and return its result.

    `weights` is the model file or run folder of a classifier or detector to start from. The first
    three steps of alternating training are runs in subfolders of `out`; each calls `observer`.
    """
    inputs = inputs_at(data, weights)
    if inputs.weights:
        model = read_weights(inputs, inputs.weights)
        recipe = recipe if recipe.weights else fit_detector_to_weights(recipe, model)
    opened = None
    if inputs.already_read(read_annotations, inputs.data, recipe.years):  # for an own-* recipe
        opened, _ = open_detection_data(recipe, inputs)
        must_have_known_classes(Path(out), opened.train.classes)
    device = setup_device(recipe.precision)
    job = Job(recipe, Path(out), inputs, device, seed, on_event, stop, observer, opened=opened)
    if recipe.training == "alternating" and recipe.step is None:
        job = train_first_steps(job)
    return train_in_folder(job, begin_run)


def begin_run(job: Job[DetectionRecipe], folder: RunFolder | None) -> DetectionTask:
    """Build the task for a new run, or for the run in `folder`, after examining its images.

    Alternating training examines them before its first step.
    """
    opened = open_detection_data(job.recipe, job.inputs)
    record = b""
    if job.recipe.stage is None and job.recipe.data != SCENES:
        record = job.examine(opened[0], folder)
    return replace(begin_detection(job, folder, opened), data_record=record)


def begin_detection(
    job: Job[DetectionRecipe],
    folder: RunFolder | None = None,
    opened: OpenedSets | None = None,
) -> DetectionTask:
    """Build the task for a new run, or for the run in `folder`; `opened` are the opened sets."""
    recipe = job.recipe
    sets, protocol = opened or open_detection_data(recipe, job.inputs)
    must_be_trainable(recipe, sets, protocol)
    origin = read_initial_state(folder)
    weights, proposer = initial_nets(job, folder, origin.begun)
    return setup_detection(
        recipe, job.seed, sets, protocol, job.device,
        weights=weights, preprocessing=origin.preprocessing, proposer=proposer,
        begun=origin.begun, log=job.log,
    )  # fmt: skip


def initial_nets(
    job: Job[DetectionRecipe], folder: RunFolder | None, begun: bool
) -> tuple[Weights | None, FasterRCNN | None]:
    """Return a run's initial weights, and the network whose proposals train its region head.

    Steps 3 and 4 always start from the networks of earlier steps. In other runs the weights are
    None if the recipe needs none, or if `begun`, since a checkpoint already holds them. The
    network is None except in step 2.
    """

    def model_of(step: Step) -> Detector:
        return load_detector(step_folder(job, step))

    match job.recipe.stage:
        case 3:
            detector = model_of(2)
            detector.net.proposals.load_state_dict(model_of(1).net.proposals.state_dict())
            return detector, None
        case 4:
            return model_of(3), None
    proposer = model_of(1).net if job.recipe.stage == 2 else None
    if begun:
        return None, proposer
    path = job.weights_of(folder)
    weights = read_weights(job.inputs, path) if path else None
    must_match_trunk(job.recipe, weights)
    for line in weights.notes if isinstance(weights, Model) else ():
        job.log(line)
    return weights, proposer


def train_first_steps(job: Job[DetectionRecipe]) -> Job[DetectionRecipe]:
    """Train the first three steps, unless the whole run is finished; return the job for step 4."""
    folder = make_whole_folder(job)
    weights = job.weights_of(folder)  # also needed by steps that have not started yet
    job = replace(job, inputs=replace(job.inputs, weights=weights))
    for step in () if folder.result() else STEPS:
        train_step(job, step)
    return job


def make_whole_folder(job: Job[DetectionRecipe]) -> RunFolder:
    """Create the run folder that contains the steps, after checking data and weights."""
    processes, inputs = job.device.processes, job.inputs
    must_divide_evenly(job.recipe, processes)
    environment = job.environment()

    def examine(folder: RunFolder | None) -> bytes:
        sets, protocol = open_detection_data(job.recipe, inputs)
        if job.recipe.data == SCENES:
            record = b""
        else:
            record = examine_data(sets, folder, inputs.data, job.log)
        must_be_trainable(job.recipe, sets, protocol)
        return record

    def create() -> None:
        record = b""
        is_new = not (job.out / "recipe.json").exists()
        if is_new:
            must_match_trunk(
                job.recipe, read_weights(inputs, inputs.weights) if inputs.weights else None
            )
            record = examine(None)
        folder = RunFolder.create(job.out, job.recipe, environment)
        if not is_new and not folder.result():
            record = examine(folder)
        if record:
            folder.write_missing(DATA_FILE, record)

    processes.run_on_first(create)
    return RunFolder(job.out, writes=processes.first)


def train_step(whole: Job[DetectionRecipe], step: Step) -> None:
    """Train one of the first three steps in its own run folder."""
    name = f"{whole.recipe.name}-step{step}"
    recipe = whole.recipe.model_copy(update={"name": name, "step": step})
    job = replace(whole, recipe=recipe, out=step_folder(whole, step))
    whole.log(f"step {step} of 4")
    try:
        train_in_folder(job, begin_detection)
    except Interrupted as interrupted:  # users resume the whole run, not a step
        command = whole.recipe.deviations.resume_command(whole.out)
        raise Interrupted(interrupted.signal, command, interrupted.iteration) from None


def step_folder(job: Job[DetectionRecipe], step: Step) -> Path:
    """Return a step's folder inside the folder of the whole run; `job` may itself be a step."""
    return (job.out.parent if job.recipe.step else job.out) / f"step{step}"


def detector_target(job: Job[DetectionRecipe]) -> ProbeTarget:
    """Set up a new run without writing anything, for estimating its cost.

    Each of the four steps of alternating training is counted as joint training, which costs about
    as much as the most expensive step.
    """
    recipe = job.recipe
    joint = recipe.model_copy(update={"training": "joint"})
    task = begin_detection(replace(job, recipe=joint))
    images = task.test
    steps, evaluating_steps = (4, 2) if recipe.training == "alternating" else (1, 1)
    evaluations = (recipe.iterations - 1) // recipe.eval_every
    evaluated = evaluations * min(recipe.watched, len(images)) + len(images)

    def evaluate(most: int) -> int:
        probed = images.take("probed", torch.arange(min(len(images), PROBED_IMAGES, most)))
        task.detect_images(probed)
        detector_train_mode(task.net, task.recipe)
        return len(probed)

    train = task.loader.train
    return ProbeTarget(
        task,
        images=task.loader.count,
        batches=steps * recipe.iterations,
        evaluated=evaluating_steps * evaluated,
        evaluate=evaluate,
        reads=map(train.read, train.files[-FILES:]),
    )
