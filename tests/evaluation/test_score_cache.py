"""Cached scores: none is computed twice, and none is used for other weights or images."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.models.kinds import KINDS
from torch import Tensor

from reslab.data.datasets import EncodedImages, ImagesInMemory
from reslab.evaluation.report import Report, classify
from reslab.evaluation.score_cache import ScoreCache, config_json
from reslab.evaluation.views import MultiScale, OneCrop, TenCrop, ViewProtocol
from reslab.models.config import config_named
from reslab.runtime.files import TensorFile


@dataclass
class Watched:
    """A network without weights that counts the images it scores."""

    shown: int = 0
    kinds: list[str] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        self.shown += len(images)
        return images.float()[:, :, 0, 0] / 50

    def dense(self, images: Tensor) -> Tensor:
        self.shown += len(images)
        return images.float() / 50


def forbidden(images: Tensor) -> Tensor:
    raise AssertionError("computed again")


@pytest.fixture
def images(album, photographs) -> EncodedImages:
    return album([*photographs, None], [0, 1, 2, 0, 1, 2])


def evaluate(
    model, images, protocol: ViewProtocol, folder: Path, **how
) -> tuple[Report, list[str]]:
    messages: list[str] = []
    cache = ScoreCache(folder, how.pop("digest", "weights"), how.pop("keep", True))
    report = classify(
        model, images, protocol, score_cache=cache,
        on_event=lambda row: messages.append(row["text"]) if "text" in row else None,
    )  # fmt: skip
    return report, messages


def test_a_full_disk_costs_the_scores_but_not_the_report(
    images: EncodedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    report, messages = evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    assert report == classify(Watched(), images, OneCrop(36, 32))
    (line,) = [line for line in messages if "not kept" in line]
    assert line.startswith(f"scores are not kept: no space left on device: {tmp_path}")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


PROTOCOLS = [OneCrop(36, 32), TenCrop(36, 32), MultiScale((32, 48))]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
def test_cached_scores_give_the_same_report_without_the_model(
    images: EncodedImages, tmp_path: Path, protocol: ViewProtocol, monkeypatch
) -> None:
    fresh = classify(Watched(), images, protocol)
    first, _ = evaluate(Watched(), images, protocol, tmp_path)
    monkeypatch.setattr(EncodedImages, "image", forbidden)
    again, messages = evaluate(forbidden, images, protocol, tmp_path, keep=False)
    assert fresh == first == again
    count = len(protocol.views())
    assert any(f"{count} of {count} views read from cached scores" in line for line in messages)
    assert any(line.startswith("5.png: ") for line in messages)  # bad images are still reported


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        (TenCrop(36, 32), OneCrop(36, 32)),
        (MultiScale((32, 40, 48)), MultiScale((48,), flip=False)),
        (MultiScale((32, 40, 48)), MultiScale((40, 32))),
    ],
    ids=str,
)
def test_a_protocol_whose_views_are_cached_computes_nothing(
    images: EncodedImages, tmp_path: Path, whole: ViewProtocol, part: ViewProtocol
) -> None:
    evaluate(Watched(), images, whole, tmp_path)
    report, _ = evaluate(forbidden, images, part, tmp_path)
    assert report == classify(Watched(), images, part)


def test_only_missing_views_are_computed(images: EncodedImages, tmp_path: Path) -> None:
    evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    model = Watched()
    report, messages = evaluate(model, images, TenCrop(36, 32), tmp_path)
    assert model.shown == 9 * 5
    assert any("1 of 10 views read from cached scores" in line for line in messages)
    assert report == classify(Watched(), images, TenCrop(36, 32))


def test_nothing_is_written_or_read_unless_asked(images: EncodedImages, tmp_path: Path) -> None:
    reads: list[str] = []
    original = images.read

    def read(file: str) -> bytes:
        reads.append(file)
        return original(file)

    watched = EncodedImages("album", images.files, images.labels, images.classes, images.ids, read)
    evaluate(Watched(), watched, OneCrop(36, 32), tmp_path / "scores", keep=False)
    assert not (tmp_path / "scores").exists()
    assert len(reads) == len(images)


def test_scores_of_other_weights_are_not_used(images: EncodedImages, tmp_path: Path) -> None:
    evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    model = Watched()
    _, messages = evaluate(model, images, OneCrop(36, 32), tmp_path, digest="others")
    assert model.shown == 5
    assert any("is not used: it has the scores of another model" in line for line in messages)


@pytest.mark.parametrize("change", ["pixels", "label", "class"])
def test_scores_of_another_set_are_not_used(
    album, photographs, tmp_path: Path, change: str
) -> None:
    labels, classes = [0, 1, 2, 0, 1], ["red", "green", "blue"]
    evaluate(Watched(), album(photographs, labels, classes), OneCrop(36, 32), tmp_path)
    if change == "pixels":
        photographs[3] = np.ascontiguousarray(photographs[3][::-1])
    elif change == "label":
        labels[4] = 2
    else:
        classes[0] = "rot"
    model = Watched()
    evaluate(model, album(photographs, labels, classes), OneCrop(36, 32), tmp_path)
    assert model.shown == 5


def test_a_repaired_image_is_scored(album, photographs, tmp_path: Path) -> None:
    damaged = album([*photographs[:2], None], [0, 1, 2])
    evaluate(Watched(), damaged, OneCrop(36, 32), tmp_path)
    report, _ = evaluate(Watched(), album(photographs[:3], [0, 1, 2]), OneCrop(36, 32), tmp_path)
    assert (report.n, report.skipped) == (3, 0)


def flip_a_byte(data: bytes) -> bytes:
    at = len(data) - 5
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage", [flip_a_byte, lambda data: data[:-9], lambda data: b"", lambda data: b"x" * 64],
    ids=["byte", "cut", "empty", "other"],
)  # fmt: skip
def test_damaged_files_are_computed_again(images: EncodedImages, tmp_path: Path, damage) -> None:
    first, _ = evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    again, messages = evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    assert any("is not used: it is damaged or has no scores" in line for line in messages)
    assert again == first
    assert evaluate(forbidden, images, OneCrop(36, 32), tmp_path)[0] == first


def test_another_models_file_is_not_used(images: EncodedImages, tmp_path: Path) -> None:
    evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    save_file({"something": torch.zeros(3)}, file)
    model = Watched()
    _, messages = evaluate(model, images, OneCrop(36, 32), tmp_path)
    assert model.shown == 5
    assert any("is not used" in line for line in messages)


def test_a_failed_write_leaves_no_partial_file(
    images: EncodedImages, tmp_path: Path, monkeypatch
) -> None:
    def killed(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_scores_of_nets_that_older_versions_know_keep_their_digest() -> None:
    """The JSON of a configuration as it was before norm, stochastic depth and dropout existed."""
    assert config_json(config_named("resnet20")) == (
        '{"stem":"cifar","block":"basic","blocks":[3,3,3],"widths":[16,32,64],"classes":10,'
        '"shortcut":"A","zeros":"end","stride_on":"1x1","pool":"ceil"}'
    )
    jsons = {config_json(config) for config in KINDS.values()}
    assert len(jsons) == len(KINDS)


def test_sets_in_memory_are_identified_by_their_pixels(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8)
    one = ImagesInMemory("test", images, torch.arange(7) % 3, ("a", "b", "c"))
    report, _ = evaluate(Watched(), one, OneCrop(), tmp_path)
    assert evaluate(forbidden, one, OneCrop(), tmp_path)[0] == report
    images = images.clone()
    images[6, 2, 3, 3] += 1
    model = Watched()
    evaluate(model, ImagesInMemory("test", images, one.labels, one.classes), OneCrop(), tmp_path)
    assert model.shown == 7


@pytest.mark.parametrize("change", [lambda t: t.half(), lambda t: t.int(), lambda t: t[:, :2]])
def test_scores_of_another_type_or_shape_are_computed_again(
    images: EncodedImages, tmp_path: Path, change
) -> None:
    first, _ = evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    content = TensorFile.read(file)
    tensors = {name: change(tensor).contiguous() for name, tensor in content.tensors.items()}
    file.write_bytes(TensorFile(tensors, content.facts).to_bytes())
    again, messages = evaluate(Watched(), images, OneCrop(36, 32), tmp_path)
    assert again == first
    assert any("instead of fp32 scores" in line for line in messages)
