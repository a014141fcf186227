from typing import Any

import pytest

from reslab.data.augment import PadAndCrop, ScaleCrop
from reslab.models.config import ResNetConfig
from reslab.recipes import TASK_KINDS, any_recipe, catalogue, recipe, recipe_names, task_kind
from reslab.training.recipe import Plateau, Section, Warmup
from reslab.training.task import TaskName


def test_there_is_a_recipe_for_every_net_of_the_family_on_both_sets() -> None:
    names = set(catalogue())
    for data in ("digits", "cifar10"):
        for depth in (20, 32, 44, 56, 110, 1202):
            assert {f"{data}-plain{depth}", f"{data}-resnet{depth}"} <= names


def test_cifar10_is_section_4_2() -> None:
    it = recipe("cifar10-resnet56")
    assert (it.iterations, it.batch_size, it.virtual_gpus) == (64_000, 128, 2)
    assert (it.learning_rate, it.momentum, it.weight_decay) == (0.1, 0.9, 1e-4)
    assert [round(drop * it.iterations) for drop in it.drops] == [32_000, 48_000]
    assert (it.augmentation, it.held_out, it.recompute_bn) == (PadAndCrop(pad=4, flip=True), 0, 200)


def test_only_the_deepest_nets_warm_up() -> None:
    for depth in (20, 32, 44, 56):
        assert recipe(f"cifar10-resnet{depth}").warmup is None
    for depth in (110, 1202):
        warmup = Warmup(learning_rate=0.01, until_train_error=80)
        assert recipe(f"cifar10-resnet{depth}").warmup == warmup


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'cifar10-resnet110'"):
        recipe("cifar-resnet110")


def test_imagenet_is_section_3_4() -> None:
    it = recipe("imagenet-resnet152")
    assert (it.iterations, it.batch_size, it.batch_size // it.virtual_gpus) == (600_000, 256, 32)
    assert (it.learning_rate, it.momentum, it.weight_decay) == (0.1, 0.9, 1e-4)
    assert it.augmentation == ScaleCrop(size=224, shorter_side=(256, 480), flip=True, colour=0.1)
    assert (it.drops, it.plateau, it.warmup) == ((), Plateau(), None)
    assert it.pictures is not None
    assert (it.pictures.resize, it.pictures.mean) == (256, "pixel")


def test_there_is_an_imagenet_recipe_for_every_net_of_the_tables() -> None:
    names = set(catalogue())
    plain = {f"imagenet-plain{depth}" for depth in (18, 34)}
    options = {f"imagenet-resnet{depth}-{o}" for depth in (18, 34) for o in "ABC"}
    deep = {f"imagenet-resnet{depth}" for depth in (18, 34, 50, 101, 152)}
    assert plain | options | deep <= names


def test_fixed_drops_are_a_change_away() -> None:
    it = recipe("imagenet-resnet50").with_changes(["plateau=null", "drops=[0.25, 0.5, 0.75]"])
    assert (it.plateau, it.drops) == (None, (0.25, 0.5, 0.75))


@pytest.mark.parametrize("name", ["imagenet-resnet50-3x3", "voc07+12-resnet101-c4"])
def test_a_look_up_builds_one_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    for kind in (ResNetConfig, Section):

        def counted(self: Any, make: Any = kind.__init__, **fields: Any) -> None:
            built.append(type(self).__name__)
            make(self, **fields)

        monkeypatch.setattr(kind, "__init__", counted)
    found = any_recipe(name)
    assert built.count("ResNetConfig") == 1
    assert built.count(type(found).__name__) == 1


def test_every_name_is_that_of_one_recipe() -> None:
    names = recipe_names()
    assert len(names) == len(set(names))
    assert sorted([*catalogue(), *catalogue("detection")]) == sorted(recipe_names(own=False))
    assert list(catalogue())[:4] == [f"{data}-{net}" for net in ("plain20", "resnet20")
                                     for data in ("digits", "cifar10")]  # fmt: skip


def test_a_task_brings_its_recipes_and_its_functions() -> None:
    tasks: dict[str, TaskName] = {
        "digits-resnet20": "classification", "coco-resnet50-c4": "detection",
    }  # fmt: skip
    for name, task in tasks.items():
        found = any_recipe(name)
        kind = task_kind(found)
        assert kind is TASK_KINDS[task]
        assert isinstance(found, kind.recipe)
