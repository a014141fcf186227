from pathlib import Path

import pytest
import torch

from reslab.data.datasets import EncodedImages
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe, recipe_names
from reslab.recipes.classification import own_recipe
from reslab.runtime.files import sha256_of

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
