from pathlib import Path

import pytest
import torch
from tests.data.boxes.planted_boxes import plant_coco
from tests.detection.small import SCENES, classifier, detector, scenes_folder

from reslab.detection.recipe import DetectionRecipe
from reslab.recipes import (
    SMALL_NETS,
    TRUNKS,
    any_recipe,
    catalogue,
    detection_recipe,
    network_of,
    recipe_names,
)
from reslab.recipes.own import own_detection_recipe
from reslab.training.recipe import Recipe


def test_every_trunk_has_a_recipe() -> None:
    names = set(catalogue("detection"))
    assert {f"digit-scenes-{trunk}-c4" for trunk in SMALL_NETS} <= names
    assert {f"{data}-{trunk}-c4" for data in ("coco", "voc07+12") for trunk in TRUNKS} <= names
    assert not names & set(catalogue())
    assert all(fields.name == name for name, fields in catalogue("detection").items())
    assert recipe_names("detection", own=True) == [f"own-detection-{trunk}-c4" for trunk in TRUNKS]


def test_coco_is_appendix_a() -> None:
    """240k iterations at 0.001 and 80k at 0.0001, mini-batches of 8, anchors of four sizes."""
    coco = detection_recipe("coco-resnet101-c4")
    assert (coco.iterations, coco.batch_size, coco.virtual_gpus) == (320_000, 8, 8)
    assert (coco.learning_rate, [drop * coco.iterations for drop in coco.drops]) == (
        0.001,
        [240_000],
    )
    assert (coco.model.sizes, coco.model.classes, coco.years) == ((64, 128, 256, 512), 80, "")
    assert (coco.model.stride, coco.model.anchors.per_cell) == (16, 12)


def test_voc_is_faster_rcnn() -> None:
    voc = detection_recipe("voc07+12-resnet101-c4")
    assert (voc.iterations, voc.batch_size, voc.drops) == (80_000, 1, (0.75,))
    assert (voc.model.classes, voc.years, voc.model.anchors.per_cell) == (20, "07+12", 9)
    assert voc.model.trunk.depth == 101


@pytest.mark.parametrize("trunk", SMALL_NETS)
def test_scenes_have_anchors_of_their_digits(trunk: str) -> None:
    scenes = detection_recipe(f"digit-scenes-{trunk}-c4")
    assert (scenes.model.stride, scenes.model.classes, scenes.model.pooled) == (2, 10, 8)
    scale = scenes.shorter[0] / 128
    boxes = torch.cat([truth.boxes for truth in SCENES.train.truths]) * scale
    heights = (boxes[:, 3] - boxes[:, 1]).tolist()
    shapes = scenes.model.anchors.shapes()
    sides = (shapes[:, 3] - shapes[:, 1]).tolist()
    assert min(sides) <= min(heights) * 1.3
    assert max(sides) >= max(heights) / 1.3
    assert not scenes.flip  # a mirrored digit is not a digit


def test_a_users_folder_determines_classes_and_length(tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    own = any_recipe("own-detection-resnet18-c4", data=folder)
    assert isinstance(own, DetectionRecipe)
    assert (own.model.classes, own.iterations, own.data) == (10, 1000, "boxes")
    assert own.iterations / own.eval_every == 10
    many = SCENES.train.take("many", SCENES.train.truths[0].labels.new_zeros(200))
    assert own_detection_recipe("resnet18", own.model.trunk, many).iterations == 16 * 200


def test_own_recipes_need_a_folder_with_boxes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is made from your boxes: name their folder with"):
        any_recipe("own-detection-resnet18-c4")
    with pytest.raises(ValueError, match="has no annotated boxes"):
        any_recipe("own-detection-resnet18-c4", data=tmp_path)
    few = plant_coco(tmp_path / "few", lambda coco: coco["annotations"].clear())
    with pytest.raises(ValueError, match="has an object to detect"):
        any_recipe("own-detection-resnet18-c4", data=few)


def test_unknown_names_are_refused_and_the_nearest_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'digit-scenes-resnet20-c4'"):
        any_recipe("digit-scene-resnet20-c4")
    with pytest.raises(ValueError, match="did you mean 'coco-resnet50-c4'"):
        detection_recipe("coco-resnet5-c4")


def test_a_classifier_cannot_start_from_a_detector() -> None:
    with pytest.raises(ValueError, match="it cannot start from a detector"):
        any_recipe("digits-resnet20", weights=detector())


def test_weights_of_another_net_are_refused() -> None:
    with pytest.raises(ValueError, match="the weights belong to a net with 8 layers"):
        any_recipe("digit-scenes-resnet20-c4", weights=classifier())


def test_every_recipe_has_a_network() -> None:
    for name, depth in (("digits-resnet20", 20), ("coco-resnet50-c4", 50)):
        fields = any_recipe(name)
        assert isinstance(fields, Recipe | DetectionRecipe)
        assert network_of(fields).depth == depth
