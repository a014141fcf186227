"""A network whose blocks are recomputed has the bits of one that keeps its activations."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models.batchnorm import norms_of, train_mode
from reslab.models.config import ResNetConfig, cifar_config
from reslab.models.parts import BatchNorm, GroupNorm, NoisyBatchNorm, NoNorm
from reslab.models.random_layers import draw_numbers, numbers_for
from reslab.models.resnet import ResNet, build_resnet

SMALL = cifar_config(8).model_copy(update={"blocks": (12, 2), "widths": (8, 16)})  # groups of 2, 1
CONFIGS = {
    "option A": SMALL,
    "option B": SMALL.model_copy(update={"shortcut": "B"}),
    "option C": SMALL.model_copy(update={"shortcut": "C"}),
    "plain": SMALL.model_copy(update={"shortcut": None}),
    "bottleneck": SMALL.model_copy(update={"block": "bottleneck", "blocks": (2, 1)}),
    "group norm": SMALL.model_copy(update={"norm": GroupNorm(groups=4)}),
    "no norm": SMALL.model_copy(update={"norm": NoNorm()}),
    "different norms": SMALL.model_copy(
        update={"norm": (*[BatchNorm()] * 5, *[GroupNorm(groups=2)] * 4, *[NoNorm()] * 5)}
    ),
    "random layers": SMALL.model_copy(
        update={"norm": NoisyBatchNorm(), "dropout": 0.3, "stochastic_depth": 0.5}
    ),
}
IMAGES = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def passed(net: ResNet, *, bf16: bool = False) -> dict[str, Tensor]:
    """Return logits, gradients, moving averages and counts after two passes."""
    rng = torch.Generator().manual_seed(2)
    results = {}
    for number, images in enumerate((IMAGES, IMAGES.flip(0) + 1)):
        numbers = draw_numbers(net, len(images), rng)
        with numbers_for(net, numbers), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(images)
        F.cross_entropy(logits.float(), torch.arange(6)).backward()
        results[f"logits {number}"] = logits.detach()
    gradients = {f"grad {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return results | gradients | dict(net.named_buffers())


def assert_recomputing_changes_no_bit(net: ResNet, *, bf16: bool = False) -> None:
    recomputing = copy.deepcopy(net)
    recomputing.recompute = True
    kept, recomputed = passed(net, bf16=bf16), passed(recomputing, bf16=bf16)
    assert kept.keys() == recomputed.keys()
    for name, value in kept.items():
        assert torch.equal(value, recomputed[name]), name


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_recomputing_changes_no_bit(config: ResNetConfig, bf16: bool) -> None:
    assert_recomputing_changes_no_bit(build_resnet(config).train(), bf16=bf16)


def test_fixed_statistics_stay_fixed() -> None:
    net = build_resnet(SMALL)
    for norm in norms_of(net):
        nn.init.constant_(norm.weight, 0.5)
    train_mode(net, keep_statistics=True)
    assert_recomputing_changes_no_bit(net)
    assert all(norm.num_batches_tracked == 0 for norm in norms_of(net))


def test_blocks_after_a_frozen_stem_get_their_gradients() -> None:
    """The input of the first block has no gradient, but its weights have."""
    net = build_resnet(SMALL).train()
    net.stem.requires_grad_(False)
    assert_recomputing_changes_no_bit(net)
    assert all(p.grad is not None for p in net.stages.parameters())


def test_a_forward_pass_stores_a_fraction_of_the_activations() -> None:
    """A stage of 45 blocks keeps one map for every three."""
    net = build_resnet(SMALL.model_copy(update={"blocks": (45,), "widths": (8,)})).train()
    stored: set[int] = set()

    def store(tensor: Tensor) -> Tensor:
        if tensor.shape == (6, 8, 12, 12):
            stored.add(tensor.data_ptr())
        return tensor

    counts = []
    for net.recompute in (False, True):
        stored.clear()
        with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
            net(IMAGES)
        counts.append(len(stored))
    # two maps from the stem; four per block, or one per three blocks
    assert counts == [2 + 45 * 4, 2 + 45 // 3]


def test_without_gradients_nothing_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build_resnet(SMALL).train()
    net = copy.deepcopy(plain)
    net.recompute = True
    monkeypatch.setattr("reslab.models.resnet.recomputed_in_groups", pytest.fail)
    with torch.no_grad():
        assert torch.equal(net(IMAGES), plain(IMAGES))
    assert all(norm.num_batches_tracked == 1 for norm in norms_of(net))
