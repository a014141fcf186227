"""Whatever is changed in a model file is refused, or harmless; nothing is built for a lie."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model, load_model, model_bytes, save_model
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.models.resnet import build_resnet
from reslab.runtime.files import TensorFile, sha256_of

CONFIG = ResNetConfig(
    stem="cifar", block="basic", blocks=(1, 1), widths=(2, 4), classes=3, shortcut="A"
)
WARNING = "has no checksum"

PLAIN = {"channels": "RGB", "resize": None, "size": None}


def a_model() -> Model:
    net = build_resnet(CONFIG, torch.Generator().manual_seed(1)).eval()
    return Model(net, ("ant", "bee", "cat"), minus_mean(torch.full((3, 1, 1), 9.0)), {}, [])


def content_of(folder: Path) -> TensorFile:
    (folder / "model.safetensors").write_bytes(model_bytes(a_model()))
    return TensorFile.read(folder / "model.safetensors")


def first_edition(content: TensorFile) -> bytes:
    """Return a file with one entry per fact and no checksum."""
    return save(content.tensors, {key: json.dumps(fact) for key, fact in content.facts.items()})


def flips(data: bytes, count: int) -> Iterator[bytes]:
    """Yield copies of `data` with one bit flipped: half in the header, half anywhere."""
    rng = random.Random(1)
    header = 8 + int.from_bytes(data[:8], "little")
    for number in range(count):
        place = rng.randrange(header if number % 2 else len(data))
        yield data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def opened_or_refused(file: Path) -> Model | str:
    """Return the model, or the message that refuses it; any other exception passes."""
    try:
        return load_model(file)
    except ValueError as error:
        return str(error)
    except RuntimeError as error:
        if "is infinite or NaN" in str(error):
            return str(error)
        raise


def test_a_flipped_bit_is_refused_anywhere(tmp_path: Path) -> None:
    model, file = a_model(), tmp_path / "model.safetensors"
    whole = sha256_of(model.net.state_dict())
    refused = 0
    for changed in flips(model_bytes(model), 400):
        file.write_bytes(changed)
        again = opened_or_refused(file)
        if isinstance(again, Model):  # an E instead of an e in a number
            assert sha256_of(again.net.state_dict()) == whole
            assert again.classes == model.classes
        else:
            assert str(file) in again
            refused += 1
    assert refused >= 398


@pytest.mark.filterwarnings(f"ignore:.*{WARNING}")
def test_a_flipped_bit_in_a_file_without_checksum_is_no_crash(tmp_path: Path) -> None:
    data, file = first_edition(content_of(tmp_path)), tmp_path / "model.safetensors"
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    opened = 0
    for changed in flips(data, 400):
        file.write_bytes(changed)
        model = opened_or_refused(file)
        if isinstance(model, Model):
            assert model(images).shape == (1, 3)
            opened += 1
        else:
            assert str(file) in model
    assert opened


def test_a_file_without_checksum_opens_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "old.safetensors"
    file.write_bytes(first_edition(content_of(tmp_path)))
    with pytest.warns(UserWarning, match=f"old.safetensors .*{WARNING}"):
        model = load_model(file)
    assert sha256_of(model.net.state_dict()) == sha256_of(a_model().net.state_dict())


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("classes", "abc", "classes is 'abc', but must be a list of names"),
        ("classes", ["a", "b"], "2 classes, but the network has 3 outputs"),
        ("classes", ["a", "b", "c", "d"], "4 classes, but the network has 3 outputs"),
        ("classes", ["a", "b", 3], "must be a list of names"),
        ("classes", ["a", "b", "a"], "classes has 'a' twice"),
        ("classes", None, "must be a list of names"),
        ("ids", ["a"], "1 ids, but the network has 3 outputs"),
        ("ids", {"a": 1}, "must be a list of names"),
        ("ids", ["a", "b", "b"], "ids has 'b' twice"),
        ("recipe", ["data"], "recipe is .* must be a dict"),
        ("metrics", {}, "metrics is {}, but must be a list"),
        ("metrics", [1], "must be a list of reports"),
        ("batch_norm_folded", "no", "must be a bool"),
        ("config", "resnet20", "does not fit its own configuration"),
        ("config", None, "does not fit its own configuration"),
        ("preprocessing", [], "channels, resize, size"),
        ("preprocessing", {"channels": "RBG", "resize": None, "size": None}, "'RGB' or 'BGR'"),
        ("preprocessing", {"channels": "RGB", "resize": -1, "size": None}, "resize is -1"),
        ("preprocessing", {"channels": "RGB", "resize": None, "size": 10**9}, "size is 1000000000"),
        ("preprocessing", {"channels": "RGB", "resize": None, "size": "32"}, "size is '32'"),
        ("preprocessing", PLAIN | {"interpolation": "nearest"}, "'bilinear' or 'bicubic'"),
        ("preprocessing", PLAIN | {"as_stored": 1}, "as_stored is 1"),
        ("preprocessing", PLAIN | {"crop": 1}, "channels, resize, size"),
    ],
)
def test_a_fact_that_does_not_fit_is_refused(
    tmp_path: Path, key: str, value: object, reason: str
) -> None:
    content, file = content_of(tmp_path), tmp_path / "model.safetensors"
    file.write_bytes(TensorFile(content.tensors, content.facts | {key: value}).to_bytes())
    with pytest.raises(ValueError, match=reason) as caught:
        load_model(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": [10**9, 10**9]},
        {"blocks": [10**30, 1]},
        {"blocks": [9_000, 9_000]},
        {"blocks": [9_000, 9_000], "stochastic_depth": 0.5},
        {"blocks": [2, 1]},
        {"blocks": [1] * 10_000, "widths": [1] * 10_000},
        {"blocks": ["many", 1]},
        {"blocks": [-1, 1]},
        {"widths": [10**9, 4]},
        {"widths": [1_000_000, 1_000_000]},
        {"classes": 10**9},
        {"classes": 4},
        {"shortcut": "B"},
        {"block": "bottleneck"},
        {"stem": "imagenet"},
        {"norm": {"kind": "none"}},
        {"layers": 3},
        {"dropout": 2},
    ],
)
def test_another_configuration_is_refused_at_once(tmp_path: Path, change: dict[str, Any]) -> None:
    content, file = content_of(tmp_path), tmp_path / "model.safetensors"
    content.facts["config"] |= change
    file.write_bytes(content.to_bytes())
    start = time.monotonic()
    with pytest.raises(ValueError, match="does not fit its own configuration"):
        load_model(file)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["fc.bias", "stem.0.norm.running_var"])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, name: str, value: float
) -> None:
    content, file = content_of(tmp_path), tmp_path / "model.safetensors"
    content.tensors[name][1] = value
    file.write_bytes(content.to_bytes())
    with pytest.raises(RuntimeError, match=f"{file}: {name} is infinite or NaN"):
        load_model(file)


@pytest.mark.parametrize(
    "change", [lambda t: t[None], lambda t: t.bool(), lambda t: t.to(torch.complex64)]
)
def test_a_tensor_of_another_kind_is_refused(tmp_path: Path, change) -> None:
    content, file = content_of(tmp_path), tmp_path / "model.safetensors"
    for name, tensor in content.tensors.items():
        changed = TensorFile(content.tensors | {name: change(tensor)}, content.facts)
        file.write_bytes(changed.to_bytes())
        with pytest.raises(ValueError, match="does not fit its own configuration"):
            load_model(file)


def test_repeated_names_need_ids_that_differ(tmp_path: Path) -> None:
    """ImageNet has two classes called crane."""
    net, colours = build_resnet(CONFIG), Preprocessing.of((1, 2, 3))
    file = tmp_path / "own.safetensors"
    with pytest.raises(ValueError, match="'crane' occurs twice in classes: give ids that differ"):
        save_model(net, ("crane", "crane", "cat"), colours, file)
    save_model(net, ("crane", "crane", "cat"), colours, file, ("n1", "n2", "n3"))
    assert load_model(file).classes == ("crane", "crane", "cat")
