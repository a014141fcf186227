"""Runs with parts of one's own: distinguished, resumed to the same bits, refused with others."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tests.training.own import CLASSES, RECIPE, Net, adamw, parts, run, sets, some_images
from tests.training.walls import TINY, draw
from torch import Tensor, nn

from reslab.api.models import load
from reslab.api.test_sets import open_test_set
from reslab.data.datasets import Splits
from reslab.data.folder import read_folder, split_folder
from reslab.models.model_file import load_model
from reslab.models.random_layers import Dropout, StochasticDepth
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe
from reslab.runtime.device import setup_device
from reslab.runtime.distributed import Processes
from reslab.runtime.files import TensorFile, sha256_of
from reslab.studies.records import group_by_recipe, read_record
from reslab.training.checkpoint import checkpoints_in, read_checkpoint
from reslab.training.own import OwnParts, with_own_parts
from reslab.training.recipe import Recipe
from reslab.training.run import Interrupted
from reslab.training.train import train


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Runs in other processes have one thread, and sums depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never disturbed."""
    out = tmp_path_factory.mktemp("own") / "whole"
    run(out)
    return out


def result(out: Path) -> dict[str, Any]:
    content = json.loads((out / "result.json").read_text())
    return {key: value for key, value in content.items() if key != "seconds"}


def stopping_after(count: int):
    calls = iter(range(100))
    return lambda: 15 if next(calls) + 1 == count else None


def test_the_recipe_records_what_was_given(whole: Path) -> None:
    fields = json.loads((whole / "recipe.json").read_text())
    digests = {part: line.rpartition("; ")[2] for part, line in fields["deviations"].items()}
    assert all(len(digest) == 12 for digest in digests.values())
    assert fields["deviations"] == {
        "net": f"Net; 531 parameters; {digests['net']}",
        "data": f"lamps; 40 training and 20 test images of 8x8 in 3 classes; {digests['data']}",
        "optimizer": f"AdamW(betas=(0.9, 0.99), weight_decay=0.05); {digests['optimizer']}",
    }
    assert (fields["data"], fields["name"]) == ("own", "lamps-Net")
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["parameters"] == sum(w.numel() for w in Net().parameters()) == 531
    assert environment["initial_weights"] == sha256_of(Net().state_dict())


def test_an_ordinary_recipe_has_no_deviations() -> None:
    assert "deviations" not in json.loads(RECIPE.model_dump_json())
    assert RECIPE.deviations.parts == []


def test_it_learns_from_the_images_and_is_trained_in_place(tmp_path: Path) -> None:
    own = parts()
    found = run(tmp_path / "run", own, RECIPE.with_(iterations=40, learning_rate=0.02))
    assert found["evaluation"][-1]["top1_error"] < 40  # two thirds by chance
    assert own.net is not None
    assert sha256_of(own.net.state_dict()) == found["weights_sha256"]


@pytest.mark.parametrize(("calls", "iteration"), [(1, 1), (4, 4), (6, 5), (8, 7)])
def test_a_stopped_run_resumes_to_the_same_bits(
    whole: Path, tmp_path: Path, calls: int, iteration: int
) -> None:
    """With torch's own Dropout, and whatever weights the new network has; also in an evaluation."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"iteration {iteration}") as caught:
        run(out, stop=stopping_after(calls))
    assert f"reslab.train(recipe, '{out}', net=..., data=..., optimizer=...)" in str(caught.value)
    run(out, parts(net=Net(seed=8)))
    assert result(out) == result(whole)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("iteration", [2, 11])
def test_a_killed_run_resumes_to_the_same_bits(
    start_python, whole: Path, tmp_path: Path, iteration: int
) -> None:
    """Before the first checkpoint after an update, and before the last."""
    out = tmp_path / "run"
    done = start_python("-m", "tests.training.own", out, iteration).end()
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (out / "recipe.json").exists()
    assert not (out / "result.json").exists()
    events: list[dict[str, Any]] = []
    run(out, parts(net=Net(seed=8)), on_event=events.append)
    notes = [event["text"] for event in events if event["kind"] == "note"]
    assert notes == ["engine: torch", f"resuming from iteration {0 if iteration == 2 else 8}"]
    assert result(out) == result(whole)


def test_a_finished_run_is_not_trained_again(whole: Path) -> None:
    before = (whole / "model.safetensors").stat().st_mtime_ns
    events: list[dict[str, Any]] = []
    assert run(whole, on_event=events.append)["iterations"] == 12
    assert [event["text"] for event in events] == ["this run is finished"]
    assert (whole / "model.safetensors").stat().st_mtime_ns == before


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    own = parts()
    torch.manual_seed(4)
    before = torch.get_rng_state()
    run(tmp_path / "run", own, RECIPE.with_(iterations=1))
    assert torch.equal(torch.get_rng_state(), before)


class OtherNet(Net):
    """A network with the same weights, which may be another function of them."""


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"net": Net(width=7)}, "deviations.net: Net; 531 parameters"),
        ({"net": OtherNet()}, "-> OtherNet; 531 parameters"),
        ({"net": None}, "deviations.net: Net; 531 parameters"),
        ({"data": Splits(some_images(40, 5, "lamps"), some_images(20, 1, "test"))}, "data: lamps"),
        ({"optimizer": torch.optim.SGD}, None),
        ({"optimizer": lambda net: torch.optim.SGD(net.parameters(), lr=0.1)}, "-> SGD()"),
        ({"optimizer": lambda net: torch.optim.AdamW(net.parameters())}, "-> AdamW()"),
        ({"optimizer": None}, "deviations.optimizer: AdamW("),
    ],
)
def test_a_run_is_refused_with_other_parts(
    whole: Path, changes: dict[str, Any], difference: str | None
) -> None:
    with pytest.raises(ValueError, match=" ") as caught:
        run(whole, parts(**changes))
    message = str(caught.value)
    assert "\n" not in message
    if difference is None:  # not a function from the network to its optimizer
        assert "optimizer=lambda net: torch.optim.AdamW(net.parameters()" in message
        return
    assert difference in message
    assert f"resume that run with `reslab.train(recipe, '{whole}', net=..., " in message


def test_reslab_resume_refuses_and_names_the_way_on(refused, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        run(out, stop=stopping_after(2))
    line = refused("resume", out)
    assert "is trained with net (Net), data (lamps) and optimizer (AdamW(" in line
    assert f"`reslab.train(recipe, '{out}', net=..., data=..., optimizer=...)` in Python" in line


def test_commands_that_need_the_images_or_the_network_say_so(refused, whole: Path) -> None:
    assert "holds a network of your own (Net; 531 parameters" in refused("evaluate", whole)
    with pytest.raises(ValueError, match="was trained on images given in Python"):
        open_test_set("own", None, whole)


def test_a_recipe_read_from_the_folder_can_be_given_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        run(out, stop=stopping_after(2))
    run(out, recipe=Recipe.from_json((out / "recipe.json").read_bytes()))
    assert result(out) == result(whole)


def test_the_model_file_opens_with_a_network_of_the_same_layout(whole: Path) -> None:
    with pytest.raises(ValueError, match=r"reslab.load\('.*model.safetensors', net=...\)"):
        load(whole)
    net = Net(seed=9)
    predictor = load(whole, net=net)
    assert predictor.classes == CLASSES
    assert sha256_of(net.state_dict()) == result(whole)["weights_sha256"]
    test = sets().test
    found = predictor(test.images).argmax(1)
    errors = 100 * (found != test.labels).double().mean().item()
    assert errors == pytest.approx(result(whole)["evaluation"][-1]["top1_error"])
    names = [answer[0].name for answer in predictor.predict(list(to_arrays(test.images)))]
    assert names == [CLASSES[index] for index in found]


def to_arrays(images: Tensor):
    return images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("net", [Net(width=7), OtherNet(), build_resnet(RECIPE.model)])
def test_the_model_file_refuses_a_network_of_another_layout(whole: Path, net: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=r"holds Net; 531 parameters; .*, but the given network is "
    ):
        load_model(whole, net)


def test_a_model_without_a_configuration_says_so(whole: Path) -> None:
    model = load_model(whole, Net())
    with pytest.raises(ValueError, match="network is Net, which no configuration describes"):
        _ = model.config
    with pytest.raises(ValueError, match="Net cannot be applied fully convolutionally"):
        model.dense(sets().test.images)


def sgd_of_the_authors(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


def test_runs_with_and_without_own_parts_are_distinguished(whole: Path, tmp_path: Path) -> None:
    """Even a network that the recipe would build, and an optimizer that is nearly the recipe's."""
    short = recipe("digits-resnet20").with_(
        {"model.blocks": [1, 1, 1]}, iterations=2, warmup=None, recompute_bn=0, batch_size=8,
    )  # fmt: skip
    train(short, tmp_path / "plain")
    train(short, tmp_path / "other seed", seed=2)
    train(short, tmp_path / "sgd", own=OwnParts(optimizer=sgd_of_the_authors))
    train(short, tmp_path / "net", own=OwnParts(net=build_resnet(short.model)))
    paths = [tmp_path / name for name in ("plain", "other seed", "sgd", "net")]
    groups = group_by_recipe(read_record(path, Recipe) for path in [*paths, whole])
    assert [[run.path.name for run in group.runs] for group in groups] == [
        ["plain", "other seed"], ["sgd"], ["net"], ["whole"],
    ]  # fmt: skip
    assert [group.first.label for group in groups] == [
        "ResNet-8", "ResNet-8, SGD(momentum=0.9, weight_decay=0.0001)", "ResNet",
        "Net, AdamW(betas=(0.9, 0.99), weight_decay=0.05)",
    ]  # fmt: skip
    assert [group.first.data for group in groups] == ["digits", "digits", "digits", "lamps"]


def test_only_runs_with_an_own_optimizer_have_checkpoints_of_a_new_format(
    whole: Path, tmp_path: Path
) -> None:
    """An older reslab opens the others."""
    own = OwnParts(net=Net(), data=sets())
    run(tmp_path / "run", own, RECIPE.with_(iterations=4))
    formats = []
    for out in (tmp_path / "run", whole):
        newest = checkpoints_in(out / "checkpoints")[-1]
        formats.append(TensorFile.read(newest).facts["format"])
    assert formats == [2, 3]
    names = read_checkpoint(newest).optimizer.tensors
    assert "optimizer.state.first.weight.exp_avg_sq" in names
    assert not any(name.startswith("momentum.") for name in names)


def fitted(own: OwnParts, chosen: Recipe = RECIPE) -> Recipe:
    return with_own_parts(chosen, own, setup_device("fp32"))


class Pair(nn.Module):
    def __init__(self, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=momentum)])


def frozen() -> nn.Module:
    return Net().requires_grad_(False)


def test_networks_that_a_run_cannot_train_are_refused() -> None:
    for net, reason in (
        (cast(nn.Module, Net), "net is a type, not a torch.nn.Module"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "lazy layers: call it once"),
        (frozen(), "no parameter that requires a gradient"),
        (Pair(0.2), r"momenta \['0.1', '0.2'\]"),
        (Pair(None), r"momenta \['0.1', 'None'\]"),
    ):
        with pytest.raises(ValueError, match=reason):
            fitted(OwnParts(net=net))


def test_weights_are_not_for_an_own_network() -> None:
    trained = RECIPE.model_copy(update={"weights": "0" * 64})
    with pytest.raises(ValueError, match="load them into your net"):
        fitted(OwnParts(net=Net()), trained)


def test_an_own_network_is_not_recomputed() -> None:
    """Its layers may draw random numbers of their own, which a second pass would draw again."""
    with pytest.raises(ValueError, match="recompute 'blocks' is for the recipe's network"):
        fitted(OwnParts(net=Net()), RECIPE.with_(recompute="blocks"))


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Sequential(Net(), nn.Linear(3, 4)), r"\[2, 3, 8, 8\] to \[2, 4\], not to \[2, 3\]"),
        (nn.Conv2d(3, 3, 3), r"to \[2, 3, 6, 6\]"),
        (nn.Conv2d(1, 3, 3), r"Conv2d fails for images \[2, 3, 8, 8\]: .*channels"),
        (nn.LSTM(8, 3), "LSTM fails|LSTM returns a tuple"),
    ],
)
def test_networks_that_give_no_logits_are_refused_before_the_folder(
    tmp_path: Path, net: nn.Module, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        run(tmp_path / "run", parts(net=net))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_sets_that_do_not_fit_are_refused() -> None:
    train_set, test = sets().train, sets().test
    wider = some_images(20, 1, "test").take("test", torch.arange(3))
    wider = type(wider)("test", wider.images.repeat(1, 1, 2, 2), wider.labels, CLASSES)
    other = type(test)("test", test.images, test.labels, ("a", "b", "c"))
    empty = test.take("none", torch.arange(0))
    for data, reason in (
        (Splits(train_set, wider), r"images are \[3, 8, 8\], test images \[3, 16, 16\]"),
        (Splits(train_set, other), "lamps and test have different classes"),
        (Splits(train_set, empty), "none has no images"),
    ):
        with pytest.raises(ValueError, match=reason):
            fitted(OwnParts(data=data))
    with pytest.raises(ValueError, match="imagenet-resnet18 is for photographs"):
        fitted(OwnParts(data=sets()), recipe("imagenet-resnet18"))


def test_a_recipe_of_another_number_of_classes_names_the_change(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.classes=3"):
        run(tmp_path / "run", recipe=RECIPE.with_({"model.classes": 10}))


def test_data_own_is_for_images_given_in_python() -> None:
    with pytest.raises(ValueError, match=r"reslab\.train"):
        RECIPE.with_(data="own")


def test_the_digest_of_images_covers_every_byte_and_label() -> None:
    lines = set()
    for change in ("none", "byte", "label", "name"):
        data = sets()
        if change == "byte":
            data.test.images[3, 0, 2, 2] ^= 1
        elif change == "label":
            data.train.labels[0] = 2
        elif change == "name":
            data = Splits(some_images(40, 0, "other"), data.test)
        line = fitted(OwnParts(data=data)).deviations.data
        assert line is not None
        lines.add(line.rpartition(";")[2] if change != "name" else line)
    assert len(lines) == 4


class WithRandomLayers(nn.Module):
    """Random layers whose numbers come with the mini-batch, in a network of one's own."""

    def __init__(self, *, random: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, len(CLASSES))
        self.dropout = Dropout(0.3) if random else nn.Identity()
        self.drop = StochasticDepth(0.8) if random else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.conv(x).relu())
        return self.fc(self.drop(x).mean((2, 3)))


def test_random_layers_of_an_own_network_get_their_numbers(tmp_path: Path) -> None:
    own = partial(parts, optimizer=None)
    run(tmp_path / "whole", own(net=WithRandomLayers()))
    with pytest.raises(Interrupted):
        run(tmp_path / "run", own(net=WithRandomLayers()), stop=stopping_after(3))
    run(tmp_path / "run", own(net=WithRandomLayers()))
    assert result(tmp_path / "run") == result(tmp_path / "whole")
    run(tmp_path / "ordinary", own(net=WithRandomLayers(random=False)))
    one, other = result(tmp_path / "run"), result(tmp_path / "ordinary")
    assert one["weights_sha256"] != other["weights_sha256"]


def test_own_optimizers_alone_train_the_recipes_network(tmp_path: Path) -> None:
    """And their state is exact too."""
    short = recipe("digits-resnet20").with_(
        {"model.blocks": [1, 1, 1]}, iterations=6, warmup=None, eval_every=9, checkpoint_every=2,
        recompute_bn=0, batch_size=8, learning_rate=0.01,
    )  # fmt: skip
    own = partial(OwnParts, optimizer=adamw)
    train(short, tmp_path / "whole", own=own())
    with pytest.raises(Interrupted):
        train(short, tmp_path / "run", own=own(), stop=stopping_after(3))
    train(short, tmp_path / "run", own=own())
    assert result(tmp_path / "run") == result(tmp_path / "whole")
    assert load_model(tmp_path / "run").config == short.model  # opens without a network


def test_photographs_given_as_sets_are_trained_on(tmp_path: Path) -> None:
    """Like those of a folder, but for the deviation; files are described by name and label."""
    walls = draw(tmp_path / "walls", {"brick": 6, "sky": 6})
    changes = [change for change in TINY if not change.startswith("iterations")]
    short = recipe("own-resnet18", data=walls).with_changes([*changes, "iterations=2"])
    photographs = split_folder(read_folder(walls), 0.2)
    train(short, tmp_path / "folder", data=walls)
    train(short, tmp_path / "sets", own=OwnParts(data=photographs))
    for key in ("weights_sha256", "train_error"):
        assert result(tmp_path / "sets")[key] == result(tmp_path / "folder")[key]
    fields = json.loads((tmp_path / "sets" / "recipe.json").read_text())
    assert fields["data"] == "pictures"
    line = fields["deviations"]["data"]
    assert line.startswith("train; 10 training and 2 test images in 2 classes; ")
    fewer = Splits(photographs.train.take("train", torch.arange(8)), photographs.test)
    with pytest.raises(ValueError, match=r"deviations\.data: train; 10 training"):
        train(short, tmp_path / "sets", own=OwnParts(data=fewer))
    with pytest.raises(ValueError, match="is for images in memory, but these are encoded"):
        fitted(OwnParts(data=photographs))


def test_own_parts_are_trained_by_one_process() -> None:
    group = cast(Processes, SimpleNamespace(count=2))
    device = replace(setup_device("fp32"), processes=group)
    with pytest.raises(ValueError, match=r"net and optimizer of your own has one process, not 2"):
        with_own_parts(RECIPE, OwnParts(net=Net(), optimizer=adamw), device)
