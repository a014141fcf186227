"""Recipes made from the user's images, with or without boxes, and recipes adapted to weights."""

from math import ceil

from reslab.data.augment import PadAndCrop, ScaleCrop
from reslab.data.boxes.sets import DetectionSet
from reslab.data.datasets import EncodedImages
from reslab.data.folder import read_folder, split_folder
from reslab.data.location import Location, to_folder
from reslab.data.small_images import side_of_images
from reslab.detection.config import DetectorConfig
from reslab.detection.loader import with_objects
from reslab.detection.recipe import DetectionRecipe, Sampling
from reslab.detection.setup import Weights, fit_detector_to_weights, read_splits
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.recipes.classification import DEEP_BLOCKS
from reslab.recipes.detection import COCO_SIZES
from reslab.training.origin import fit_to_weights
from reslab.training.recipe import PhotographSettings, Recipe, TaskName, Warmup
from reslab.training.setup import Inputs, inputs_at

VALIDATION = 0.2  # fraction of an unsplit folder; the same as the recipes' default
# photographs
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
# with boxes
BOX_EPOCHS = 16  # as many as 80k iterations on the 5,011 images of VOC 2007
BOX_SHORTEST = 1000  # iterations, for folders with few images


def made_from_images(
    task: TaskName,
    model: str,
    config: ResNetConfig,
    data: str | Location | Inputs | None,
    weights: Weights | None,
) -> Recipe | DetectionRecipe:
    """Build the recipe for the user's images, after reading their classes, number and size.

    The 6n+2-layer nets train on small images of one size, the others on photographs.
    """
    inputs = inputs_at(data)
    if task == "detection":
        return own_boxes(model, config, inputs)
    assert isinstance(weights, Model | None)
    if inputs.data is None:
        raise ValueError(f"own-{model} is made from your images: name their folder with `data`")
    train = split_folder(inputs.read(read_folder, inputs.data), VALIDATION).train
    if config.stem == "imagenet":
        return own_recipe(model, config, train, weights, inputs.count)
    side = side_of_images(train, f"own-{model}")
    return own_small_recipe(model, config, train, side, weights, inputs.count)


def own_boxes(model: str, config: ResNetConfig, inputs: Inputs) -> DetectionRecipe:
    """Build a recipe for the user's folder of images with boxes, after reading it."""
    name = f"own-detection-{model}-c4"
    if inputs.data is None:
        raise ValueError(f"{name} is made from your boxes: name their folder with `data`")
    folder = to_folder(inputs.data, f"{name} needs")
    sets = read_splits(inputs, folder, "", VALIDATION)
    return own_detection_recipe(model, config, sets.train, inputs.count)


def must_fit_task(name: str, task: TaskName, weights: Weights | None) -> None:
    """Raise ValueError if a classifier's recipe would start from a detector."""
    if task == "classification" and not isinstance(weights, Model | None):
        raise ValueError(f"{name} trains a classifier: it cannot start from a detector")


def adapted(recipe: Recipe | DetectionRecipe, weights: Weights | None) -> Recipe | DetectionRecipe:
    """Return a recipe that starts from `weights`, if there are any and it does not already."""
    if weights is None or recipe.weights is not None:
        return recipe
    if isinstance(recipe, DetectionRecipe):
        return fit_detector_to_weights(recipe, weights)
    assert isinstance(weights, Model)
    return fit_to_weights(recipe, weights)


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


def own_detection_recipe(
    model: str, config: ResNetConfig, train: DetectionSet, count: int | None = None
) -> DetectionRecipe:
    """Train on the user's boxes, from trained weights, for as many epochs as on VOC.

    The run is long enough for `count` images with objects, by default all in `train`.
    Mini-batches have one image, as on VOC, and the anchors include COCO's small ones. An image has
    64 regions, as in Fast R-CNN with two images per mini-batch, because regions cost the most.
    """
    count = len(with_objects(train)) if count is None else count
    iterations = max(BOX_EPOCHS * count, BOX_SHORTEST)
    interval = max(ceil(iterations / OWN_EVALUATIONS), 1)
    return DetectionRecipe(
        name=f"own-detection-{model}-c4",
        model=DetectorConfig(trunk=config, classes=len(train.classes), sizes=COCO_SIZES),
        data="boxes",
        sampling=Sampling(regions=64),
        iterations=iterations,
        eval_every=interval,
        checkpoint_every=interval,
    )
