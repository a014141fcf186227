from pathlib import Path

import pytest
import torch
from tests.field import small_images

from reslab.data.augment import PadAndCrop
from reslab.data.datasets import EncodedImages
from reslab.models.config import ResNetConfig, config_named
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe, recipe_names
from reslab.recipes.own import own_recipe, own_small_recipe
from reslab.runtime.files import sha256_of
from reslab.training.recipe import Warmup

CONFIG = ResNetConfig(
    stem="imagenet", block="basic", blocks=(1, 1), widths=(4, 8), classes=7, shortcut="B",
    pool="padded",
)  # fmt: skip


def images(count: int, classes: int = 2) -> EncodedImages:
    names = tuple("abcdefg"[:classes])
    files = [f"{number}.jpg" for number in range(count)]
    return EncodedImages("train", files, torch.arange(count) % classes, names, names, str.encode)


def weights(folded: bool = False) -> Model:
    mean = minus_mean(torch.zeros(3, 1, 1))
    return Model(build_resnet(CONFIG), tuple("tuvwxyz"), mean, {}, [], folded=folded)


def test_lengths_follow_the_number_of_images() -> None:
    """100 epochs from random weights, 12 from trained ones, in mini-batches of 32."""
    plain = CONFIG.model_copy(update={"pool": "ceil"})
    assert own_recipe("net", plain, images(3200)).iterations == 100 * 100
    assert own_recipe("net", plain, images(3200), weights()).iterations == 12 * 100
    assert own_recipe("net", plain, images(32)).iterations == 1500
    assert own_recipe("net", plain, images(32), weights()).iterations == 150


def test_a_mini_batch_is_never_larger_than_the_set() -> None:
    assert own_recipe("net", CONFIG, images(5)).batch_size == 4
    assert own_recipe("net", CONFIG, images(33)).batch_size == 32


def test_classes_come_from_the_folder_and_the_layout_from_the_weights() -> None:
    plain = CONFIG.model_copy(update={"pool": "ceil", "classes": 1000})
    own = own_recipe("net", plain, images(9, classes=3), weights())
    assert (own.model.classes, own.model.pool) == (3, "padded")
    assert own.weights == sha256_of(weights().net.state_dict())
    assert own.batch_norm == "frozen"
    assert own_recipe("net", plain, images(9, classes=3)).batch_norm == "train"


def test_folded_weights_can_only_be_frozen() -> None:
    own = own_recipe("net", CONFIG, images(9), weights(folded=True))
    assert own.batch_norm == "frozen"


def test_every_imagenet_net_has_an_own_recipe() -> None:
    assert {"own-resnet18", "own-resnet50", "own-resnet152", "own-plain18"} <= set(
        recipe_names(own=True)
    )


def test_images_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name their folder with `data`"):
        recipe("own-resnet18")
    with pytest.raises(ValueError, match="did you mean 'own-resnet152'"):
        recipe("own-resnet153", data=tmp_path)


def test_small_nets_train_on_cifar_10_as_in_the_paper() -> None:
    """Files of CIFAR-10 get Sec. 4.2's recipe; only where the images are differs."""
    for name in ("resnet20", "resnet110"):
        paper = recipe(f"cifar10-{name}")
        own = own_small_recipe(name, paper.model, images(50_000, 5), side=32)
        changed = {line.partition(":")[0] for line in paper.differences(own)}
        changed -= {"name", "data", "model.classes", "warmup.until_train_error"}
        assert all(key.startswith("pictures") for key in changed)
        assert own.pictures is not None
        assert own.pictures.resize == 32


def test_small_nets_are_scaled_to_the_images() -> None:
    config = config_named("resnet110")
    own = own_small_recipe("resnet110", config, images(25_000, 2), side=28)
    assert own.iterations == 32_000
    assert own.augmentation == PadAndCrop(pad=4)  # 3.5, rounded to even
    assert own.warmup == Warmup(until_train_error=44.4, cap=1000)  # 8/9 of guessing's error
    assert own_small_recipe("net", config, images(70_000), side=32).iterations == 64_000
    assert own_small_recipe("net", config, images(9), side=16).batch_size == 8
    assert own_small_recipe("net", config, images(3), side=16).virtual_gpus == 1
    assert own_small_recipe("net", config_named("resnet20"), images(9), side=16).warmup is None


def test_small_nets_are_fine_tuned_with_frozen_statistics() -> None:
    trained = recipe("digits-resnet20")
    mean = minus_mean(torch.zeros(3, 16, 16))
    digits = Model(build_resnet(trained.model), tuple("0123456789"), mean, {}, [])
    own = own_small_recipe("resnet20", trained.model, images(12_800, 2), 32, digits)
    assert own.batch_norm == "frozen"
    assert own.iterations == 12 * 100
    assert own.warmup is None
    assert own.model.classes == 2


def test_the_size_of_small_images_is_read_from_the_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        small_images.images(tmp_path / name, 3)
    own = recipe("own-resnet20", data=tmp_path)
    assert own.pictures is not None
    assert (own.pictures.resize, own.augmentation) == (8, PadAndCrop(pad=1))
    small_images.image(tmp_path / "a" / "0.png", 80, 80)
    small_images.image(tmp_path / "a" / "1.png", 80, 80)
    small_images.image(tmp_path / "a" / "2.png", 80, 80)
    with pytest.raises(ValueError, match=r"80 x 80 pixels: own-resnet20 needs squares"):
        recipe("own-resnet20", data=tmp_path)
