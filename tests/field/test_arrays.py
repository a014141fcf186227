"""Sets of arrays, as people save them, from the command: train, evaluate, resume, check, pack."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.field.small_images import image
from tests.field.test_resume import resume, stop_after, weights_of
from tests.training.walls import TINY

from reslab import train
from reslab.cli import main
from reslab.data.digits import load_digits
from reslab.data.folder import open_folder
from reslab.models.model_file import load_model
from reslab.recipes import recipe
from reslab.training.run import Interrupted

SHORT = [
    "iterations=6", "batch_size=8", "eval_every=3", "checkpoint_every=2", "recompute_bn=2",
    "model.widths=[4, 4, 8]", "model.blocks=[1, 1, 1]",
]  # fmt: skip
CHANGES = [word for change in SHORT for word in ("--set", change)]


def mnist(place: Path, side: int = 28) -> Path:
    """Write a small set like MNIST's: grey images, whose brightness depends on their class."""
    rng = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.uint8) % 3
    noise = rng.integers(0, 40, (60, side, side))
    images = (noise + 70 * labels[:, None, None]).astype(np.uint8)
    place.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        place, x_train=images[:45], y_train=labels[:45], x_test=images[45:], y_test=labels[45:]
    )
    return place


def reslab(*words: object) -> None:
    """Call the command; raise SystemExit if it fails."""
    assert main([str(word) for word in words]) == 0


def reported(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the only report in the command's JSON."""
    (report,) = json.loads(capsys.readouterr().out)
    return report


def test_a_run_on_arrays_has_the_bits_of_the_run_on_the_same_images(tmp_path: Path) -> None:
    """The digits are trained on as a built-in set, and as the user's arrays."""
    digits = load_digits()
    np.savez(
        tmp_path / "digits.npz",
        **{  # pyrefly: ignore
            f"{kind}_{part}": values.numpy()
            for part, images in (("train", digits.train), ("test", digits.test))
            for kind, values in (("x", images.images[:, 0]), ("y", images.labels))
        },
    )
    changes = [*SHORT, "augmentation.pad=2", "augmentation.flip=false", "warmup=null"]
    built_in = recipe("digits-resnet20").with_changes(changes)
    own = recipe("own-resnet20", data=tmp_path / "digits.npz").with_changes(changes)
    assert own.augmentation == built_in.augmentation
    train(built_in, tmp_path / "a", on_event=None)
    train(own, tmp_path / "b", data=tmp_path / "digits.npz", on_event=None)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    first, second = (load_model(tmp_path / name) for name in "ab")
    assert torch.equal(first.preprocessing.mean, second.preprocessing.mean)
    errors = [[report["top1_error"] for report in model.metrics] for model in (first, second)]
    assert errors[0] == errors[1]


def test_a_small_net_is_trained_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = mnist(tmp_path / "mnist.npz"), tmp_path / "run"
    reslab("train", "own-resnet20", "--data", data, "--out", out, *CHANGES)
    capsys.readouterr()
    reslab("evaluate", out, "--json")
    result = reported(capsys)
    reslab("evaluate", out, "--data", data, "--json")
    again = reported(capsys)
    assert result["n"] == again["n"] == 15
    assert result["top1_error"] == again["top1_error"]
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((300, 200, 3), 150, np.uint8)).save(photo)
    reslab("predict", out, photo)
    assert "photo.png" in capsys.readouterr().out
    model = load_model(out)
    assert (model.classes, model.ids) == (("0", "1", "2"), ("0", "1", "2"))
    assert (model.preprocessing.resize, model.preprocessing.size) == (28, 28)


def test_a_stopped_run_resumes_with_the_same_bits_and_notes_changes(tmp_path: Path) -> None:
    data = mnist(tmp_path / "mnist.npz")
    own = recipe("own-resnet20", data=data).with_changes(SHORT)
    train(own, tmp_path / "unbroken", data=data, on_event=None)
    for name in ("stopped", "changed"):
        with pytest.raises(Interrupted):
            train(own, tmp_path / name, data=data, on_event=None, stop=stop_after(4))
    assert resume(tmp_path / "stopped") == []
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "unbroken")
    arrays = dict(np.load(data))
    arrays["x_train"][[3, 5], 0, 0] ^= 255
    np.savez(data, **arrays)  # pyrefly: ignore
    assert resume(tmp_path / "changed") == ["2 changed"]


def test_images_of_another_size_do_not_resume_a_run(tmp_path: Path) -> None:
    data = mnist(tmp_path / "mnist.npz")
    own = recipe("own-resnet20", data=data).with_changes(SHORT)
    with pytest.raises(Interrupted):
        train(own, tmp_path / "run", data=data, on_event=None, stop=stop_after(4))
    mnist(data, side=32)
    with pytest.raises(ValueError, match=r"x_train\[0\] is 32 x 32 pixels.* 28 x 28"):
        resume(tmp_path / "run")


def test_small_files_of_several_formats_train(tmp_path: Path) -> None:
    """CIFAR-10 as a folder of images, in parts, with an image that cannot be decoded."""
    for part, count in (("train", 50), ("test", 8)):
        for name in ("cat", "dog"):
            for number in range(count):
                image(tmp_path / part / name / f"{number}.png", 16, 16)
    (tmp_path / "train/cat/7.png").write_bytes(b"damaged")
    own = recipe("own-resnet20", data=tmp_path).with_changes(SHORT)
    notes: list[str] = []
    train(own, tmp_path / "run", data=tmp_path, on_event=lambda event: notes.append(str(event)))
    assert sum("skipped cat/7.png: " in note for note in notes) == 1
    mistakes = json.loads((tmp_path / "run/mistakes.json").read_bytes())["mistakes"]
    assert all(mistake["file"].startswith(("cat/", "dog/")) for mistake in mistakes)


def test_any_net_trains_on_arrays(tmp_path: Path) -> None:
    data = mnist(tmp_path / "mnist.npz")
    own = recipe("own-resnet18", data=data).with_changes(TINY)
    result = train(own, tmp_path / "run", data=data, on_event=None)
    assert result.reports[-1].n == 15


@pytest.mark.parametrize("recipe_name", ["own-resnet20", "own-resnet18"])
def test_arrays_that_are_refused_leave_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe_name: str
) -> None:
    data = tmp_path / "set.npz"
    np.savez(data, x=np.full((4, 8, 8), 99, np.uint8), y=np.array(["a", "b", "a", "b"], object))
    words = ["train", recipe_name, "--data", str(data), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert f"y in {data} holds Python objects" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_detector_needs_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = mnist(tmp_path / "mnist.npz")
    words = ["own-detection-resnet18-c4", "--data", str(data), "--out", str(tmp_path / "run")]
    assert main(["train", *words]) == 2
    assert "mnist.npz" in capsys.readouterr().err


def test_small_images_of_one_size_are_checked_at_their_own_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = mnist(tmp_path / "mnist.npz")
    side = np.load(data)["x_train"].shape[1]
    for size, words in ((side, []), (224, ["--size", "224"])):
        main(["check", str(data), "--json", *words])
        found = json.loads(capsys.readouterr().out)
        assert found["size"] == size
        kinds = {finding["kind"] for finding in found["findings"]}
        assert ("small" in kinds) == (size == 224)
        main(["check", str(data), *words])
        own = f"all {side} x {side}: checked as they are, for own-resnet20 and its like"
        assert (own in capsys.readouterr().out) == (size == side)


def test_arrays_are_checked_and_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = mnist(tmp_path / "mnist.npz")
    arrays = dict(np.load(data))
    arrays["x_test"][0] = arrays["x_train"][0]  # a leak, with the same label
    np.savez(data, **arrays)  # pyrefly: ignore
    assert main(["check", str(data), "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 60
    assert found["parts"]["train"]["classes"] == {"0": 15, "1": 15, "2": 15}
    leaks = [finding for finding in found["findings"] if finding["kind"] == "leak"]
    assert leaks[0]["cases"][0]["files"] == ["x_train[0]", "x_test[0]"]
    reslab("pack", data, tmp_path / "packed")
    packed, arrays_set = open_folder(tmp_path / "packed"), open_folder(data)
    for first, second in ((packed.train, arrays_set.train), (packed.test, arrays_set.test)):
        assert first.files == second.files
        assert np.array_equal(first.image(3), second.image(3))
        assert torch.equal(first.labels, second.labels)
