"""Weights of others, judged by what their own programs name and compute."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.models import references
from torch import Tensor, nn

from reslab.models.config import ResNetConfig, cifar_config, config_named
from reslab.models.convert.importer import import_model
from reslab.models.convert.layouts import AKAMASTER, AUTHORS, OWN, TORCHVISION, torchvision_state
from reslab.models.model_file import Model, load_model, model_bytes
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet

State = dict[str, Tensor]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_model(config: ResNetConfig, seed: int = 0, **preprocessing) -> Model:
    """A network whose batch norms are all different, with torchvision's preprocessing."""
    net = build_resnet(config, rng(seed)).eval()
    for norm in [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.2, 0.8, generator=rng(seed + 1))
        nn.init.uniform_(norm.bias, -0.5, 0.5, generator=rng(seed + 2))
        channels = norm.num_features
        norm.running_mean = 2 * torch.rand(channels, generator=rng(seed + 3)) - 1
        norm.running_var = 0.5 + torch.rand(channels, generator=rng(seed + 4))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255
    prepared = replace(Preprocessing(mean, std, resize=256, size=224), **preprocessing)
    return Model(net, tuple(map(str, range(config.classes))), prepared, {}, [])


def torchvision_like(name: str, classes: int = 5) -> ResNetConfig:
    update = {"pool": "padded", "classes": classes}
    return config_named(name).model_copy(update=update)


@pytest.fixture(scope="module")
def small_18() -> State:
    """Weights of a ResNet-18 under torchvision's names."""
    return torchvision_state(a_model(torchvision_like("resnet18")))


@pytest.fixture(scope="module")
def authors_50() -> State:
    return references.authors_blobs(50, rng())


def saved(state: State, file: Path) -> Path:
    save_file(state, file)
    return file


def save_npz(state: State, file: Path) -> None:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in state.items()}
    np.savez(file, **arrays)


# torchvision


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("resnet18", 122, 11_689_512),
        ("resnet34", 218, 21_797_672),
        ("resnet50-3x3", 320, 25_557_032),
    ],
)
def test_exported_names_and_shapes_are_torchvisions(name, tensors, parameters) -> None:
    expected = references.torchvision_shapes(int(name[6:8]))
    assert len(expected) == tensors
    learned = [s for n, s in expected.items() if "running" not in n and "tracked" not in n]
    assert sum(torch.Size(shape).numel() for shape in learned) == parameters
    state = torchvision_state(a_model(torchvision_like(name, 1000)))
    assert {n: tuple(tensor.shape) for n, tensor in state.items()} == expected
    assert all(tensor.is_contiguous() for tensor in state.values())
    assert {t.dtype for n, t in state.items() if "tracked" in n} == {torch.int64}


@pytest.mark.parametrize("name", ["resnet18", "resnet50-3x3"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_torchvisions_code_computes_the_same_with_exported_weights(name, channels) -> None:
    model = a_model(torchvision_like(name), channels=channels)
    images = torch.randint(0, 256, (2, 3, 128, 112), dtype=torch.uint8, generator=rng(9))
    normalised = (images - model.preprocessing.mean) / model.preprocessing.std
    with torch.no_grad():
        scores = references.torchvision_net(torchvision_state(model), normalised)
        torch.testing.assert_close(model(images), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50-3x3"])
def test_import_export_import_gives_equal_tensors(tmp_path: Path, name: str) -> None:
    model = a_model(torchvision_like(name))
    first = saved(torchvision_state(model), tmp_path / "first.safetensors")
    imported = import_model(first, name.removesuffix("-3x3"))
    assert imported.layout is TORCHVISION
    assert imported.model.net.config == model.net.config
    again = torchvision_state(imported.model)
    torch.save(again, tmp_path / "again.pth")
    twice = import_model(tmp_path / "again.pth", name).model
    for one, other in [
        (imported.model.net.state_dict(), model.net.state_dict()),
        (twice.net.state_dict(), model.net.state_dict()),
    ]:
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_torchvision_decides_stride_pooling_and_preprocessing(tmp_path: Path) -> None:
    state = torchvision_state(a_model(torchvision_like("resnet50-3x3")))
    imported = import_model(saved(state, tmp_path / "w.safetensors"), "resnet50")
    assert imported.decided == {"stride_on": "3x3", "pool": "padded"}
    config = imported.model.net.config
    assert (config.stride_on, config.pool, config.classes) == ("3x3", "padded", 5)
    prepared = imported.model.preprocessing
    assert prepared.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert prepared.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert (prepared.channels, prepared.resize, prepared.size) == ("RGB", 256, 224)


def test_wrappers_prefixes_and_left_out_counts(tmp_path: Path, small_18: State) -> None:
    state = {name: tensor for name, tensor in small_18.items() if "tracked" not in name}
    wrapped = {f"module._orig_mod.model.{name}": tensor.half() for name, tensor in state.items()}
    torch.save({"epoch": 3, "model": {"state_dict": wrapped}}, tmp_path / "w.pt")
    model = import_model(tmp_path / "w.pt", "resnet18").model
    own = model.net.state_dict()
    assert torch.equal(own["fc.weight"], state["fc.weight"].half().float())
    assert own["stem.0.norm.num_batches_tracked"] == 0
    assert {tensor.dtype for tensor in own.values()} == {torch.float32, torch.int64}


def test_folded_batch_norm_is_seen_and_kept(tmp_path: Path, small_18: State) -> None:
    folded = dict(small_18)
    for name, tensor in small_18.items():
        if "running" in name:
            folded[name] = torch.full_like(tensor, float(name.endswith("var")))
    model = import_model(saved(folded, tmp_path / "w.safetensors"), "resnet18").model
    assert model.folded
    (tmp_path / "m.safetensors").write_bytes(model_bytes(model))
    assert load_model(tmp_path / "m.safetensors").folded
    untrained = {n: t * 0 if n.endswith("bias") else t for n, t in folded.items()}
    assert not import_model(saved(untrained, tmp_path / "u.safetensors"), "resnet18").model.folded
    folded["layer3.1.bn2.running_mean"][7] = 0.01
    assert not import_model(saved(folded, tmp_path / "w.safetensors"), "resnet18").model.folded


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("resnet50", {"pool": "padded"}, "stride on the 3x3"),
        ("resnet18", {}, "first pooling is padded"),
        ("resnet18-A", {"pool": "padded"}, "option A"),
        ("resnet18-C", {"pool": "padded"}, "option C"),
        ("plain18", {"pool": "padded"}, "are none"),
        ("resnet20", {}, "CIFAR"),
    ],
)
def test_what_torchvision_cannot_compute_is_not_exported(name, change, reason) -> None:
    config = config_named(name).model_copy(update=change | {"classes": 3})
    with pytest.raises(ValueError, match=reason):
        torchvision_state(a_model(config))


# akamaster


def akamaster_state(n: int = 1) -> State:
    """The names of pytorch_resnet_cifar10/resnet.py, as DataParallel saves them."""
    own = a_model(cifar_config(6 * n + 2)).net.state_dict()
    state = {}
    for name, tensor in own.items():
        name = re.sub(r"^stem\.0\.conv", "conv1", name)
        name = re.sub(r"^stem\.0\.norm", "bn1", name)
        for index, number in ((0, 1), (2, 2)):
            where = rf"^stages\.(\d)\.(\d+)\.body\.{index}"
            for ours, theirs in (("conv", "conv"), ("norm", "bn")):
                name = re.sub(
                    rf"{where}\.{ours}",
                    lambda m, t=f"{theirs}{number}": f"layer{int(m[1]) + 1}.{m[2]}.{t}",
                    name,
                )
        state[f"module.{name.replace('fc.', 'linear.')}"] = tensor
    return state


def test_akamaster_decides_zeros_and_preprocessing(tmp_path: Path) -> None:
    torch.save({"state_dict": akamaster_state(3), "best_prec1": 91.7}, tmp_path / "w.th")
    imported = import_model(tmp_path / "w.th", "resnet20")
    assert imported.layout is AKAMASTER
    assert imported.decided == {"zeros": "both"}
    assert imported.model.net.config == cifar_config(20).model_copy(update={"zeros": "both"})
    prepared = imported.model.preprocessing
    assert prepared.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert prepared.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert (prepared.channels, prepared.resize, prepared.size) == ("RGB", 32, 32)


# the authors


def test_the_authors_net_is_what_caffe_computes(tmp_path: Path, authors_50: State) -> None:
    """Blue first, mean image, bias and scale factor, pooling, stride: all in the scores."""
    mean = 100 + 50 * torch.rand(3, 128, 128, generator=rng(5))  # blue, green, red
    save_npz(authors_50 | {"mean": mean}, tmp_path / "w.npz")
    imported = import_model(tmp_path / "w.npz", "resnet50")
    assert imported.layout is AUTHORS
    assert imported.decided == {"stride_on": "1x1", "pool": "ceil"}
    assert not imported.model.folded
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8, generator=rng(6))
    expected = references.authors_net(authors_50, 50, images.flip(1) - mean)
    with torch.no_grad():
        scores = imported.model(images).double()
    assert expected.std() > 0.1
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("between", ["_", "."])
def test_blobs_may_be_written_in_other_ways(tmp_path: Path, authors_50: State, between) -> None:
    state = {name.replace("/", between): blob for name, blob in authors_50.items()}
    model = import_model(saved(state, tmp_path / "w.safetensors"), "resnet50").model
    own = model.net.state_dict()
    assert torch.equal(own["fc.bias"], authors_50["fc1000/1"])
    folded = authors_50["bn_conv1/0"] / 4 - authors_50["conv1/1"]
    torch.testing.assert_close(own["stem.0.norm.running_mean"], folded)
    assert model.preprocessing.channels == "BGR"
    # the published average, red first as every mean here
    assert model.preprocessing.mean.flatten().tolist() == pytest.approx(
        [123.1516, 115.9029, 103.0626]
    )
    assert model.preprocessing.std.flatten().tolist() == [1, 1, 1]


def test_a_mean_file_is_blue_first(tmp_path: Path, authors_50: State) -> None:
    file = saved(authors_50, tmp_path / "w.safetensors")
    np.save(tmp_path / "mean.npy", np.array([101.0, 102.0, 103.0]))
    model = import_model(file, "resnet50", mean=tmp_path / "mean.npy").model
    assert model.preprocessing.mean.flatten().tolist() == [103, 102, 101]


@pytest.mark.parametrize("depth", [101, 152])
def test_the_deeper_nets_number_their_middle_stages(depth: int) -> None:
    from reslab.models.resnet import ResNet

    net = ResNet(config_named(f"resnet{depth}"))
    names = AUTHORS.names(net)
    shapes = {names[own]: tuple(t.shape) for own, t in net.state_dict().items() if own in names}
    convolutions = {f"{n}/0": shape for n, _, shape in references.authors_convolutions(depth)}
    assert convolutions.items() <= shapes.items()
    norms = {f"bn{s}/{i}" for _, s, _ in references.authors_convolutions(depth) for i in "01"}
    scales = {f"scale{n.removeprefix('bn')}" for n in norms}
    assert shapes.keys() == convolutions.keys() | norms | scales | {"fc1000/0", "fc1000/1"}


def test_a_lost_scale_factor_is_named(tmp_path: Path, authors_50: State) -> None:
    lacking = {name: blob for name, blob in authors_50.items() if name != "bn3b_branch2b/2"}
    with pytest.raises(ValueError, match="bn3b_branch2b has to have three blobs"):
        import_model(saved(lacking, tmp_path / "w.safetensors"), "resnet50")


# our own


def test_our_own_names_need_a_mean(tmp_path: Path) -> None:
    model = a_model(cifar_config(20, "B", classes=4))
    file = saved(dict(model.net.state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="--mean"):
        import_model(file, "resnet20-B")
    np.save(tmp_path / "mean.npy", np.full((3, 32, 32), 120.0))
    imported = import_model(file, "resnet20-B", mean=tmp_path / "mean.npy")
    assert (imported.layout, imported.decided) == (OWN, {})
    assert imported.model.net.config == model.net.config
    assert imported.model.preprocessing.mean.shape == (3, 32, 32)
    assert imported.model.classes == ("0", "1", "2", "3")


# what does not fit


def refusal(file: Path, name: str, mean: Path | None = None) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        import_model(file, name, mean)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_depth_is_told_by_names_and_the_one_that_fits(tmp_path, small_18) -> None:
    file = saved(small_18, tmp_path / "w.safetensors")
    reported = refusal(file, "resnet34")
    assert reported.startswith(
        f"{file} is not resnet34: 80 weights are missing (layer1.2.conv1.weight,"
    )
    assert reported.endswith("0 too many; it fits resnet18")
    reported = refusal(file, "resnet50")
    assert "layer1.0.conv1.weight is [64, 64, 3, 3], expected [64, 64, 1, 1]" in reported
    assert "nets with the imagenet stem; resnet20 has the cifar stem" in refusal(file, "resnet20")


def test_a_weight_too_many_too_few_or_of_another_shape(tmp_path, small_18) -> None:
    file = tmp_path / "w.safetensors"
    saved(small_18 | {"aux.weight": torch.zeros(2)}, file)
    assert "0 weights are missing, 1 too many (aux.weight); it fits no" in refusal(file, "resnet18")
    saved({n: t for n, t in small_18.items() if n != "layer4.1.bn2.running_var"}, file)
    assert "1 weight is missing (layer4.1.bn2.running_var), 0" in refusal(file, "resnet18")
    saved(small_18 | {"fc.weight": torch.zeros(5, 7)}, file)
    assert "fc.weight is [5, 7], expected [5, 512]; it fits no" in refusal(file, "resnet18")
    saved(small_18 | {"fc.weight": torch.zeros(1, 512), "fc.bias": torch.zeros(1)}, file)
    assert "fc.weight is [1, 512], expected [2, 512]" in refusal(file, "resnet18")
    saved({"encoder.weight": torch.zeros(3)}, file)
    assert "(encoder.weight, ...) are not the authors' Caffe" in refusal(file, "resnet18")


def test_values_that_are_no_weights(tmp_path: Path, small_18: State) -> None:
    file = tmp_path / "w.pth"
    torch.save(small_18 | {"bn1.bias": torch.full((64,), torch.nan)}, file)
    assert "'bn1.bias' holds values that are not numbers" in refusal(file, "resnet18")
    torch.save(small_18 | {"bn1.bias": torch.zeros(64, dtype=torch.int8)}, file)
    assert "'bn1.bias' holds torch.int8 numbers" in refusal(file, "resnet18")
    torch.save(small_18 | {"epoch": 3}, file)
    assert "'epoch' is a int, not a tensor" in refusal(file, "resnet18")
    torch.save([torch.zeros(2)], file)
    assert "holds a list instead of named tensors" in refusal(file, "resnet18")


class Innocent:
    """What a pickle would have to be trusted for."""


def test_a_pickle_that_needs_more_than_weights_is_refused(tmp_path, small_18) -> None:
    torch.save({"state_dict": small_18, "args": Innocent()}, tmp_path / "w.pth")
    reported = refusal(tmp_path / "w.pth", "resnet18")
    assert "Innocent to be opened, which could run code, and is refused" in reported


def test_an_npz_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.array([{}], dtype=object))
    assert "Object arrays cannot be loaded" in refusal(tmp_path / "w.npz", "resnet18")


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "npz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_files_that_are_no_weights_are_one_line(tmp_path, suffix, damage) -> None:
    state = {"conv1.weight": torch.rand(64, 3, 7, 7)}
    file = tmp_path / f"w.{suffix}"
    if suffix == "npz":
        save_npz(state, file)
    else:
        save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    data = file.read_bytes()
    file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"hello\nworld"}[damage])
    assert "damaged one" in refusal(file, "resnet18")


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    assert refusal(tmp_path / "w.pth", "resnet18") == f"no file {tmp_path / 'w.pth'}"
    for suffix in (".xz", ".onnx"):
        (tmp_path / f"w{suffix}").write_bytes(b"x")
    assert "first `xz -dk" in refusal(tmp_path / "w.xz", "resnet18")
    assert ".safetensors, .pth, .pt, .th, .npz" in refusal(tmp_path / "w.onnx", "resnet18")
    (tmp_path / "m.safetensors").write_bytes(model_bytes(a_model(cifar_config(8))))
    assert "already" in refusal(tmp_path / "m.safetensors", "resnet20")
    assert "did you mean 'resnet18-B'" in refusal(tmp_path / "m.safetensors", "resnet1B")


def test_a_mean_that_is_none_is_refused(tmp_path: Path, authors_50: State, small_18) -> None:
    file = saved(authors_50, tmp_path / "w.safetensors")
    mean = tmp_path / "mean.npy"
    for array, reason in [
        (np.zeros((4, 5)), "[4, 5]"),
        (np.full(3, 0.5), "not of 0-255"),
        (np.full(3, np.inf), "not of 0-255"),
    ]:
        np.save(mean, array)
        assert reason in refusal(file, "resnet50", mean)
    mean.write_bytes(b"no array")
    assert "damaged one" in refusal(file, "resnet50", mean)
    assert "no file" in refusal(file, "resnet50", tmp_path / "other.npy")
    np.save(mean, np.full(3, 100.0))
    other = saved(small_18, tmp_path / "other.safetensors")
    assert "leave out --mean" in refusal(other, "resnet18", mean)
