"""Recipes of classifiers: CIFAR-10 (Sec. 4.2), digits, ImageNet (Sec. 3.4), the user's images."""

from math import ceil

from reslab.data.augment import PadAndCrop, ScaleCrop
from reslab.data.datasets import EncodedImages
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.training.origin import fit_to_weights
from reslab.training.recipe import PhotographSettings, Plateau, Recipe, Warmup

DEEP_BLOCKS = 18  # n of the 110-layer net, the first at which 0.1 "is slightly too large"
# the user's images
BATCH = 32
RATE = 0.1 * BATCH / 256  # Sec. 3.4's rate, scaled with the mini-batch size
# for fine-tuning. Frozen batch-norm statistics do not dampen a step: at 0.001 training diverges,
# at 0.0001 it forgets the pretrained features (docs/log.md)
FINE_RATE = 0.00003
NEW_CLASSIFIER = 50  # times FINE_RATE, since the new classifier is untrained
EPOCHS, FINE_EPOCHS = 100, 12
SHORTEST, FINE_SHORTEST = 1500, 150  # iterations, for folders with few images
OWN_EVALUATIONS = 10  # evaluations during training
CIFAR_IMAGES, CIFAR_ITERATIONS = 50_000, 64_000  # Sec. 4.2
CIFAR_BATCH, CIFAR_SIDE, CIFAR_PAD, CIFAR_CLASSES = 128, 32, 4, 10


def cifar10_recipe(model: str, config: ResNetConfig) -> Recipe:
    """Train a 6n+2-layer net as in the paper; the defaults are the numbers of Sec. 4.2."""
    deep = config.blocks[0] >= DEEP_BLOCKS
    return Recipe(
        name=f"cifar10-{model}",
        model=config,
        data="cifar10",
        warmup=Warmup() if deep else None,
    )


def digits_recipe(model: str, config: ResNetConfig) -> Recipe:
    """Train as in Sec. 4.2, but for 600 iterations: 53 epochs of 1,437 digits.

    All depths warm up: so short a run cannot wait for a deep plain net to recover from a rate of
    0.1 in its first iterations. Mirrored digits are not digits, so there is no flipping, and for
    16x16 images the padding is halved, as the side is.
    """
    return Recipe(
        name=f"digits-{model}",
        model=config,
        data="digits",
        augmentation=PadAndCrop(pad=2, flip=False),
        iterations=600,
        warmup=Warmup(cap=300),
        recompute_bn=50,
        eval_every=50,
        checkpoint_every=50,
    )


def imagenet_recipe(model: str, config: ResNetConfig) -> Recipe:
    """Train on ImageNet as in the paper: 60e4 iterations with 256 images on eight GPUs."""
    return Recipe(
        name=f"imagenet-{model}",
        model=config,
        data="pictures",
        pictures=PhotographSettings(colour="imagenet"),
        augmentation=ScaleCrop(),
        iterations=600_000,
        batch_size=256,
        virtual_gpus=8,  # as in the authors' release: 32 images on each
        drops=(),
        plateau=Plateau(),
        eval_every=5000,
    )


def own_recipe(
    model: str,
    config: ResNetConfig,
    train: EncodedImages,
    weights: Model | None = None,
    count: int | None = None,
) -> Recipe:
    """Train on the images in `train`, from scratch or from `weights`.

    The run is long enough for `count` images, by default all in `train`.

    From scratch this is Sec. 3.4 scaled down: the rate is in proportion to a mini-batch of 32, and
    there are 100 epochs with drops at fixed fractions. Fine-tuning takes 12 epochs: the rate is
    small except for the new classifier, and batch norm keeps its statistics, as in the paper's
    transfer to detection (App. A), so that mini-batches may be small.
    """
    epochs, shortest = (FINE_EPOCHS, FINE_SHORTEST) if weights else (EPOCHS, SHORTEST)
    count = len(train) if count is None else count
    batch = min(BATCH, count // 2 * 2)
    iterations = max(ceil(epochs * count / batch), shortest)
    interval = max(iterations // OWN_EVALUATIONS, 1)
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
        eval_every=interval,
        checkpoint_every=interval,
    )
    return fit_to_weights(recipe, weights, keep_statistics=True) if weights else recipe


def own_small_recipe(
    model: str,
    config: ResNetConfig,
    train: EncodedImages,
    side: int,
    weights: Model | None = None,
    count: int | None = None,
) -> Recipe:
    """Train a 6n+2-layer net on the images in `train`, squares of `side` pixels.

    From scratch this is Sec. 4.2 with its iterations in proportion to the images, up to the
    paper's, its padding in proportion to the side, and its warm-up in proportion to both the
    iterations and the error of guessing. For CIFAR-10 as image files it is the paper's recipe.
    Fine-tuning is that of `own_recipe`.
    """
    count = len(train) if count is None else count
    batch = min(CIFAR_BATCH, count // 2 * 2)
    if weights:
        iterations = max(ceil(FINE_EPOCHS * count / batch), FINE_SHORTEST)
    else:
        share = min(count / CIFAR_IMAGES, 1)
        iterations = max(ceil(CIFAR_ITERATIONS * share), SHORTEST)
    interval = max(min(iterations // OWN_EVALUATIONS, 1000), 1)
    guessing = 1 - 1 / len(train.classes)  # the error
    warmup = Warmup(
        until_train_error=round(80 * guessing / (1 - 1 / CIFAR_CLASSES), 1),
        cap=ceil(2000 * iterations / CIFAR_ITERATIONS),
    )
    deep = config.blocks[0] >= DEEP_BLOCKS and weights is None
    recipe = Recipe(
        name=f"own-{model}",
        model=config.model_copy(update={"classes": len(train.classes)}),
        data="pictures",
        pictures=PhotographSettings(resize=side),
        augmentation=PadAndCrop(pad=round(CIFAR_PAD * side / CIFAR_SIDE)),
        iterations=iterations,
        batch_size=batch,
        virtual_gpus=2 if batch >= 4 else 1,
        learning_rate=FINE_RATE if weights else 0.1,
        classifier_rate=NEW_CLASSIFIER if weights else 1.0,
        warmup=warmup if deep else None,
        recompute_bn=min(200, iterations),
        eval_every=interval,
        checkpoint_every=interval,
    )
    return fit_to_weights(recipe, weights, keep_statistics=True) if weights else recipe
