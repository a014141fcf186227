"""The classifier that fine-tuning starts from."""

from dataclasses import replace

import pytest
import torch

from reslab.data.datasets import EncodedImages, ImageSet, ImagesInMemory
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe
from reslab.training.initial_net import initial_net, rows_for

RECIPE = recipe("digits-resnet20").with_changes(["model.classes=3", "model.blocks=[1,1,1]"])
ANIMALS = ("ant", "bee", "cat")


def trained(classes: tuple[str, ...] = ANIMALS, ids: tuple[str, ...] = ANIMALS) -> Model:
    net = build_resnet(RECIPE.model, torch.Generator().manual_seed(7)).eval()
    torch.nn.init.normal_(net.fc.bias)
    return Model(net, classes, minus_mean(torch.zeros(3, 1, 1)), {"name": "own-resnet20"}, [], ids)


def folder(*ids: str, names: tuple[str, ...] = ()) -> EncodedImages:
    files = [f"{id_}/0.png" for id_ in ids]
    return EncodedImages("animals", files, torch.arange(len(ids)), names or ids, ids, str.encode)


def start(train: ImageSet, weights: Model) -> tuple[Model, list[str]]:
    """Return the initial network as a model of the training classes, and the lines logged."""
    lines: list[str] = []
    net = initial_net(RECIPE, 1, weights, train, lines.append).eval()
    return replace(weights, net=net, classes=train.classes), lines


@pytest.mark.parametrize(
    "ids", [("cat", "ant", "bee"), ("Ant", "BEE", "cat "), ("bee", "CAT", "ant")]
)
@torch.no_grad()
def test_equal_classes_keep_their_scores_in_every_order(ids: tuple[str, ...]) -> None:
    weights = trained()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    fine_tuned, (line,) = start(folder(*ids), weights)
    scores, expected = fine_tuned(images), weights(images)
    for column, id_ in enumerate(ids):
        known = ANIMALS.index(id_.strip().lower())
        torch.testing.assert_close(scores[:, column], expected[:, known])
    assert line.startswith("the trained classifier is kept: its classes match")
    moved = [id_.strip().lower() for id_ in ids] != list(ANIMALS)
    assert line.endswith("reordered") == moved


def test_exactly_equal_classes_keep_all_bits_and_need_no_line() -> None:
    weights = trained()
    fine_tuned, lines = start(folder(*ANIMALS), weights)
    assert lines == []
    state = fine_tuned.net.state_dict()
    assert all(torch.equal(state[name], known) for name, known in weights.net.state_dict().items())


@pytest.mark.parametrize("ids", [("ant", "bee", "cow"), ("ant", "bee", "Bee"), ("0", "1", "2")])
def test_other_classes_start_at_zero(ids: tuple[str, ...]) -> None:
    fine_tuned, (line,) = start(folder(*ids), trained())
    assert not fine_tuned.resnet.fc.weight.any()
    assert line.startswith("the classifier starts at zero")


def test_more_outputs_than_classes_are_other_classes() -> None:
    assert rows_for(folder("ant", "bee"), trained()) is None


def test_classes_match_by_id_before_name() -> None:
    weights = trained(names := ("crane", "bee", "crane"), ids := ("n1", "n2", "n3"))
    assert rows_for(folder("n3", "n1", "n2"), weights) == [2, 0, 1]
    assert rows_for(folder("n3", "n1", "n2", names=("crane", "crane", "bee")), weights) == [2, 0, 1]
    assert rows_for(folder("crane", "bee", "n1"), weights) is None  # either of two cranes
    assert (weights.classes, weights.ids) == (names, ids)


def test_outputs_that_were_only_numbered_match_no_folder() -> None:
    numbers = ("0", "1", "2")
    imported = replace(trained(numbers, ()), recipe={})
    assert rows_for(folder(*numbers), imported) is None
    assert rows_for(folder(*numbers), trained(numbers, ())) == [0, 1, 2]
    pixels = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    in_memory = ImagesInMemory("digits", pixels, torch.arange(3), numbers)
    assert start(in_memory, imported)[1] == []
