import numpy as np
import pytest
import torch

from reslab.data.datasets import EncodedImages, ImagesInMemory
from reslab.evaluation.predict import match_classes
from reslab.evaluation.report import classify

NAMES = ("tench", "great white shark", "crane", "crane", "goldfish")
WNIDS = ("n01", "n02", "n03", "n04", "n05")


@pytest.fixture
def of(album):
    def make(*folders: str, names: tuple[str, ...] | None = None):
        images = [np.full((2, 2, 3), at, np.uint8) for at in range(2 * len(folders))]
        labels = [at // 2 for at in range(2 * len(folders))]
        return album(images, labels, classes=names or folders, ids=folders)

    return make


def test_a_subset_by_id_in_any_order(of) -> None:
    images, lost = match_classes(of("n05", "N01"), NAMES, WNIDS)
    assert lost == []
    assert images.labels.tolist() == [4, 4, 0, 0]
    assert isinstance(images, EncodedImages)
    assert (images.classes, images.ids) == (NAMES, WNIDS)


def test_by_name_whatever_its_case_and_gaps(of) -> None:
    images, lost = match_classes(of("Goldfish", "Great_White-Shark"), NAMES, WNIDS)
    assert (images.labels.tolist(), lost) == ([4, 4, 1, 1], [])
    images, _ = match_classes(of("folder1", "folder2", names=("tench", "goldfish")), NAMES, WNIDS)
    assert images.labels.tolist() == [0, 0, 4, 4]


def test_an_id_counts_before_a_name(of) -> None:
    images, _ = match_classes(of("n04", "n01", names=("crane", "goldfish")), NAMES, WNIDS)
    assert images.labels.tolist() == [3, 3, 0, 0]


def test_classes_that_are_not_found_are_named_and_left_out(of) -> None:
    images, lost = match_classes(of("tench", "gold fish", "crane"), NAMES, WNIDS)
    assert images.labels.tolist() == [0, 0]
    assert isinstance(images, EncodedImages)
    assert images.files == ["0.png", "1.png"]
    assert len(lost) == 2
    assert "'gold fish'" in lost[0]
    assert "did you mean 'goldfish'" in lost[0]
    assert "matches several outputs" in lost[1]


def test_no_class_in_common(of) -> None:
    with pytest.raises(ValueError, match=r"no class of album matches an output.*'sofa'"):
        match_classes(of("sofa", "chair"), NAMES, WNIDS)


def test_all_outputs_compete(of) -> None:
    """The model is confident of a class that the folder lacks: every image is wrong."""
    images, _ = match_classes(of("n01", "n05"), NAMES, WNIDS)
    scores = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.5])
    report = classify(lambda batch: scores.expand(len(batch), 5), images)
    assert report.top1_error == 100.0
    assert {row["class"] for row in report.per_class} == {"tench", "goldfish"}
    assert report.per_class[0]["taken_for"] == [["great white shark", 2]]


def test_sets_in_memory_too() -> None:
    images = ImagesInMemory(
        "test", torch.zeros(3, 3, 2, 2, dtype=torch.uint8), torch.arange(3), tuple("abc")
    )
    assert match_classes(images, ("a", "b", "c"))[0] is images
    matched, lost = match_classes(images, ("C", "x", "A"))
    assert (matched.labels.tolist(), matched.classes) == ([2, 0], ("C", "x", "A"))
    assert len(lost) == 1


def test_case_matters_if_outputs_differ_only_in_case(of) -> None:
    letters = ("A", "B", "a", "b")
    images, lost = match_classes(of("a", "B"), letters)
    assert (images.labels.tolist(), lost) == ([2, 2, 1, 1], [])
    images, lost = match_classes(of("a", "B", "B "), letters)
    assert images.labels.tolist() == [2, 2, 1, 1]
    assert "or the same output as another class" in lost[0]
