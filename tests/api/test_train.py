import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import reslab
from reslab.api.train import interrupted_run, request_run
from reslab.training.folder import RunFolder


def test_an_interrupted_run_is_described_by_its_folder(tmp_path: Path) -> None:
    recipe, _ = request_run("digits-resnet20", changes=["iterations=7"])
    assert recipe.iterations == 7
    data = str(tmp_path / "data")
    RunFolder.create(tmp_path / "run", recipe, {"seed": 5, "data": data})
    with pytest.raises(ValueError, match=r"as its environment\.json records, which does not exist"):
        interrupted_run(tmp_path / "run", None)
    (tmp_path / "data").mkdir()
    known, inputs, seed = interrupted_run(tmp_path / "run", None)
    assert (known, seed, str(inputs.data)) == (recipe, 5, data)
    _, moved, _ = interrupted_run(tmp_path / "run", str(tmp_path / "moved"))
    assert moved.data == tmp_path / "moved"


def test_a_refusal_is_one_line_whatever_the_place_of_the_data_is_called(tmp_path: Path) -> None:
    environment = {"seed": 5, "data": str(tmp_path / "line\x0cfeed")}
    RunFolder.create(tmp_path / "run", request_run("digits-resnet20")[0], environment)
    with pytest.raises(ValueError, match=r"line\\x0cfeed, as its environment.json") as refusal:
        interrupted_run(tmp_path / "run", None)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_run_with_parts_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train, test = (
        reslab.image_set(
            rng.integers(0, 256, (count, 12, 12), dtype=np.uint8), [0, 1] * (count // 2), ["a", "b"]
        )
        for count in (16, 8)
    )
    recipe = reslab.recipe("digits-resnet20").with_(
        {"iterations": 4, "batch_size": 8, "model.classes": 2, "eval_every": 4, "recompute_bn": 1}
    )
    seen = []

    def observe(iteration: int, net: nn.Module) -> None:
        gradients = [weight.grad for weight in net.parameters()]
        assert all(gradient is not None for gradient in gradients)
        seen.append(iteration)

    def train_on(out: str, stop: Callable[[], int | None] | None = None) -> reslab.RunResult:
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
        torch.manual_seed(1)
        for weight in net.parameters():
            nn.init.normal_(weight)
        return reslab.train(
            recipe, tmp_path / out, net=net, data=reslab.Splits(train, test),
            optimizer=lambda net: torch.optim.AdamW(net.parameters()), observer=observe,
            on_event=None, stop=stop,
        )  # fmt: skip

    whole = train_on("whole")
    assert seen == [1, 2, 3, 4]
    with pytest.raises(reslab.Interrupted, match="with the same parts"):
        train_on("stopped", stop=lambda: signal.SIGTERM)
    resumed = train_on("stopped")
    assert resumed.state_sha256 == whole.state_sha256
    recorded = RunFolder.open(tmp_path / "whole").recipe().deviations
    assert recorded.parts == ["net", "data", "optimizer"]
    with pytest.raises(ValueError, match="only a classifier"):
        reslab.train("coco-resnet50-c4", tmp_path / "detector", data=reslab.Splits(train, test))
    with pytest.raises(ValueError, match="images given in Python"):
        reslab.evaluate(
            reslab.load(tmp_path / "whole", net=nn.Sequential(nn.Flatten(), nn.Linear(432, 2)))
        )


def test_the_command_says_how_a_run_with_own_parts_is_resumed(tmp_path: Path, refused) -> None:
    images = reslab.image_set(np.zeros((8, 16, 16), np.uint8), [0, 1] * 4, ["a", "b"])
    recipe = reslab.recipe("digits-resnet20").with_(
        {"iterations": 4, "batch_size": 8, "model.classes": 2, "model.blocks": [1, 1, 1]}
    )
    with pytest.raises(reslab.Interrupted):
        reslab.train(
            recipe, tmp_path / "run", data=reslab.Splits(images, images), on_event=None,
            stop=lambda: signal.SIGTERM,
        )  # fmt: skip
    line = refused("resume", tmp_path / "run")
    assert f"`reslab.train(recipe, '{tmp_path}/run', data=...)` in Python" in line
