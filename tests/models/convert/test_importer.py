"""Imported models compute what the programs compute from which their weights come."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models import references
from tests.models.convert.states import State, a_model, rng, save_npz, saved, torchvision_like
from torch import Tensor

from reslab.models.config import ResNetConfig, cifar_config, config_named
from reslab.models.convert.importer import import_model, import_to_start
from reslab.models.convert.layouts import (
    AKAMASTER,
    AUTHORS,
    HUGGING_FACE,
    OWN,
    SEQUENCE,
    TORCHVISION,
    torchvision_state,
)
from reslab.models.model_file import Model, load_model, model_bytes
from reslab.models.resnet import ResNet


def test_import_export_import_gives_equal_tensors(tmp_path: Path) -> None:
    model = a_model(torchvision_like("resnet50-3x3"))
    first = saved(torchvision_state(model), tmp_path / "first.safetensors")
    imported = import_model(first, "resnet50")
    assert imported.layout is TORCHVISION
    assert imported.decided == {"stride_on": "3x3", "pool": "padded"}
    config = imported.model.config
    assert config == model.config
    assert (config.stride_on, config.pool, config.classes) == ("3x3", "padded", 5)
    torch.save(torchvision_state(imported.model), tmp_path / "again.pth")
    again = import_model(tmp_path / "again.pth", "resnet50-3x3").model
    weights = model.net.state_dict()
    for state in (imported.model.net.state_dict(), again.net.state_dict()):
        assert state.keys() == weights.keys()
        assert all(torch.equal(state[name], weights[name]) for name in weights)


def test_torchvisions_names_decide_the_preprocessing(tmp_path: Path, small_18: State) -> None:
    imported = import_model(saved(small_18, tmp_path / "w.safetensors"), "resnet18")
    assert imported.decided == {"pool": "padded"}
    prepared = imported.model.preprocessing
    assert prepared.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert prepared.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert (prepared.channels, prepared.resize, prepared.size) == ("RGB", 256, 224)


def test_wrappers_prefixes_and_left_out_counts(tmp_path: Path, small_18: State) -> None:
    state = {name: tensor for name, tensor in small_18.items() if "tracked" not in name}
    wrapped = {f"module._orig_mod.model.{name}": tensor.half() for name, tensor in state.items()}
    torch.save({"epoch": 3, "model": {"state_dict": wrapped}}, tmp_path / "w.pt")
    model = import_model(tmp_path / "w.pt", "resnet18").model
    weights = model.net.state_dict()
    assert torch.equal(weights["fc.weight"], state["fc.weight"].half().float())
    assert weights["stem.0.norm.num_batches_tracked"] == 0
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}


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


def akamaster_state(n: int = 1) -> State:
    """Return a state dict with the names of pytorch_resnet_cifar10/resnet.py under DataParallel."""
    weights = a_model(cifar_config(6 * n + 2)).net.state_dict()
    state = {}
    for name, tensor in weights.items():
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
    assert imported.model.config == cifar_config(20).model_copy(update={"zeros": "both"})
    prepared = imported.model.preprocessing
    assert prepared.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert prepared.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert (prepared.channels, prepared.resize, prepared.size) == ("RGB", 32, 32)


def test_the_authors_net_is_what_caffe_computes(tmp_path: Path, authors_50: State) -> None:
    """Channel order, mean image, bias, scale factor, pooling and stride all affect the scores."""
    mean = 100 + 50 * torch.rand(3, 128, 128, generator=rng(5))  # BGR
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
    weights = model.net.state_dict()
    assert torch.equal(weights["fc.bias"], authors_50["fc1000/1"])
    mean = authors_50["bn_conv1/0"] / 4 - authors_50["conv1/1"]
    torch.testing.assert_close(weights["stem.0.norm.running_mean"], mean)
    assert model.preprocessing.channels == "BGR"
    # the published average, in RGB order as all means in reslab
    assert model.preprocessing.mean.flatten().tolist() == pytest.approx(
        [123.1516, 115.9029, 103.0626]
    )
    assert model.preprocessing.std.flatten().tolist() == [1, 1, 1]


def test_a_mean_file_is_blue_first(tmp_path: Path, authors_50: State) -> None:
    file = saved(authors_50, tmp_path / "w.safetensors")
    np.save(tmp_path / "mean.npy", np.array([101.0, 102.0, 103.0]))
    model = import_model(file, "resnet50", mean=tmp_path / "mean.npy").model
    assert model.preprocessing.mean.flatten().tolist() == [103, 102, 101]


def test_a_lost_scale_factor_is_named(tmp_path: Path, authors_50: State) -> None:
    lacking = {name: blob for name, blob in authors_50.items() if name != "bn3b_branch2b/2"}
    with pytest.raises(ValueError, match="bn3b_branch2b must have three blobs"):
        import_model(saved(lacking, tmp_path / "w.safetensors"), "resnet50")


def test_our_own_names_need_a_mean(tmp_path: Path) -> None:
    model = a_model(cifar_config(20, "B", classes=4))
    file = saved(dict(model.net.state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="`mean`"):
        import_model(file, "resnet20-B")
    np.save(tmp_path / "mean.npy", np.full((3, 32, 32), 120.0))
    imported = import_model(file, "resnet20-B", mean=tmp_path / "mean.npy")
    assert (imported.layout, imported.decided) == (OWN, {})
    assert imported.model.config == model.config
    assert imported.model.preprocessing.mean.shape == (3, 32, 32)
    assert imported.model.classes == ("0", "1", "2", "3")


def refusal(file: Path, name: str | None = None, mean: Path | None = None) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        import_model(file, name, mean)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_depth_is_refused_with_names_and_the_depth_that_fits(tmp_path, small_18) -> None:
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
    assert "fc.weight is [5, 7], but the trunk has 512 features" in refusal(file, "resnet18")
    saved(small_18 | {"fc.weight": torch.zeros(1, 512), "fc.bias": torch.zeros(1)}, file)
    assert "fc has one output, but a classifier has one per class" in refusal(file, "resnet18")
    saved({"encoder.weight": torch.zeros(3)}, file)
    assert "(encoder.weight, ...) match none of the authors' Caffe" in refusal(file, "resnet18")


def test_a_name_or_a_mean_that_does_not_belong(tmp_path: Path, small_18: State) -> None:
    assert "did you mean 'resnet18-B'" in refusal(tmp_path / "nowhere.pth", "resnet1B")
    np.save(tmp_path / "mean.npy", np.full(3, 100.0))
    file = saved(small_18, tmp_path / "w.safetensors")
    assert "leave out `mean`" in refusal(file, "resnet18", tmp_path / "mean.npy")


def logits(model: Model) -> Tensor:
    images = torch.randint(0, 256, (2, 3, 128, 112), dtype=torch.uint8, generator=rng(7))
    with torch.no_grad():
        return model(images)


def hugging_face(name: str) -> str:
    """Return the name in transformers of a tensor that torchvision calls `name`."""
    kind = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    if found := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"resnet.embedder.embedder.{kind[found[1]]}.{found[2]}"
    block = r"layer(\d)\.(\d+)\."
    if found := re.fullmatch(block + r"(conv|bn)(\d)\.(\w+)", name):
        place = f"resnet.encoder.stages.{int(found[1]) - 1}.layers.{found[2]}"
        return f"{place}.layer.{int(found[4]) - 1}.{kind[found[3]]}.{found[5]}"
    if found := re.fullmatch(block + r"downsample\.(\d)\.(\w+)", name):
        place = f"resnet.encoder.stages.{int(found[1]) - 1}.layers.{found[2]}"
        return f"{place}.shortcut.{kind[found[3]]}.{found[4]}"
    return name.replace("fc.", "classifier.1.")


def in_sequence(name: str) -> str:
    """Return the name in `nn.Sequential(nn.Sequential(*children[:-1]), head)`, as fastai saves."""
    first, _, rest = name.partition(".")
    if first == "fc":
        return f"1.3.{rest}"
    number = {"conv1": 0, "bn1": 1, **{f"layer{stage}": 3 + stage for stage in range(1, 5)}}[first]
    return f"0.{number}.{rest}"


def test_every_layout_gives_the_logits_of_the_plain_file(tmp_path: Path, small_18: State) -> None:
    plain = import_model(saved(small_18, tmp_path / "plain.safetensors"), "resnet18").model
    expected = logits(plain)
    for count, (rename, layout) in enumerate(
        [
            (hugging_face, HUGGING_FACE),
            (in_sequence, SEQUENCE),
            (lambda n: f"head.{n}" if n.startswith("fc.") else f"backbone.{n}", TORCHVISION),
            (lambda n: f"model.{n}", TORCHVISION),
            (lambda n: n.replace("fc.", "last_linear."), TORCHVISION),
        ]
    ):
        file = tmp_path / f"{count}.ckpt"
        state = {rename(name): tensor for name, tensor in small_18.items()}
        torch.save({"state_dict": state, "hyper_parameters": {"lr": 0.1}}, file)
        imported = import_model(file)
        assert (imported.network, imported.layout) == ("resnet18", layout)
        assert torch.equal(logits(imported.model), expected)


def test_a_checkpoint_wrapped_five_times_gives_the_logits_of_the_plain_file(
    tmp_path: Path, small_18: State
) -> None:
    plain = import_model(saved(small_18, tmp_path / "plain.safetensors"), "resnet18").model
    state: object = {f"module._orig_mod.{name}": tensor for name, tensor in small_18.items()}
    for wrapper in ("state_dict", "model", "net", "ema", "checkpoint"):
        state = {wrapper: state, "epoch": 3}
    torch.save(state, tmp_path / "wrapped.pth.tar")
    wrapped = import_model(tmp_path / "wrapped.pth.tar")
    assert torch.equal(logits(wrapped.model), logits(plain))
    assert wrapped.left_out == ()


def test_hugging_faces_stride_may_be_on_the_1x1(tmp_path: Path) -> None:
    model = a_model(config_named("resnet50").model_copy(update={"pool": "padded", "classes": 5}))
    twin = model.config.model_copy(update={"stride_on": "3x3"})
    state = torchvision_state(replace(model, net=with_config(model, twin)))
    names = {"id2label": {str(number): name for number, name in enumerate("abcde")}}
    saved({hugging_face(n): t for n, t in state.items()}, tmp_path / "model.safetensors")
    for stride_on, facts in (("3x3", names), ("1x1", names | {"downsample_in_bottleneck": True})):
        (tmp_path / "config.json").write_text(json.dumps(facts))
        imported = import_model(tmp_path / "model.safetensors")
        assert imported.decided == {"stride_on": stride_on, "pool": "padded"}
        assert imported.network == "resnet50"
        assert imported.model.classes == ("a", "b", "c", "d", "e")
    torch.testing.assert_close(logits(imported.model), logits(model))


def with_config(model: Model, config: ResNetConfig) -> ResNet:
    net = ResNet(config).eval()
    net.load_state_dict(model.net.state_dict())
    return net


def test_what_is_left_out_is_named(tmp_path: Path, small_18: State) -> None:
    state = {f"net.{name}": tensor for name, tensor in small_18.items()}
    beside = {"criterion.weight": torch.ones(5), "train_acc.correct": torch.tensor(3)}
    counters = {"net.total_ops": torch.ones(1), "net.layer1.0.total_params": torch.ones(1)}
    torch.save({"state_dict": state | beside | counters}, tmp_path / "w.ckpt")
    left_out = import_model(tmp_path / "w.ckpt", "resnet18").left_out
    assert set(left_out) == {
        "state_dict.criterion", "state_dict.train_acc", "state_dict.net.total_ops",
        "layer1.0.total_params",
    }  # fmt: skip


def test_what_is_beside_an_outer_classifier_is_named_once(tmp_path: Path, small_18: State) -> None:
    state = {n if "fc." in n else f"backbone.{n}": tensor for n, tensor in small_18.items()}
    torch.save({"state_dict": state | {"criterion.weight": torch.ones(5)}}, tmp_path / "w.ckpt")
    assert import_model(tmp_path / "w.ckpt").left_out == ("state_dict.criterion",)


def test_without_a_classifier_only_a_run_can_start_from_it(tmp_path: Path, small_18: State) -> None:
    headless = {name: tensor for name, tensor in small_18.items() if "fc." not in name}
    file = saved(headless, tmp_path / "w.safetensors")
    assert "it has no classifier; `reslab train` can start from it" in refusal(file, "resnet18")
    imported = import_to_start(file)
    weights = imported.model.net.state_dict()
    assert not weights["fc.weight"].any()
    assert torch.equal(weights["stem.0.conv.weight"], small_18["conv1.weight"])
    assert not imported.model.has_names
    assert imported.notes == ("it has no classifier: a new one is trained",)


def test_networks_that_only_resemble_ours_are_refused_by_what_differs(tmp_path, small_18) -> None:
    file = tmp_path / "w.safetensors"
    grey = {"conv1.weight": small_18["conv1.weight"].sum(1, keepdim=True)}
    saved(small_18 | grey, file)
    assert "conv1.weight takes images with 1 channel, but" in refusal(file)
    deep = {n: t for n, t in small_18.items() if n != "conv1.weight"}
    saved(deep | {"conv1.0.weight": torch.zeros(32, 3, 3, 3)}, file)
    assert "nearest is resnet18, but 1 weight is missing (conv1.weight), 1 too many" in refusal(
        file
    )
    saved(small_18 | {"layer1.0.se.fc1.weight": torch.zeros(4, 64, 1, 1)}, file)
    assert "1 too many (layer1.0.se.fc1.weight)" in refusal(file)
    saved(small_18 | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, file)
    assert "conv1.weight is [64, 3, 3, 3], expected [64, 3, 7, 7]" in refusal(file)


def test_two_networks_with_the_same_tensors_must_be_named(tmp_path: Path) -> None:
    """Neither option A nor a plain net has weights in its shortcuts."""
    file = saved(dict(a_model(cifar_config(20)).net.state_dict()), tmp_path / "w.safetensors")
    assert "fits plain20 and resnet20: name one with `reslab import --as`" in refusal(file)
