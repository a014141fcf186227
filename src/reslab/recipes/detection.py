"""Faster R-CNN on residual trunks (App. A), its small model on digit-scenes, boxes of one's own."""

from math import ceil

from reslab.data.boxes.sets import DetectionSet
from reslab.detection.loader import with_objects
from reslab.detection.network import DetectorConfig
from reslab.detection.recipe import DetectionRecipe, InferenceConfig, Sampling
from reslab.models.config import ResNetConfig
from reslab.recipes.classification import OWN_EVALUATIONS

COCO_SIZES = (64, 128, 256, 512)  # of anchors, for COCO has small objects (Faster R-CNN, Sec. 4.2)
EPOCHS = 16  # 80k iterations over the 5,011 images of VOC 2007 are as many
SHORTEST = 1000  # iterations, for folders of a few images


def digit_scenes_recipe(model: str, config: ResNetConfig) -> DetectionRecipe:
    """Train a small detector on the scenes that come with reslab.

    The trunk of a 6n+2-layer net is its first two stages, so a cell is two pixels, and a region
    has 8x8 cells, the digits of 16x16 that the net was trained with. Scenes are shown at half their
    size: digits are then 10 to 32 pixels high, which the trunk's 41 pixels see whole.
    """
    return DetectionRecipe(
        name=f"digit-scenes-{model}-c4",
        model=DetectorConfig(
            trunk=config, classes=10, sizes=(8, 14, 24), ratios=(1, 1.6, 2.8), width=64, pooled=8
        ),
        data="digit-scenes",
        fixed_stages=0,
        shorter=(64,),
        longest=64,
        flip=False,
        sampling=Sampling(anchors=128, before=1000, proposals=200, regions=48),
        search=InferenceConfig(shorter=64, longest=64, smallest=4, before=1000, proposals=50),
        watched=100,
        iterations=2000,
        batch_size=4,
        learning_rate=0.01,
        weight_decay=0.0001,
        eval_every=250,
        checkpoint_every=250,
    )


def coco_recipe(model: str, config: ResNetConfig) -> DetectionRecipe:
    """Train on COCO as in App. A: 240k iterations of 8 images, one a GPU, then 80k at a tenth.

    The authors trained proposals and regions in turn, so many iterations each; here both at once.
    """
    return DetectionRecipe(
        name=f"coco-{model}-c4",
        model=DetectorConfig(trunk=config, classes=80, sizes=COCO_SIZES),
        data="boxes",
        iterations=320_000,
        batch_size=8,
        virtual_gpus=8,
    )


def voc_recipe(model: str, config: ResNetConfig) -> DetectionRecipe:
    """Train on VOC 2007 and 2012 as in App. A: "the hyper-parameters are the same as in" Faster
    R-CNN, which are a recipe's defaults."""
    return DetectionRecipe(
        name=f"voc07+12-{model}-c4",
        model=DetectorConfig(trunk=config, classes=20),
        data="boxes",
        years="07+12",
    )


def own_detection_recipe(model: str, config: ResNetConfig, train: DetectionSet) -> DetectionRecipe:
    """Train on one's own boxes, from trained weights, for as many epochs as on VOC.

    One image at a time as on VOC, with COCO's small anchors too; 64 regions of each image, Fast
    R-CNN's number where it takes two images, because regions cost most.
    """
    iterations = max(EPOCHS * len(with_objects(train)), SHORTEST)
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
