"""Recipes of detectors: Faster R-CNN (App. A), and a small one for digit-scenes."""

from reslab.detection.config import DetectorConfig
from reslab.detection.recipe import DetectionRecipe, InferenceConfig, Sampling
from reslab.models.config import ResNetConfig

COCO_SIZES = (64, 128, 256, 512)  # anchor sizes, for COCO's small objects (Faster R-CNN, Sec. 4.2)


def digit_scenes_recipe(model: str, config: ResNetConfig) -> DetectionRecipe:
    """Train a small detector on the scenes included in reslab.

    The shared trunk is the first two stages of a 6n+2-layer net, so a cell is two pixels wide, and
    a region of 8x8 cells matches the 16x16 digits that the net was trained on. Scenes are resized
    to half their size: digits are then 10 to 32 pixels high, within the trunk's receptive field of
    41 pixels.
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
    """Train on COCO as in App. A: 240k iterations of 8 images, one per GPU, then 80k at rate / 10.

    The authors trained proposals and regions one after the other, with this many iterations each;
    here both are trained jointly.
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
    R-CNN, and these are the defaults of a recipe."""
    return DetectionRecipe(
        name=f"voc07+12-{model}-c4",
        model=DetectorConfig(trunk=config, classes=20),
        data="boxes",
        years="07+12",
    )
