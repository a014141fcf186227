"""Imported models compute what the programs compute from which their weights come."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models import references
from tests.models.convert.states import State, a_model, rng, save_npz, saved, torchvision_like

from reslab.models.config import cifar_config
from reslab.models.convert.importer import import_model
from reslab.models.convert.layouts import AKAMASTER, AUTHORS, OWN, TORCHVISION, torchvision_state
from reslab.models.model_file import load_model, model_bytes


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


def refusal(file: Path, name: str, mean: Path | None = None) -> str:
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
    assert "fc.weight is [5, 7], expected [5, 512]; it fits no" in refusal(file, "resnet18")
    saved(small_18 | {"fc.weight": torch.zeros(1, 512), "fc.bias": torch.zeros(1)}, file)
    assert "fc.weight is [1, 512], expected [2, 512]" in refusal(file, "resnet18")
    saved({"encoder.weight": torch.zeros(3)}, file)
    assert "(encoder.weight, ...) match none of the authors' Caffe" in refusal(file, "resnet18")


def test_a_name_or_a_mean_that_does_not_belong(tmp_path: Path, small_18: State) -> None:
    assert "did you mean 'resnet18-B'" in refusal(tmp_path / "nowhere.pth", "resnet1B")
    np.save(tmp_path / "mean.npy", np.full(3, 100.0))
    file = saved(small_18, tmp_path / "w.safetensors")
    assert "leave out `mean`" in refusal(file, "resnet18", tmp_path / "mean.npy")
