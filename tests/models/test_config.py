import pytest

from reslab.models.config import all_models, cifar_config, config_named, imagenet_config


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
