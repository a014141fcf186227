import pytest

from reslab.recipes import catalogue, recipe
from reslab.train.recipe import Warmup


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
    assert (it.pad, it.flip, it.held_out, it.recompute_bn) == (4, True, 0, 200)


def test_only_the_deepest_nets_warm_up() -> None:
    for depth in (20, 32, 44, 56):
        assert recipe(f"cifar10-resnet{depth}").warmup is None
    for depth in (110, 1202):
        warmup = Warmup(learning_rate=0.01, until_train_error=80)
        assert recipe(f"cifar10-resnet{depth}").warmup == warmup


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'cifar10-resnet110'"):
        recipe("cifar-resnet110")
