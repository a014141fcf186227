"""What the run of a detector will show, and how its cost is measured."""

from dataclasses import replace
from functools import partial

import torch

from reslab.detect.initial import train_mode
from reslab.detect.training import DetectorTraining, parts_of
from reslab.train.probe import Probed, read_last

EVALUATED = 8  # pictures that are searched to time it


def detector_probed(it: DetectorTraining) -> Probed:
    """For `reslab.train.probe.probe`. Of alternating training, each of the four steps is taken to
    cost what joint training does, about as much as the dearest of them."""
    recipe = it.recipe
    steps, looking = (4, 2) if recipe.training == "alternating" else (1, 1)
    it = replace(it, recipe=recipe.model_copy(update={"training": "joint"}))
    train_mode(it.net, it.recipe)
    looks = (recipe.iterations - 1) // recipe.eval_every

    def evaluate() -> int:
        some = it.test.take("some", torch.arange(min(len(it.test), EVALUATED)))
        it.search(some)
        train_mode(it.net, it.recipe)
        return len(some)

    train = it.batches.train
    return Probed(
        recipe, it.world, parts_of(it), it.batches.count,
        batches=steps * recipe.iterations,
        evaluated=looking * (looks * min(recipe.watched, len(it.test)) + len(it.test)),
        evaluate=evaluate,
        read=partial(read_last, train.files, train.read),
    )  # fmt: skip
