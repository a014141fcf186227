import warnings
from typing import Any

import pytest

from reslab.models.config import (
    ResNetConfig,
    all_models,
    cifar_config,
    config_named,
    imagenet_config,
    warn_small_map,
)
from reslab.models.parts import BatchNorm, GroupNorm, NoisyBatchNorm, NoNorm


def tiny(**changes: Any) -> ResNetConfig:
    """Return a CIFAR net of four blocks, changed as named."""
    fields = {
        "stem": "cifar", "block": "basic", "blocks": (1, 2, 1), "widths": (8, 16, 32),
        "classes": 10, "shortcut": "B",
    }  # fmt: skip
    return ResNetConfig.model_validate(fields | changes)


def test_names_mean_what_the_paper_says() -> None:
    assert config_named("resnet56") == cifar_config(56, "A")
    assert config_named("resnet56-B") == cifar_config(56, "B")
    assert config_named("plain20").shortcut is None
    assert config_named("resnet34") == imagenet_config(34, "B")
    assert config_named("resnet34-A").shortcut == "A"
    assert config_named("resnet50").stride_on == "1x1"
    assert config_named("resnet50-3x3").stride_on == "3x3"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'resnet110'"):
        config_named("resnet11O")


def test_every_depth_of_the_paper_has_a_name() -> None:
    names = all_models()
    assert {
        f"{kind}{d}" for kind in ("plain", "resnet") for d in (20, 32, 44, 56, 110, 1202)
    } <= set(names)
    assert {
        "plain18",
        "plain34",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
    } <= set(names)


@pytest.mark.parametrize("depth", [2, 18, 21, 57])
def test_only_6n_plus_2_layers(depth: int) -> None:
    with pytest.raises(ValueError, match="6n"):
        cifar_config(depth)


def test_only_the_depths_of_table_1() -> None:
    with pytest.raises(ValueError, match="18, 34, 50, 101, 152"):
        imagenet_config(20)


def test_places_say_what_stands_where() -> None:
    norms = (GroupNorm(), BatchNorm(), NoNorm(), BatchNorm())
    places = tiny(shortcut=("B", "B", "C", "A"), norm=norms, stochastic_depth=0.4).places()
    assert [(p.index, p.count, p.stage) for p in places] == [
        (0, 4, 0),
        (1, 4, 1),
        (2, 4, 1),
        (3, 4, 2),
    ]
    sizes = [(p.c_in, p.width, p.c_out, p.stride) for p in places]
    assert sizes == [(8, 8, 8, 1), (8, 16, 16, 2), (16, 16, 16, 1), (16, 32, 32, 2)]
    assert [p.norm for p in places] == list(norms)
    assert [p.grows for p in places] == [False, True, False, True]
    assert [p.projects for p in places] == [False, True, True, False]
    # Eqn. 4 of stochastic depth: 1 - l / L (1 - p_L), l from 1
    assert [p.survival for p in places] == pytest.approx([0.9, 0.8, 0.7, 0.6])


def test_places_of_bottlenecks_hold_four_times_the_width() -> None:
    places = imagenet_config(50).places()
    assert [(p.c_in, p.width, p.c_out, p.stride) for p in places[2:5]] == [
        (256, 64, 256, 1), (256, 128, 512, 2), (512, 128, 512, 1),
    ]  # fmt: skip
    assert [p.index for p in places if p.projects] == [0, 3, 7, 13]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"norm": (BatchNorm(),)}, "model.norm is a list of length 1: .* each of the 4 blocks"),
        ({"shortcut": ("A", None)}, "model.shortcut is a list of length 2"),
        ({"norm": GroupNorm(groups=6)}, "groups=6 .*8, 16, 32.+ choose a divisor of 8"),
        ({"block": "bottleneck", "widths": (4, 8, 8), "norm": GroupNorm()}, "4, 8, 16, 32"),
        ({"norm": (GroupNorm(groups=16), *3 * (BatchNorm(),))}, "groups=16 .* channels .8.:"),
        ({"shortcut": None, "stochastic_depth": 0.5}, "block 0 "),
        ({"shortcut": ("A", "A", None, "A"), "stochastic_depth": 0.5}, "block 2 "),
        ({"stochastic_depth": 1.0}, "less than 1"),
        ({"dropout": -0.1}, "greater than or equal to 0"),
        ({"norm": NoisyBatchNorm, "dropout": 0.1}, "norm"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        tiny(**changes)


def test_groups_are_checked_where_they_are_used() -> None:
    """Sixteen groups do not divide the eight channels of the first block, which has batch norm."""
    assert tiny(norm=(BatchNorm(), *3 * (GroupNorm(groups=16),)))


@pytest.mark.parametrize(
    ("changes", "option", "additions"),
    [
        ({}, "B", ()),
        ({"shortcut": None}, None, ()),
        ({"shortcut": ("A", None, "A", "A"), "norm": NoNorm()}, "mixed", ("no norm",)),
        ({"shortcut": ("C",) * 4, "norm": (GroupNorm(),) * 4}, "C", ("group norm",)),
        (
            {"norm": (*2 * (BatchNorm(),), *2 * (GroupNorm(),)), "stochastic_depth": 0.5},
            "B",
            ("mixed norms", "stochastic depth 0.5"),
        ),
        ({"norm": NoisyBatchNorm(), "dropout": 0.25}, "B", ("noisy batch norm", "dropout 0.25")),
    ],
)
def test_labels_name_what_the_paper_does_not_have(
    changes: dict[str, Any], option: str | None, additions: tuple[str, ...]
) -> None:
    config = tiny(**changes)
    assert (config.option, config.additions) == (option, additions)


def test_without_randomness_only_random_parts_are_gone() -> None:
    noisy = (NoisyBatchNorm(), GroupNorm(), NoNorm(), BatchNorm())
    config = tiny(norm=noisy, stochastic_depth=0.5, dropout=0.5)
    assert config.without_randomness() == tiny(norm=(BatchNorm(), *noisy[1:]))
    assert tiny(norm=NoisyBatchNorm()).without_randomness() == tiny()


def test_a_configuration_is_the_same_after_json() -> None:
    norms = (NoisyBatchNorm(scale=2), GroupNorm(groups=2), NoNorm(), BatchNorm())
    config = tiny(norm=norms, shortcut=("A", None, "C", "B"), dropout=0.5)
    assert ResNetConfig.model_validate_json(config.model_dump_json(), strict=True) == config


def test_only_a_map_under_4x4_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"side of 32 pixels leave a feature map of 1x1"):
        warn_small_map(imagenet_config(18), 32)
    with pytest.warns(UserWarning, match="2x2 before pooling; .* enlarge the images"):
        warn_small_map(cifar_config(8), 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_small_map(cifar_config(8), 16)
