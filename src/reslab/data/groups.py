"""Split images into training and validation without dividing a group, such as a patient."""

import os
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b

import torch

from reslab.data.datasets import EncodedImages, FolderSplits, Splits


def split_by_group(whole: EncodedImages, validation: float, seed: int) -> FolderSplits:
    """Split off about the fraction `validation` of each class, in whole groups.

    Groups are considered in the order of a hash of the seed and their first file. One is taken if
    it brings the classes closer to the fraction and leaves each class a training image. Raises
    ValueError if a class cannot be in both parts.
    """
    assert whole.groups is not None
    if not 0 < validation < 1:
        raise ValueError(f"validation={validation}: the fraction must be between 0 and 1")
    counts: dict[int, Counter[int]] = {group: Counter() for group in _ranked(whole, seed)}
    for group, label in zip(whole.groups.tolist(), whole.labels.tolist(), strict=True):
        counts[group][label] += 1
    total = Counter(whole.labels.tolist())
    wanted = {label: max(round(validation * number), 1) for label, number in total.items()}
    held_out: Counter[int] = Counter()
    taken = set()
    for group, count in counts.items():
        if _brings_closer(wanted, held_out, count) and _keeps_training(total, held_out, count):
            taken.add(group)
            held_out += count
    for label in total:
        if held_out[label]:
            continue
        able = [
            group
            for group, count in counts.items()
            if count[label] and _keeps_training(total, held_out, count)
        ]
        if not able:
            raise ValueError(
                f"class {whole.shown(label)} cannot be split, as its images are in too few groups "
                "(patients, videos): add images of others, or a column split with train and val"
            )
        smallest = min(able, key=lambda group: counts[group].total())
        taken.add(smallest)
        held_out += counts[smallest]
    mask = torch.tensor([group in taken for group in whole.groups.tolist()])
    train = whole.take("train", (~mask).nonzero()[:, 0])
    return Splits(train, whole.take("validation", mask.nonzero()[:, 0]))


def _brings_closer(
    wanted: Mapping[int, int], held_out: Counter[int], count: Mapping[int, int]
) -> bool:
    """Return whether a group's images bring its classes closer to the wanted numbers."""
    gains = (
        abs(wanted[label] - held_out[label]) - abs(wanted[label] - held_out[label] - number)
        for label, number in count.items()
    )
    return sum(gains) > 0


def _keeps_training(
    total: Mapping[int, int], held_out: Counter[int], count: Mapping[int, int]
) -> bool:
    """Return whether each class of a group keeps an image for training."""
    return all(held_out[label] + number < total[label] for label, number in count.items())


def _ranked(images: EncodedImages, seed: int) -> list[int]:
    """Return the groups in the order of a hash of the seed and their first file."""
    assert images.groups is not None
    first: dict[int, str] = {}
    for group, file in zip(images.groups.tolist(), images.files, strict=True):
        first[group] = min(file, first.get(group, file))
    key = str(seed).encode()

    def rank(group: int) -> bytes:
        return blake2b(os.fsencode(first[group]), digest_size=8, key=key).digest()

    return sorted(first, key=rank)
