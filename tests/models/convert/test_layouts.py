"""Other programs' names of weights, judged by their own code."""

import pytest
import torch
from tests.models import references
from tests.models.convert.states import a_model, rng, torchvision_like

from reslab.models.config import ResNetConfig, config_named
from reslab.models.convert.layouts import AUTHORS, torchvision_state
from reslab.models.model_file import Model
from reslab.models.parts import BatchNorm, GroupNorm, NoisyBatchNorm, NoNorm
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import ResNet


def unset(config: ResNetConfig) -> Model:
    """Make a model with uninitialised weights."""
    zero = torch.zeros(3, 1, 1)
    return Model(ResNet(config), ("a", "b"), Preprocessing(zero, zero + 1), {}, [])


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("resnet18", 122, 11_689_512),
        ("resnet34", 218, 21_797_672),
        ("resnet50-3x3", 320, 25_557_032),
    ],
)
def test_exported_names_and_shapes_are_torchvisions(name, tensors, parameters) -> None:
    expected = references.torchvision_shapes(int(name[6:8]))
    assert len(expected) == tensors
    learned = [s for n, s in expected.items() if "running" not in n and "tracked" not in n]
    assert sum(torch.Size(shape).numel() for shape in learned) == parameters
    state = torchvision_state(unset(torchvision_like(name, 1000)))
    assert {n: tuple(tensor.shape) for n, tensor in state.items()} == expected
    assert all(tensor.is_contiguous() for tensor in state.values())
    assert {t.dtype for n, t in state.items() if "tracked" in n} == {torch.int64}


@pytest.mark.parametrize(("name", "channels"), [("resnet18", "BGR"), ("resnet50-3x3", "RGB")])
def test_torchvisions_code_computes_the_same_with_exported_weights(name, channels) -> None:
    model = a_model(torchvision_like(name), channels=channels)
    images = torch.randint(0, 256, (2, 3, 128, 112), dtype=torch.uint8, generator=rng(9))
    normalised = (images - model.preprocessing.mean) / model.preprocessing.std
    with torch.no_grad():
        scores = references.torchvision_net(torchvision_state(model), normalised)
        torch.testing.assert_close(model(images), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("resnet50", {"pool": "padded"}, "stride on the 3x3"),
        ("resnet18", {}, "first pooling is padded"),
        ("resnet18-A", {"pool": "padded"}, "option A"),
        ("resnet18-C", {"pool": "padded"}, "option C"),
        ("plain18", {"pool": "padded"}, "are none"),
        ("resnet20", {}, "CIFAR"),
        ("resnet18", {"pool": "padded", "norm": GroupNorm()}, "this one's norm is 'group'"),
        ("resnet18", {"pool": "padded", "norm": NoNorm()}, "this one's norm is 'none'"),
        (
            "resnet18",
            {"pool": "padded", "norm": (*7 * (BatchNorm(),), NoNorm())},
            "this one's norm is 'none'",
        ),
        ("resnet18", {"pool": "padded", "shortcut": (*7 * ("B",), "C")}, "this one's are mixed"),
    ],
)
def test_what_torchvision_cannot_compute_is_not_exported(name, change, reason) -> None:
    config = config_named(name).model_copy(update=change | {"classes": 3})
    with pytest.raises(ValueError, match=reason):
        torchvision_state(unset(config))


def test_a_net_that_differs_only_in_training_is_exported() -> None:
    """Random layers are the identity in inference; eight entries "B" are option B."""
    plain = torchvision_like("resnet18")
    random = {"norm": NoisyBatchNorm(), "stochastic_depth": 0.5, "dropout": 0.2}
    config = plain.model_copy(update=random | {"shortcut": ("B",) * 8})
    state, expected = (torchvision_state(a_model(it)) for it in (config, plain))
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


@pytest.mark.parametrize("depth", [101, 152])
def test_the_deeper_nets_number_their_middle_stages(depth: int) -> None:
    net = ResNet(config_named(f"resnet{depth}"))
    names = AUTHORS.names(net)
    shapes = {names[ours]: tuple(t.shape) for ours, t in net.state_dict().items() if ours in names}
    convolutions = {f"{n}/0": shape for n, _, shape in references.authors_convolutions(depth)}
    assert convolutions.items() <= shapes.items()
    norms = {f"bn{s}/{i}" for _, s, _ in references.authors_convolutions(depth) for i in "01"}
    scales = {f"scale{n.removeprefix('bn')}" for n in norms}
    assert shapes.keys() == convolutions.keys() | norms | scales
