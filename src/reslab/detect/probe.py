"""What the run of a detector will show, and how its cost is measured."""

from functools import partial

import torch

from reslab.detect.initial import train_mode
from reslab.detect.training import DetectorTraining, parts_of
from reslab.train.probe import Probed, read_last

EVALUATED = 8  # pictures that are searched to time it


def detector_probed(it: DetectorTraining) -> Probed:
    """For `reslab.train.probe.probe`."""
    recipe = it.recipe
    looks = (recipe.iterations - 1) // recipe.eval_every

    def evaluate() -> int:
        some = it.test.take("some", torch.arange(min(len(it.test), EVALUATED)))
        it.search(some)
        train_mode(it.net, recipe)
        return len(some)

    train = it.batches.train
    return Probed(
        recipe, it.world, parts_of(it), it.batches.count,
        batches=recipe.iterations,
        evaluated=looks * min(recipe.watched, len(it.test)) + len(it.test),
        evaluate=evaluate,
        read=partial(read_last, train.files, train.read),
    )  # fmt: skip
