"""The parts of a classification run, and the function that trains one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.batches import Batch, Batches, generator
from reslab.data.images import ImageSet, hold_out, pixel_mean
from reslab.data.sets import open_sets
from reslab.evaluate.classify import classify
from reslab.evaluate.errors import wrong_in_top
from reslab.models.batchnorm import recompute_statistics
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import ResNet, build_resnet, channels_last
from reslab.models.weights import Model, model_bytes
from reslab.train.environment import environment, moved
from reslab.train.folder import RunFolder
from reslab.train.optim import build_sgd
from reslab.train.recipe import Recipe
from reslab.train.run import Parts, Row, Tell, note, run
from reslab.world import World, open_world

INITIALISATION = 2  # a seed's stream of random numbers for the weights, beside those of the batches


@dataclass(frozen=True)
class Classification:
    """A recipe's network and pictures on their device."""

    recipe: Recipe
    world: World
    net: ResNet
    mean: Tensor  # [3, H, W]
    batches: Batches
    watched: list[ImageSet]  # evaluated on the way
    final: list[ImageSet]  # evaluated once, at the end

    def shares_of(self, iteration: int) -> list[Batch]:
        """The mini-batch of `iteration`, an equal share for each virtual GPU."""
        batch = self.batches(iteration)
        count = self.recipe.virtual_gpus
        pairs = zip(batch.images.chunk(count), batch.labels.chunk(count), strict=True)
        return [Batch(images, labels) for images, labels in pairs]

    def loss_of(self, share: Batch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy, in fp32, and training error in percent."""
        with self.world.autocast():
            scores = self.net(share.images)
        scores = scores.float()
        wrong = wrong_in_top(scores.detach(), share.labels, 1)
        return F.cross_entropy(scores, share.labels), 100 * wrong.float().mean()

    def model(self, reports: list[Row]) -> Model:
        """The network as it stands, with all that its use needs."""
        classes = self.final[0].classes
        recipe = self.recipe.model_dump(mode="json")
        return Model(self.net, classes, minus_mean(self.mean), recipe, metrics=reports)

    def evaluate(self, sets: Sequence[ImageSet]) -> list[Row]:
        """Reports in fp32 with the statistics as they stand."""
        self.net.eval()
        reports = [classify(self.model([]), images) for images in sets]
        self.net.train()
        return [report.as_dict() for report in reports]

    def finish(self, beat: Callable[[], None]) -> list[Row]:
        """Recompute the statistics over augmented training batches, then evaluate for good.

        The batches are those of the iterations after the last: seeded, and new to the net.
        `beat` is called before each of them, and may raise to stop.
        """
        first = self.recipe.iterations
        if self.recipe.recompute_bn:
            with self.world.autocast():
                recompute_statistics(
                    self.net,
                    (
                        share.images
                        for k in range(self.recipe.recompute_bn)
                        for share in (beat() or self.shares_of(first + k))
                    ),
                )
        return self.evaluate(self.final)


def prepare(recipe: Recipe, seed: int, data: Path | None, world: World) -> Classification:
    """Pictures, mean, network and batches of a run, on the world's device."""
    sets = open_sets(recipe.data, data)
    train, watched, final = sets.train, [sets.test], [sets.test]
    if recipe.held_out:
        train, held = hold_out(sets.train, recipe.held_out)
        watched, final = [held], [held, sets.test]
    if recipe.model.classes != len(train.classes):
        raise ValueError(
            f"model.classes is {recipe.model.classes}, but {recipe.data} has {len(train.classes)}"
        )
    device = world.device
    net = build_resnet(recipe.model, generator(seed, INITIALISATION))
    net = channels_last(net.to(device)).train()
    mean = pixel_mean(train.images).to(device)
    batches = Batches(
        train.to(device), mean, size=recipe.batch_size, pad=recipe.pad, flip=recipe.flip, seed=seed
    )
    return Classification(
        recipe, world, net, mean, batches,
        [images.to(device) for images in watched], [images.to(device) for images in final],
    )  # fmt: skip


def parts_of(it: Classification) -> Parts:
    """A classification as the parts of a run."""
    recipe = it.recipe
    return Parts(
        net=it.net,
        optimizer=build_sgd(it.net, momentum=recipe.momentum, weight_decay=recipe.weight_decay),
        epoch=-(-len(it.batches.labels) // recipe.batch_size),
        loss_of=it.loss_of,
        shares_of=it.shares_of,
        evaluate=lambda: it.evaluate(it.watched),
        finish=it.finish,
        model_file=lambda reports: model_bytes(it.model(reports)),
    )


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    seed: int = 1,
    data: str | Path | None = None,
    tell: Tell = lambda row: None,
    stop: Callable[[], int | None] = lambda: None,
) -> dict[str, Any]:
    """Train `recipe` into the folder `out`, or go on with the run that is there; its result.

    `tell` hears every line of the log as it is written; `stop` is asked after each update and
    ends the run, saved, by returning a signal's number (see `run`).
    """
    place = Path(data) if data else None
    world = open_world(recipe.precision)
    classification = None
    if (Path(out) / "recipe.json").exists():
        # sums depend on the number of threads: a resumed run keeps its own
        threads = RunFolder.open(Path(out)).environment().get("threads")
        torch.set_num_threads(threads or torch.get_num_threads())
    else:
        # before the folder is made: data that is missing should leave nothing behind
        classification = prepare(recipe, seed, place, world)
    here = environment(world, seed=seed, data=place)
    folder = RunFolder.create(Path(out), recipe, here)
    handle = folder.lock()
    try:
        result = folder.result()
        if result is not None:
            tell(note("this run is finished"))
            return result
        differences = moved(folder.environment(), here)
        if differences:
            tell(note(f"not bit-exact from here on, the machine differs: {'; '.join(differences)}"))
        classification = classification or prepare(recipe, seed, place, world)
        return run(recipe, parts_of(classification), folder, tell=tell, stop=stop)
    finally:
        folder.unlock(handle)
