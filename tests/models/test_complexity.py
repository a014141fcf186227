"""Parameters and multiply-adds against the paper's tables, to the digits printed there."""

import pytest
import torch
from torch import Tensor, nn

from reslab.models.complexity import complexities, complexity
from reslab.models.config import ResNetConfig, all_models, config_named
from reslab.models.parts import BatchNorm, GroupNorm, NoisyBatchNorm, NoNorm
from reslab.models.resnet import ResNet

# name: parameters, and multiply-adds (billions in Table 1, millions in Table 6) to known decimals
TABLE_1 = {
    "plain18": (11_515_688, "1.795"),
    "resnet18-A": (11_515_688, "1.795"),
    "resnet18": (11_689_512, "1.814"),
    "resnet18-C": (12_043_816, "1.878"),
    "plain34": (21_623_848, "3.644"),
    "resnet34-A": (21_623_848, "3.644"),
    "resnet34-B": (21_797_672, "3.664"),
    "resnet34-C": (22_716_840, "3.831"),
    "resnet50": (25_557_032, "3.858"),
    "resnet50-3x3": (25_557_032, "4.089"),
    "resnet101": (44_549_160, "7.570"),
    "resnet101-3x3": (44_549_160, "7.801"),
    "resnet152": (60_192_808, "11.282"),
    "resnet152-3x3": (60_192_808, "11.514"),
}
TABLE_6 = {
    20: (269_722, "40.6"),
    32: (464_154, "68.9"),
    44: (658_586, "97.2"),
    56: (853_018, "125.5"),
    110: (1_727_962, "252.9"),
    1202: (19_421_274, "2829"),
}
OPTION_B = {20: 272_474, 32: 466_906, 44: 661_338, 56: 855_770, 110: 1_730_714, 1202: 19_424_026}
# FLOPs as printed in Table 1, in billions
PRINTED = {
    "resnet18-A": 1.8,
    "resnet34-A": 3.6,
    "resnet50": 3.8,
    "resnet101": 7.6,
    "resnet152": 11.3,
}


def printed(value: float, like: str) -> str:
    decimals = len(like.partition(".")[2])
    return f"{value:.{decimals}f}"


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1(name: str) -> None:
    parameters, multiply_adds = TABLE_1[name]
    found = complexity(name, config_named(name))
    assert found.parameters == parameters
    assert printed(found.multiply_adds / 1e9, multiply_adds) == multiply_adds
    assert found.depth == int("".join(c for c in name.split("-")[0] if c.isdigit()))


@pytest.mark.parametrize("name", PRINTED)
def test_the_papers_flops_are_met_with_the_stride_on_the_1x1(name: str) -> None:
    found = complexity(name, config_named(name))
    assert abs(found.multiply_adds / 1e9 - PRINTED[name]) < 0.06


@pytest.mark.parametrize("depth", TABLE_6)
def test_table_6(depth: int) -> None:
    parameters, multiply_adds = TABLE_6[depth]
    found = complexity("", config_named(f"resnet{depth}"))
    assert found.parameters == parameters
    assert printed(found.multiply_adds / 1e6, multiply_adds) == multiply_adds
    assert found.depth == depth


@pytest.mark.parametrize("depth", OPTION_B)
def test_option_b_has_2752_more(depth: int) -> None:
    found = complexity("", config_named(f"resnet{depth}-B"))
    assert found.parameters == OPTION_B[depth] == TABLE_6[depth][0] + 2752


def test_plain_and_option_a_cost_the_same() -> None:
    plain, residual = config_named("plain56"), config_named("resnet56")
    one, other = complexities({"plain56": plain, "resnet56": residual})
    assert (one.parameters, one.multiply_adds) == (other.parameters, other.multiply_adds)


def test_every_name_is_counted_once_and_in_order() -> None:
    some = {
        name: config for name, config in all_models().items() if "20" in name and "1202" not in name
    }
    assert [c.name for c in complexities(some)] == list(some)


def counted(config: ResNetConfig, side: int) -> tuple[int, int]:
    """Count parameters and multiply-adds of a net in a forward pass on the meta device."""
    multiply_adds = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds
        assert isinstance(module, nn.Conv2d | nn.Linear)
        # each output number sums over the weights of one output channel
        multiply_adds += output.numel() * module.weight[0].numel()

    with torch.device("meta"):
        net = ResNet(config).eval()
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(count)
        net(torch.empty(1, 3, side, side))
    return sum(weight.numel() for weight in net.parameters()), multiply_adds


NORMS = {
    "group": GroupNorm(), "none": NoNorm(), "noisy": NoisyBatchNorm(),
    "mixed": (GroupNorm(), NoNorm(), BatchNorm(), NoisyBatchNorm()),
}  # fmt: skip


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_every_norm_and_mixed_shortcuts_are_counted_as_in_a_forward_pass(
    norm: str, block: str
) -> None:
    config = ResNetConfig.model_validate(
        {
            "stem": "cifar", "block": block, "blocks": (1, 2, 1), "widths": (8, 16, 32),
            "classes": 10, "shortcut": ("C", None, "B", "B"), "norm": NORMS[norm], "dropout": 0.5,
        }
    )  # fmt: skip
    count = complexity(norm, config)
    assert (count.parameters, count.multiply_adds) == counted(config, 32)


NAMES = [name for name in all_models() if "1202" not in name]
PADDED = [f"{name}-padded" for name in ("resnet18", "resnet50-3x3")]  # torchvision's stem


@pytest.mark.parametrize("name", [*NAMES, *PADDED])
def test_the_count_is_that_of_a_forward_pass(name: str) -> None:
    config = config_named(name.removesuffix("-padded"))
    if name in PADDED:
        config = config.model_copy(update={"pool": "padded"})
    parameters, multiply_adds = counted(config, 224 if config.stem == "imagenet" else 32)
    count = complexity(name, config)
    assert (count.parameters, count.multiply_adds) == (parameters, multiply_adds)
