"""Splits that keep each group of images in one part."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from reslab.data.datasets import EncodedImages
from reslab.data.groups import split_by_group


def grouped(labels: Sequence[int], groups: Sequence[int]) -> EncodedImages:
    """Return a set of files that need not exist."""
    ids = tuple(str(label) for label in sorted(set(labels)))
    files = [f"{row}.png" for row in range(len(labels))]
    images = EncodedImages("set", files, torch.tensor(labels), ids, ids, lambda file: b"")
    return replace(images, groups=torch.tensor(groups))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_each_group_is_in_one_part_and_each_class_in_both(fraction: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(60, (600,), generator=generator).tolist()
    labels = torch.randint(4, (600,), generator=generator).tolist()
    sets = split_by_group(grouped(labels, groups), fraction, seed)
    assert sets.train.groups is not None
    assert sets.test.groups is not None
    assert not set(sets.train.groups.tolist()) & set(sets.test.groups.tolist())
    assert sorted((*sets.train.files, *sets.test.files)) == sorted(f"{n}.png" for n in range(600))
    assert len(sets.test) == pytest.approx(fraction * 600, abs=20)  # two groups
    for part in (sets.train, sets.test):
        assert part.labels.unique().tolist() == [0, 1, 2, 3]


def test_the_split_is_repeatable_and_depends_on_the_seed() -> None:
    images = grouped([0, 1] * 40, [row // 4 for row in range(80)])
    tests = [split_by_group(images, 0.2, seed).test.files for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


def test_a_rare_class_gets_its_smallest_group() -> None:
    labels = [0] * 20 + [1] * 3
    groups = [row // 2 for row in range(20)] + [10, 11, 11]
    sets = split_by_group(grouped(labels, groups), 0.2, 0)
    assert sets.test.labels.bincount().tolist()[1] in (1, 2)


def test_a_class_in_one_group_cannot_be_split() -> None:
    images = grouped([0, 0, 1, 1], [0, 1, 2, 2])
    with pytest.raises(ValueError, match="class '1' cannot be split"):
        split_by_group(images, 0.5, 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_by_group(images, 1.0, 0)
