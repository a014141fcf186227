import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.kinds import KINDS, perturbed
from torch import nn

from reslab.models.config import cifar_config, imagenet_config
from reslab.models.model_file import Model, load_model, model_bytes, save_model
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.models.resnet import build_resnet
from reslab.runtime.files import TensorFile, sha256_of


def a_model() -> Model:
    net = build_resnet(cifar_config(8, "B", classes=3), torch.Generator().manual_seed(1)).eval()
    mean = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2)) * 255
    return Model(
        net, ("ant", "bee", "cat"), minus_mean(mean), {"data": "digits"}, [{"top1_error": 1.5}]
    )


def test_a_model_file_brings_back_the_same_function(tmp_path: Path) -> None:
    model = a_model()
    (tmp_path / "model.safetensors").write_bytes(model_bytes(model))
    again = load_model(tmp_path)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(again(images), model(images), rtol=0, atol=1e-5)
    assert (again.classes, again.recipe, again.metrics) == (
        model.classes,
        model.recipe,
        model.metrics,
    )
    assert again.net.config == model.net.config
    assert sha256_of(again.net.state_dict()) == sha256_of(model.net.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_net_comes_back(tmp_path: Path, kind: str) -> None:
    net = perturbed(KINDS[kind])
    model = Model(net, ("ant", "bee", "cat"), minus_mean(torch.zeros(3, 1, 1)), {}, [])
    (tmp_path / "model.safetensors").write_bytes(model_bytes(model))
    again = load_model(tmp_path)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert again.net.config == net.config
    torch.testing.assert_close(again(images), model(images), rtol=1e-5, atol=1e-4)


def test_a_model_file_without_the_newer_fields_opens(tmp_path: Path) -> None:
    model = a_model()
    file = tmp_path / "model.safetensors"
    file.write_bytes(model_bytes(model))
    content = TensorFile.read(file)
    for key in ("norm", "stochastic_depth", "dropout"):
        del content.facts["config"][key]
    file.write_bytes(content.to_bytes())
    assert load_model(tmp_path).net.config == model.net.config


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"no model", lambda b: b""]
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(damage(model_bytes(a_model())))
    with pytest.raises(ValueError, match="damaged"):
        load_model(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model at"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("pool", ["ceil", "padded"])
@pytest.mark.parametrize("side", [16, 17, 18, 100, 129])
def test_at_its_native_size_a_net_has_one_position(pool, side: int) -> None:
    """Also at sizes that are not multiples of the stride."""
    config = cifar_config(8) if side < 32 else imagenet_config(18).model_copy(update={"pool": pool})
    model = replace(a_model(), net=build_resnet(config).eval())
    model = replace(model, preprocessing=replace(model.preprocessing, resize=side, size=side))
    images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    with torch.no_grad():
        dense = model.dense(images)
        torch.testing.assert_close(dense[:, :, 0, 0], model(images), rtol=1e-3, atol=1e-3)
    assert dense.shape[2:] == (1, 1)
    assert config.map_side(side) == model.resnet.stages(model.resnet.stem(images.float())).shape[-1]


def test_images_below_a_nets_native_size_have_no_position() -> None:
    with pytest.raises(
        ValueError, match=r"images of 20x12 pixels are smaller than .* training images, 16x16"
    ):
        a_model().dense(torch.zeros(1, 3, 20, 12, dtype=torch.uint8))


COLOURS = Preprocessing.of((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), size=16)


def test_a_network_trained_elsewhere_is_saved_and_opens_by_itself(tmp_path: Path) -> None:
    net = a_model().net.train()
    save_model(net, ["ant", "bee", "cat"], COLOURS, tmp_path / "own.safetensors", ["a", "b", "c"])
    model = load_model(tmp_path / "own.safetensors")
    assert (model.classes, model.ids) == (("ant", "bee", "cat"), ("a", "b", "c"))
    assert (model.preprocessing.resize, model.preprocessing.size) == (16, 16)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    expected = net.eval()(COLOURS(images))
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)


def test_any_other_network_is_saved_and_given_again(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2), nn.Softmax(1))

    net, file = build(), tmp_path / "own.safetensors"
    save_model(net, ("a", "b"), Preprocessing.of((1, 2, 3)), file)
    with pytest.raises(ValueError, match=r"holds a network of your own \(Sequential; 98 para"):
        load_model(file)
    model = load_model(file, build())
    images = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(model(images), net(COLOURS.of((1, 2, 3))(images)))
    save_model(a_model().net, ("a", "b", "c"), COLOURS, file)
    with pytest.raises(ValueError, match="describes its network: load it without net"):
        load_model(file, build())


class Shared(nn.Module):
    """A network that uses one layer twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x.mean((2, 3))))


def test_a_network_that_shares_layers_is_saved_too(tmp_path: Path) -> None:
    net, file = Shared(), tmp_path / "own.safetensors"
    save_model(net, "abc", Preprocessing.of((0, 0, 0)), file)
    images = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8)
    expected = net(images.float())
    torch.testing.assert_close(load_model(file, Shared())(images), expected)


@pytest.mark.parametrize(
    ("classes", "ids", "reason"),
    [
        (("a", "b"), (), "2 classes, but the network has 3 outputs"),
        (("a", "b", "c"), ("x",), "1 ids for 3 classes"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    tmp_path: Path, classes: tuple[str, ...], ids: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        save_model(a_model().net, classes, COLOURS, tmp_path / "own.safetensors", ids)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_place_for_a_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder: name a file"):
        save_model(a_model().net, ("a", "b", "c"), COLOURS, tmp_path)


def test_a_pipe_given_as_a_model_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"/pipe: not a regular file but a pipe$"):
        load_model(tmp_path / "pipe")
