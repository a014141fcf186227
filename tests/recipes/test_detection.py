from pathlib import Path

import pytest
import torch
from tests.data.boxes.planted_boxes import plant_coco
from tests.detection.small import SCENES, classifier, detector, scenes_folder

from reslab.detection.recipe import DetectionRecipe
from reslab.recipes import (
    SMALL_TRUNKS,
    TRUNKS,
    any_recipe,
    catalogue,
    detection_recipe,
    network_of,
    recipe,
    recipe_names,
)
from reslab.recipes.detection import own_detection_recipe
from reslab.training.recipe import Recipe


def test_there_is_a_recipe_for_every_trunk() -> None:
    names = set(catalogue("detection"))
    assert {f"digit-scenes-{trunk}-c4" for trunk in SMALL_TRUNKS} <= names
    assert {f"{data}-{trunk}-c4" for data in ("coco", "voc07+12") for trunk in TRUNKS} <= names
    assert not names & set(catalogue())
    assert all(it.name == name for name, it in catalogue("detection").items())
    assert recipe_names("detection", own=True) == [f"own-detection-{trunk}-c4" for trunk in TRUNKS]


def test_coco_is_appendix_a() -> None:
    """240k iterations at 0.001 and 80k at 0.0001, 8 images at once, anchors of four sizes."""
    it = detection_recipe("coco-resnet101-c4")
    assert (it.iterations, it.batch_size, it.virtual_gpus) == (320_000, 8, 8)
    assert (it.learning_rate, [drop * it.iterations for drop in it.drops]) == (0.001, [240_000])
    assert (it.model.sizes, it.model.classes, it.years) == ((64, 128, 256, 512), 80, "")
    assert (it.model.stride, it.model.anchors.per_cell) == (16, 12)


def test_voc_is_faster_rcnn() -> None:
    it = detection_recipe("voc07+12-resnet101-c4")
    assert (it.iterations, it.batch_size, it.drops) == (80_000, 1, (0.75,))
    assert (it.model.classes, it.years, it.model.anchors.per_cell) == (20, "07+12", 9)
    assert it.model.trunk.depth == 101


@pytest.mark.parametrize("trunk", SMALL_TRUNKS)
def test_scenes_have_anchors_of_their_digits(trunk: str) -> None:
    it = detection_recipe(f"digit-scenes-{trunk}-c4")
    assert (it.model.stride, it.model.classes, it.model.pooled) == (2, 10, 8)
    scale = it.shorter[0] / 128
    boxes = torch.cat([truth.boxes for truth in SCENES.train.truths]) * scale
    heights = (boxes[:, 3] - boxes[:, 1]).tolist()
    shapes = it.model.anchors.shapes()
    sides = (shapes[:, 3] - shapes[:, 1]).tolist()
    assert min(sides) <= min(heights) * 1.3
    assert max(sides) >= max(heights) / 1.3
    assert not it.flip  # a mirrored digit is none


def test_an_own_folder_gives_its_classes_and_its_length(tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    it = any_recipe("own-detection-resnet18-c4", data=folder)
    assert isinstance(it, DetectionRecipe)
    assert (it.model.classes, it.iterations, it.data) == (10, 1000, "boxes")
    assert it.iterations / it.eval_every == 10
    many = SCENES.train.take("many", SCENES.train.truths[0].labels.new_zeros(200))
    assert own_detection_recipe("resnet18", it.model.trunk, many).iterations == 16 * 200


def test_own_recipes_need_a_folder_with_boxes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is made from your boxes: name a COCO or VOC folder"):
        any_recipe("own-detection-resnet18-c4")
    with pytest.raises(ValueError, match="has no annotated boxes"):
        any_recipe("own-detection-resnet18-c4", data=tmp_path)
    few = plant_coco(tmp_path / "few", lambda it: it["annotations"].clear())
    with pytest.raises(ValueError, match="has an object to detect"):
        any_recipe("own-detection-resnet18-c4", data=few)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'digit-scenes-resnet20-c4'"):
        any_recipe("digit-scene-resnet20-c4")
    with pytest.raises(ValueError, match="did you mean 'coco-resnet50-c4'"):
        detection_recipe("coco-resnet5-c4")


def test_a_classifier_cannot_start_from_a_detector() -> None:
    with pytest.raises(ValueError, match="it cannot start from a detector"):
        recipe("digits-resnet20", weights=detector())


def test_weights_of_another_net_are_refused() -> None:
    with pytest.raises(ValueError, match="the weights are of a net with 8 layers"):
        any_recipe("digit-scenes-resnet20-c4", weights=classifier())


def test_what_a_recipe_trains_is_a_net() -> None:
    for name, depth in (("digits-resnet20", 20), ("coco-resnet50-c4", 50)):
        it = any_recipe(name)
        assert isinstance(it, Recipe | DetectionRecipe)
        assert network_of(it).depth == depth
