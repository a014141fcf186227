"""A folder of one's own images: rates and lengths from how many there are."""

from math import ceil

from reslab.data.augment import ScaleCrop
from reslab.data.datasets import EncodedImages
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.training.origin import fit_to_weights
from reslab.training.recipe import PhotographSettings, Recipe

BATCH = 32
RATE = 0.1 * BATCH / 256  # Sec. 3.4's, in proportion to the mini-batch
# of weights that need to be moved, not found. Statistics that are kept do not damp a step: at
# 0.001 training diverges, at 0.0001 it forgets what the weights knew (docs/log.md)
FINE_RATE = 0.00003
NEW_CLASSIFIER = 50  # times that: it starts from nothing
EPOCHS, FINE_EPOCHS = 100, 12
SHORTEST, FINE_SHORTEST = 1500, 150  # iterations, for folders of a few images
EVALUATIONS = 10  # evaluations on the way


def own_recipe(
    model: str, config: ResNetConfig, train: EncodedImages, weights: Model | None = None
) -> Recipe:
    """Training on the images of `train`, from nothing or from `weights`.

    From nothing it is Sec. 3.4 in small: its rate for a mini-batch of 32, its drops at the same
    parts of 100 epochs. From trained weights the rate is small but for the new
    classifier, the length 12 epochs, and batch norm keeps its statistics, as in the paper's
    transfer to detection (App. A): so mini-batches may be small.
    """
    epochs, shortest = (FINE_EPOCHS, FINE_SHORTEST) if weights else (EPOCHS, SHORTEST)
    batch = min(BATCH, len(train) // 2 * 2)
    iterations = max(ceil(epochs * len(train) / batch), shortest)
    looks = max(iterations // EVALUATIONS, 1)
    recipe = Recipe(
        name=f"own-{model}",
        model=config.model_copy(update={"classes": len(train.classes)}),
        data="pictures",
        pictures=PhotographSettings(mean="channel"),
        augmentation=ScaleCrop(),
        iterations=iterations,
        batch_size=batch,
        virtual_gpus=1,
        learning_rate=FINE_RATE if weights else RATE,
        classifier_rate=NEW_CLASSIFIER if weights else 1.0,
        recompute_bn=50,
        eval_every=looks,
        checkpoint_every=looks,
    )
    return fit_to_weights(recipe, weights, keep_statistics=True) if weights else recipe
