"""The classifier is found by its shape and place; layers that would change it are not ignored."""

import pytest
import torch
from tests.models.convert.states import State

from reslab.models.convert.heads import Head, find_head
from reslab.models.convert.layouts import TORCHVISION
from reslab.models.convert.wrapping import Weights

FEATURES = 8
TRUNK: State = {
    "layer1.0.conv1.weight": torch.zeros(FEATURES, 3, 3, 3),
    "bn1.weight": torch.ones(4),
}


def linear(name: str, outputs: int = 3, inputs: int = FEATURES, fill: float = 1.0) -> State:
    return {
        f"{name}.weight": torch.full((outputs, inputs), fill),
        f"{name}.bias": torch.full((outputs,), fill),
    }


def norm(name: str, channels: int = FEATURES) -> State:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": torch.ones(channels) for part in parts}


def head_of(inner: State, beside: State | None = None, prefix: str = "") -> Head:
    return find_head(Weights(TRUNK | inner, {}, (), prefix, beside or {}), TORCHVISION)


@pytest.mark.parametrize(
    "name",
    ["fc", "head.fc", "classifier.1", "fc.1", "last_linear", "linear", "head", "out", "a.b.dense"],
)
def test_a_linear_layer_on_the_features_is_the_classifier(name: str) -> None:
    head = head_of(linear(name, fill=2.0))
    assert (head.name, head.problem, head.left_out, head.foreign) == (name, "", (), {})
    assert head.layer is not None
    weight, bias = head.layer
    assert weight.shape == (3, FEATURES)
    assert (weight.mean(), bias.mean()) == (2, 2)


def test_a_1x1_convolution_and_a_classifier_without_bias() -> None:
    layer = head_of({"fc.weight": torch.ones(3, FEATURES, 1, 1)}).layer
    assert layer is not None
    assert layer[0].shape == (3, FEATURES)
    assert layer[1].tolist() == [0, 0, 0]
    # without a bias and a usual name, it may compare directions, as ArcFace does
    assert head_of({"margin.weight": torch.ones(3, FEATURES)}).layer is None


def test_the_nearest_module_around_the_trunk_has_the_classifier() -> None:
    beside = linear("model.head.fc", fill=2.0) | linear("other.fc", fill=3.0)
    head = head_of({}, beside, prefix="model.backbone.")
    assert head.name == "model.head.fc"
    assert head_of({}, linear("other.fc"), prefix="model.backbone.").name == "other.fc"
    assert head_of(linear("fc"), beside, prefix="model.backbone.").name == "model.backbone.fc"


def test_another_networks_classifier_is_not_taken() -> None:
    teacher = {f"teacher.backbone.{name}": tensor for name, tensor in TRUNK.items()}
    head = head_of({}, teacher | linear("teacher.head"), prefix="student.backbone.")
    assert head.problem == "it has no classifier"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (linear("fc.0") | norm("fc.1", 3) | linear("fc.3", 2, 3), "several layers (fc.0, fc.1,"),
        (norm("fc.0") | linear("fc.1"), "several layers (fc.1, fc.0,"),
        (linear("fc1", 5) | linear("fc2", 3, 5), "several layers (fc1, fc2,"),
        (linear("classifier", 1), "classifier has one output"),
        (linear("a") | linear("b"), "a and b may each be the classifier"),
        (linear("projector.0", 9) | linear("projector.2", 4, 9), "it has no classifier"),
        (linear("prototypes"), "it has no classifier"),
        (linear("fc", 3, 7), "fc.weight is [3, 7], but the trunk has 8 features"),
        ({}, "it has no classifier"),
    ],
)
def test_without_a_usable_classifier_the_trunk_remains(more: State, reason: str) -> None:
    head = head_of(more)
    assert head.layer is None
    assert reason in head.problem
    assert head.foreign == {}
    assert set(head.left_out) == set(more)


def test_one_trained_without_labels_has_no_classifier() -> None:
    """MoCo's last layer has the name and shape of a classifier."""
    head = head_of(linear("fc"), {"module.queue": torch.zeros(4, 9)}, "module.encoder_q.")
    assert head.problem == "it was trained without labels and has no classifier"


def test_a_usual_name_decides_between_two_and_the_other_is_left_out() -> None:
    head = head_of(linear("fc") | linear("aux_head") | norm("aux_head.bn"))
    assert (head.name, head.foreign) == ("fc", {})
    assert set(head.left_out) == (linear("aux_head") | norm("aux_head.bn")).keys()


@pytest.mark.parametrize(
    "layers", [norm("neck"), {"ca.fc1.weight": torch.ones(2, 8, 1, 1)}, {"scale": torch.ones(1)}]
)
def test_layers_that_may_change_the_answer_are_foreign(layers: State) -> None:
    assert head_of(linear("fc") | layers).foreign == layers
    around = {f"model.{name}": tensor for name, tensor in (linear("fc") | layers).items()}
    assert list(head_of({}, around, "model.backbone.").foreign) == list(layers)


def test_losses_and_counters_are_left_out() -> None:
    beside = {
        "criterion.weight": torch.ones(3),
        "train_loss.mean": torch.ones(2),
        "val_acc.correct": torch.ones(1),
        "total_ops": torch.ones(1),
    }
    head = head_of(linear("fc") | beside)
    assert (head.name, head.foreign, set(head.left_out)) == ("fc", {}, beside.keys())
