"""The random numbers of a network's layers are part of every mini-batch's draws."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from reslab.models.batchnorm import norms_of
from reslab.models.random_layers import numbers_for, random_layers
from reslab.recipes import recipe
from reslab.runtime.device import setup_device
from reslab.runtime.files import sha256_of
from reslab.training.classification import ClassificationTask
from reslab.training.loop import eager_update_of
from reslab.training.setup import Inputs
from reslab.training.train import Job, begin_classification

SMALL = [
    "model.blocks=[1,1,1]", "model.widths=[8,8,8]", "batch_size=32", "precision=fp32",
    "augmentation.pad=0", "recompute_bn=2",
]  # fmt: skip
RANDOM = ["model.stochastic_depth=0.5", "model.norm=noisy-batch", "model.dropout=0.2"]


def task(*changes: str, seed: int = 1) -> ClassificationTask:
    small = recipe("digits-resnet20").with_changes([*SMALL, *changes])
    return begin_classification(Job(small, Path("unused"), Inputs(), setup_device("fp32"), seed))


def test_numbers_depend_on_seed_and_iteration_alone() -> None:
    first, again, other = task(*RANDOM), task(*RANDOM), task(*RANDOM, seed=2)
    numbers = first.draws(7).network
    assert len(numbers) == len(random_layers(first.net)) == 13  # 7 norms, 3 dropouts, 3 blocks
    assert all(len(drawn) == 32 for drawn in numbers)
    first.draws(8)
    for drawn, same in zip(numbers, again.draws(7).network, strict=True):
        assert torch.equal(drawn, same)
    for different in (again.draws(8), other.draws(7)):
        assert not torch.equal(numbers[0], different.network[0])


def test_each_process_gets_its_slice_of_the_mini_batchs_numbers() -> None:
    whole = task(*RANDOM)
    parts = []
    for rank_slice in (slice(0, 16), slice(16, 32)):
        part = task(*RANDOM)
        part.loader.rank_slice = rank_slice
        parts.append(part.draws(3).network)
    for number, drawn in enumerate(whole.draws(3).network):
        assert torch.equal(torch.cat([part[number] for part in parts]), drawn)


def test_shares_get_their_numbers_and_the_loss_uses_them() -> None:
    random = task(*RANDOM)
    draws = random.draws(3)
    shares = random.prepare(draws)
    assert [len(share.images) for share in shares] == [16, 16]
    for number, drawn in enumerate(draws.network):
        assert torch.equal(torch.cat([share.network[number] for share in shares]), drawn)
    share = shares[1]
    loss, _ = random.loss(share)
    with numbers_for(random.net, [drawn[16:] for drawn in draws.network]):
        expected = F.cross_entropy(random.net(share.images), share.labels)
    torch.testing.assert_close(loss, expected)


def test_statistics_are_recomputed_for_the_net_as_it_will_be_used() -> None:
    """Without dropped blocks, dropped values or noise: those of the net without random layers."""
    random, plain = task(*RANDOM), task()
    plain.net.load_state_dict(random.net.state_dict())
    for each in (random, plain):
        each.recompute_statistics(range(3))
    for one, other in zip(norms_of(random.net), norms_of(plain.net), strict=True):
        assert one.running_mean is not None
        assert other.running_mean is not None
        assert one.running_mean.any()
        assert torch.equal(one.running_mean, other.running_mean)
    random.train_mode()
    assert all(layer.training for layer in random_layers(random.net))


def test_without_batch_norm_there_is_nothing_to_recompute() -> None:
    assert task().recomputed == 2
    assert task("model.norm=noisy-batch").recomputed == 2
    assert task("model.norm=group").recomputed == 0


@pytest.mark.parametrize("changes", [[], RANDOM])
def test_recomputed_blocks_change_no_bit_of_a_run(changes: list[str]) -> None:
    """Neither a table of losses and statistics, nor a weight, nor a moving average."""
    deep = ["model.blocks=[12]", "model.widths=[8]", *changes]  # groups of two blocks
    results = []
    for how in ("none", "blocks"):
        learner = task(*deep, f"recompute={how}")
        update = eager_update_of(learner)
        tables = torch.stack([update(learner.draws(k), 0.05) for k in range(3)])
        results.append((tables, sha256_of(learner.net.state_dict())))
    (tables, bits), (others, other_bits) = results
    assert torch.equal(tables, others)
    assert bits == other_bits


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        (["model.stochastic_depth=0.5"], 0.05),
        (["model.norm=group"], 0.05),
        (["model.norm=noisy-batch"], 0.05),
        (["model.dropout=0.2"], 0.05),
        (["model.norm=none"], 1e-5),
        (['model.shortcut=["C",null,"A"]', 'model.norm=["group","none","batch"]'], 0.05),
    ],
)
def test_every_kind_of_net_learns(changes: list[str], rate: float) -> None:
    learner = task(*changes)
    update = eager_update_of(learner)
    losses = [update(learner.draws(k), rate)[:, -2].mean().item() for k in range(120)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
