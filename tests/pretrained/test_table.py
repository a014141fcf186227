"""The table of published weights is consistent, and so are the names of ImageNet's classes."""

import csv
from pathlib import Path

import pytest

from reslab.data.class_list import read_class_list
from reslab.models.config import all_models
from reslab.pretrained.convert import IMAGENET_NAMES
from reslab.pretrained.table import PUBLISHED, Published

NAMES = [row.full_name for row in PUBLISHED]


@pytest.mark.parametrize("row", PUBLISHED, ids=NAMES)
def test_a_row_is_consistent(row: Published) -> None:
    """A published file carries the first digits of its SHA-256 in its name."""
    assert row.network in all_models()
    assert row.name == (f"cifar10-{row.network}" if row.size is None else row.network)
    assert (row.address is None) == (row.digest == "")
    if row.address is not None:
        assert len(row.digest) == 8
        assert row.file.partition(".")[0].endswith(f"-{row.digest}")
        assert row.address.startswith("https://")
        assert row.address.endswith(f"/{row.file}")
    assert 5 < row.top1_error < 35
    weights = all_models()[row.network].depth
    assert row.megabytes > weights / 100


def test_names_and_files_differ() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert len({row.file for row in PUBLISHED}) == len(PUBLISHED)


def test_deeper_nets_of_a_source_have_lower_errors() -> None:
    for source in {row.source for row in PUBLISHED}:
        errors = [row.top1_error for row in PUBLISHED if row.source == source]
        assert errors == sorted(errors, reverse=True)


def test_imagenets_classes_are_in_the_order_of_their_ids() -> None:
    ids, names = zip(*read_class_list(IMAGENET_NAMES), strict=True)
    assert len(ids) == len(set(names)) == 1000
    assert list(ids) == sorted(set(ids))
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")


def test_the_names_are_those_of_the_real_list(shared: Path) -> None:
    with (shared / "imagenet" / "classes.csv").open() as file:
        known = list(csv.reader(file))[1:]
    ours = read_class_list(IMAGENET_NAMES)
    assert [id_ for id_, _ in ours] == [wnid for _, wnid, _ in known]
    differing = [
        (name, theirs)
        for (_, name), (_, _, theirs) in zip(ours, known, strict=True)
        if name != theirs
    ]
    assert differing == [("crane bird", "crane"), ("maillot tank suit", "maillot")]
