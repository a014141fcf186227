from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.detection.small import (
    LARGE,
    SCENES,
    SMALL,
    classifier,
    classifier_file,
    detector,
    renamed,
    short_recipe,
)

from reslab.detection.inference import Detector
from reslab.detection.predict import detector_bytes
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import (
    Weights,
    fit_detector_to_weights,
    initial_detector,
    load_weights,
    must_match_trunk,
    trunk_of,
)
from reslab.detection.task import detector_train_mode, trainable_parts
from reslab.models.batchnorm import norms_of
from reslab.models.model_file import Model
from reslab.models.resnet import build_resnet
from reslab.runtime.files import sha256_of

TRAIN = SCENES.train
LIKE = ("model.sizes=[8, 14, 24]", "model.ratios=[1.0, 1.6]", "model.width=8")  # as in `detector()`


def untouched() -> Model:
    """Return a classifier with its initial weights."""
    net = build_resnet(SMALL, torch.Generator().manual_seed(1)).eval()
    return replace(classifier(), net=net)


def fitting(weights: Weights, *changes: str) -> DetectionRecipe:
    return fit_detector_to_weights(short_recipe(*changes), weights)


def test_weights_are_a_classifiers_or_a_detectors(tmp_path: Path) -> None:
    file = classifier_file(tmp_path)
    loaded = load_weights(file)
    assert isinstance(loaded, Model)
    assert trunk_of(loaded) == SMALL
    (tmp_path / "detector.safetensors").write_bytes(detector_bytes(detector()))
    other = load_weights(tmp_path / "detector.safetensors")
    assert isinstance(other, Detector)
    assert trunk_of(other) == SMALL
    for wrong in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="no model at"):
            load_weights(wrong)


def test_the_trunk_of_a_new_detector_computes_the_classifiers_features() -> None:
    """Convolutions are rescaled, and batch norm compensates."""
    weights = classifier()
    net = initial_detector(fitting(weights), 1, weights, TRAIN).eval()
    image = torch.randn(1, 3, 30, 42, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        shared = weights.resnet.stages[:-1](weights.resnet.stem(image))
        torch.testing.assert_close(net.features(image), shared, rtol=1e-4, atol=1e-4)
        last = weights.resnet.stages[-1](shared).mean((2, 3))
        torch.testing.assert_close(net.region_features(shared), last, rtol=1e-4, atol=1e-4)


def test_new_layers_are_initialised_from_the_seed() -> None:
    weights = classifier()
    recipe = fitting(weights)
    one, same, other = (initial_detector(recipe, seed, weights, TRAIN) for seed in (1, 1, 2))
    assert sha256_of(one.state_dict()) == sha256_of(same.state_dict())
    residual = ("stem.", "stages.")
    for name, tensor in other.state_dict().items():
        alike = name.startswith(residual) or name.endswith("bias")  # whose bias starts at 0
        assert torch.equal(tensor, one.state_dict()[name]) == alike, name


def test_a_detector_with_the_same_classes_supplies_all_weights() -> None:
    weights = detector()
    net = initial_detector(fitting(weights, *LIKE), 1, weights, TRAIN)
    assert sha256_of(net.state_dict()) == sha256_of(weights.net.state_dict())


@torch.no_grad()
def test_a_detector_with_the_same_classes_in_another_order_supplies_all_weights() -> None:
    """Classes match by name: equal ids of different classes do not make them equal."""
    weights = detector()
    for layer in (weights.net.classifier, weights.net.regressor):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
    names = tuple(weights.classes[row] for row in order)
    others = renamed(SCENES, names, weights.ids).train
    lines: list[str] = []
    net = initial_detector(fitting(weights, *LIKE), 1, weights, others, lines.append)
    regions = torch.randn(5, net.classifier.in_features)
    scores, known_scores = net.classifier(regions), weights.net.classifier(regions)
    torch.testing.assert_close(scores[:, 0], known_scores[:, 0])  # the background
    torch.testing.assert_close(scores[:, 1:], known_scores[:, 1:][:, order])
    deltas, known_deltas = (each.regressor(regions).view(5, 10, 4) for each in (net, weights.net))
    torch.testing.assert_close(deltas, known_deltas[:, order])
    (line,) = lines
    assert line.startswith("the detector's class layers are kept")


def test_a_detector_with_other_classes_supplies_all_but_the_class_layers() -> None:
    """Equal ids of different classes do not make the classes equal."""
    weights = detector()
    others = renamed(SCENES, tuple("abcdefghij"), weights.ids).train
    net = initial_detector(fitting(weights, *LIKE), 1, weights, others)
    for name, tensor in net.state_dict().items():
        of_classes = name.startswith(("classifier.", "regressor."))
        assert torch.equal(tensor, weights.net.state_dict()[name]) != of_classes or not tensor.any()


def test_layers_with_other_shapes_are_initialised() -> None:
    weights = detector()  # two anchor ratios; the recipe has three
    net = initial_detector(fitting(weights), 1, weights, TRAIN).state_dict()
    state = weights.net.state_dict()
    assert torch.equal(net["proposals.conv.weight"], state["proposals.conv.weight"])
    assert net["proposals.deltas.weight"].shape == (36, 8, 1, 1)
    assert torch.equal(net["classifier.weight"], state["classifier.weight"])


def test_another_net_is_refused() -> None:
    deeper = SMALL.model_copy(update={"blocks": (2, 1, 1)})
    for weights in (classifier(deeper), classifier(LARGE), detector(trunk=deeper)):
        with pytest.raises(ValueError, match="the weights belong to a net with") as caught:
            fitting(weights)
        assert "\n" not in str(caught.value)
    recipe = fitting(classifier())
    model = recipe.model.model_copy(update={"trunk": deeper})
    recipe = recipe.model_copy(update={"model": model})
    with pytest.raises(ValueError, match=r"belong to another network: stages\.0\.1.* does not fit"):
        initial_detector(recipe, 1, classifier(), TRAIN)
    grouped = detector(norm="group")
    recipe = fitting(grouped, "model.norm=frozen")
    with pytest.raises(ValueError, match="running_mean does not fit"):
        initial_detector(recipe, 1, grouped, TRAIN)


def test_the_layout_is_that_of_the_weights() -> None:
    layout = {"zeros": "both", "pool": "padded", "stride_on": "3x3"}
    recipe = fitting(classifier(SMALL.model_copy(update=layout)))
    trunk = recipe.model.trunk
    assert (trunk.zeros, trunk.pool, trunk.stride_on) == ("both", "padded", "3x3")
    assert recipe.weights is not None


@pytest.mark.parametrize("norm", ["frozen", "recompute"])
def test_batch_norm_needs_weights(norm: str) -> None:
    with pytest.raises(ValueError, match=r"`weights`, or set model\.norm=group") as caught:
        must_match_trunk(short_recipe(f"model.norm={norm}"), None)
    assert "\n" not in str(caught.value)


def test_group_norm_needs_no_weights_if_no_stage_is_fixed() -> None:
    must_match_trunk(short_recipe("model.norm=group"), None)
    with pytest.raises(ValueError, match="fixed_stages=0"):
        must_match_trunk(short_recipe("model.norm=group", "fixed_stages=1"), None)
    with pytest.raises(ValueError, match="`weights`"):
        must_match_trunk(fitting(classifier(), "model.norm=group"), None)


def test_weights_must_have_the_recipes_digest() -> None:
    recipe = fitting(classifier())
    must_match_trunk(recipe, classifier())
    with pytest.raises(ValueError, match="the weights have the SHA-256"):
        must_match_trunk(recipe, classifier(seed=8))


def test_an_untrained_net_has_no_statistics_to_keep() -> None:
    weights = untouched()
    with pytest.raises(ValueError, match="never trained"):
        must_match_trunk(fitting(weights), weights)
    must_match_trunk(fitting(weights, "model.norm=group"), weights)
    must_match_trunk(fitting(weights, "model.norm=recompute"), weights)


@pytest.mark.parametrize("norm", ["recompute", "group"])
def test_folded_weights_allow_only_frozen_batch_norm(norm: str) -> None:
    folded = classifier(folded=True)
    must_match_trunk(fitting(folded), folded)
    with pytest.raises(ValueError, match=f"model.norm={norm}: in these weights"):
        must_match_trunk(fitting(folded, f"model.norm={norm}"), folded)
    # so does a detector that was trained from such weights
    net = initial_detector(fitting(folded, *LIKE), 1, folded, TRAIN)
    after = replace(detector(), net=net)
    must_match_trunk(fitting(after, *LIKE), after)
    with pytest.raises(ValueError, match=f"model.norm={norm}: in these weights"):
        must_match_trunk(fitting(after, *LIKE, f"model.norm={norm}"), after)
    must_match_trunk(fitting(detector(), *LIKE, f"model.norm={norm}"), detector())


def test_a_detector_with_group_norm_may_be_trained_further() -> None:
    weights = detector(norm="group")
    recipe = fitting(weights, *LIKE, "model.norm=group", "fixed_stages=1")
    must_match_trunk(recipe, weights)
    net = initial_detector(recipe, 1, weights, TRAIN)
    assert sha256_of(net.state_dict()) == sha256_of(weights.net.state_dict())


@pytest.mark.parametrize("fixed", [0, 1, 2])
def test_which_parts_are_trained(fixed: int) -> None:
    recipe = short_recipe(f"fixed_stages={fixed}")
    net = initial_detector(recipe, 1, None, TRAIN)
    conv4 = [net.stem, net.stages[0], net.stages[1]][fixed + 1 if fixed else 0 :]
    regions = [net.stages[2], net.classifier, net.regressor]
    assert trainable_parts(net, recipe) == [*conv4, net.proposals, *regions]
    assert len(conv4) == {0: 3, 1: 1, 2: 0}[fixed]


def test_batch_norm_is_fixed_in_train_mode() -> None:
    recipe = short_recipe("fixed_stages=1")
    net = initial_detector(recipe, 1, None, TRAIN)
    detector_train_mode(net, recipe)
    assert net.training
    norms = norms_of(net)
    assert len(norms) == 7
    for norm in norms:
        assert not norm.training
        assert not any(weight.requires_grad for weight in norm.parameters())
    assert not any(weight.requires_grad for weight in net.stem.parameters())
    assert all(weight.requires_grad for weight in net.proposals.parameters())
