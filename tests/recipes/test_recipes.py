from typing import Any

import pytest

from reslab.data.augment import PadAndCrop, ScaleCrop
from reslab.models.config import ResNetConfig
from reslab.recipes import any_recipe, catalogue, recipe, recipe_names
from reslab.recipes.tasks import TASK_KINDS, task_kind
from reslab.training.recipe import Plateau, Section, TaskName, Warmup


def test_every_net_of_section_4_2_has_a_recipe_on_both_sets() -> None:
    names = set(catalogue())
    for data in ("digits", "cifar10"):
        for depth in (20, 32, 44, 56, 110, 1202):
            assert {f"{data}-plain{depth}", f"{data}-resnet{depth}"} <= names


def test_cifar10_is_section_4_2() -> None:
    cifar10 = recipe("cifar10-resnet56")
    assert (cifar10.iterations, cifar10.batch_size, cifar10.virtual_gpus) == (64_000, 128, 2)
    assert (cifar10.learning_rate, cifar10.momentum, cifar10.weight_decay) == (0.1, 0.9, 1e-4)
    assert [round(drop * cifar10.iterations) for drop in cifar10.drops] == [32_000, 48_000]
    assert (cifar10.augmentation, cifar10.held_out, cifar10.recompute_bn) == (
        PadAndCrop(pad=4, flip=True),
        0,
        200,
    )


def test_only_the_deepest_nets_warm_up() -> None:
    for depth in (20, 32, 44, 56):
        assert recipe(f"cifar10-resnet{depth}").warmup is None
    for depth in (110, 1202):
        warmup = Warmup(learning_rate=0.01, until_train_error=80)
        assert recipe(f"cifar10-resnet{depth}").warmup == warmup


def test_an_unknown_recipe_is_refused_and_the_nearest_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'cifar10-resnet110'"):
        recipe("cifar-resnet110")


def test_imagenet_is_section_3_4() -> None:
    imagenet = recipe("imagenet-resnet152")
    assert (
        imagenet.iterations,
        imagenet.batch_size,
        imagenet.batch_size // imagenet.virtual_gpus,
    ) == (600_000, 256, 32)
    assert (imagenet.learning_rate, imagenet.momentum, imagenet.weight_decay) == (0.1, 0.9, 1e-4)
    assert imagenet.augmentation == ScaleCrop(
        size=224, shorter_side=(256, 480), flip=True, colour=0.1
    )
    assert (imagenet.drops, imagenet.plateau, imagenet.warmup) == ((), Plateau(), None)
    assert imagenet.pictures is not None
    assert (imagenet.pictures.resize, imagenet.pictures.mean) == (256, "pixel")


def test_every_net_of_the_tables_has_an_imagenet_recipe() -> None:
    names = set(catalogue())
    plain = {f"imagenet-plain{depth}" for depth in (18, 34)}
    options = {f"imagenet-resnet{depth}-{o}" for depth in (18, 34) for o in "ABC"}
    deep = {f"imagenet-resnet{depth}" for depth in (18, 34, 50, 101, 152)}
    assert plain | options | deep <= names


def test_fixed_drops_can_replace_the_plateau() -> None:
    changed = recipe("imagenet-resnet50").with_changes(["plateau=null", "drops=[0.25, 0.5, 0.75]"])
    assert (changed.plateau, changed.drops) == (None, (0.25, 0.5, 0.75))


@pytest.mark.parametrize("name", ["imagenet-resnet50-3x3", "voc07+12-resnet101-c4"])
def test_looking_up_a_recipe_builds_only_that_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    for kind in (ResNetConfig, Section):

        def counted(self: Any, make: Any = kind.__init__, **fields: Any) -> None:
            built.append(type(self).__name__)
            make(self, **fields)

        monkeypatch.setattr(kind, "__init__", counted)
    looked_up = any_recipe(name)
    assert built.count("ResNetConfig") == 1
    assert built.count(type(looked_up).__name__) == 1


def test_names_of_recipes_are_unique() -> None:
    names = recipe_names()
    assert len(names) == len(set(names))
    assert sorted([*catalogue(), *catalogue("detection")]) == sorted(recipe_names(own=False))
    assert list(catalogue())[:4] == [f"{data}-{net}" for net in ("plain20", "resnet20")
                                     for data in ("digits", "cifar10")]  # fmt: skip


def test_a_recipes_task_is_found_by_its_type() -> None:
    tasks: dict[str, TaskName] = {
        "digits-resnet20": "classification", "coco-resnet50-c4": "detection",
    }  # fmt: skip
    for name, task in tasks.items():
        looked_up = any_recipe(name)
        kind = task_kind(looked_up)
        assert kind is TASK_KINDS[task]
        assert isinstance(looked_up, kind.recipe)
