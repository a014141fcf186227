"""Classes of training and validation that are numbered or written differently."""

import json
import shutil
from pathlib import Path

import pytest

from reslab.api.check import check
from reslab.data.boxes.folder import open_detection
from reslab.data.folder import open_folder, open_whole_folder
from reslab.evaluation.predict import match_classes

FIELD = Path(__file__).parent
DOG_OF_VAL = 1  # category id in the validation file; in training, 1 is the cat


def boxes(tmp_path: Path, categories: list[dict] | None = None) -> Path:
    folder = shutil.copytree(FIELD / "boxes/permuted-ids", tmp_path / "boxes")
    if categories is not None:
        path = folder / "annotations/instances_val.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "categories": categories}))
    return folder


def written_names(folder: Path) -> list[str]:
    """Return the name of each validation object by the validation file's own categories."""
    document = json.loads((folder / "annotations/instances_val.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    images = [image["id"] for image in document["images"]]
    objects = sorted(document["annotations"], key=lambda entry: images.index(entry["image_id"]))
    return [names[entry["category_id"]] for entry in objects]


@pytest.mark.parametrize("names", [("dog", "cat"), ("cat", "dog"), ("DOG ", "Cat")])
def test_categories_are_matched_by_name(names: tuple[str, str], tmp_path: Path) -> None:
    folder = boxes(tmp_path, [{"id": k, "name": name} for k, name in enumerate(names, 1)])
    test = open_detection(folder).test
    labels = [int(label) for truth in test.truths for label in truth.labels]
    folded = [name.strip().lower() for name in written_names(folder)]
    assert [test.classes[label] for label in labels] == folded
    assert set(folded) == {"cat", "dog"}
    kinds = [finding.kind for finding in check(folder).findings]
    assert ("category ids" in kinds) == (names != ("cat", "dog"))


def test_ids_that_start_elsewhere(tmp_path: Path) -> None:
    folder = boxes(tmp_path)
    path = folder / "annotations/instances_val.json"
    document = json.loads(path.read_text())
    before = open_detection(folder).test
    for entry in document["annotations"]:
        entry["category_id"] += 9
    for category in document["categories"]:
        category["id"] += 9
    path.write_text(json.dumps(document))
    after = open_detection(folder).test
    for one, other in zip(before.truths, after.truths, strict=True):
        assert one.labels.equal(other.labels)


def test_a_subset_of_the_categories_and_an_undefined_id(tmp_path: Path) -> None:
    folder = boxes(tmp_path, [{"id": 2, "name": "cat"}])
    with pytest.raises(ValueError, match=r"annotation \d+: no category has the id 1"):
        open_detection(folder)  # 1 is defined in training, but not here
    path = folder / "annotations/instances_val.json"
    document = json.loads(path.read_text())
    kept = [entry for entry in document["annotations"] if entry["category_id"] != DOG_OF_VAL]
    path.write_text(json.dumps({**document, "annotations": kept}))
    test = open_detection(folder).test
    assert {test.classes[k] for truth in test.truths for k in truth.labels.tolist()} == {"cat"}


def test_a_category_unknown_in_training_is_refused_with_the_nearest(tmp_path: Path) -> None:
    folder = boxes(tmp_path, [{"id": 1, "name": "dogg"}, {"id": 2, "name": "cat"}])
    with pytest.raises(ValueError, match="no class 'dogg'; did you mean 'dog'"):
        open_detection(folder)


def test_an_accent_is_the_same_class_in_every_unicode_form() -> None:
    folder = FIELD / "images/accents"
    sets = open_folder(folder)
    assert sets.test.ids == sets.train.ids
    assert sorted(set(sets.test.labels.tolist())) == [0, 1]
    validation = open_whole_folder(folder)
    assert validation.classes != sets.train.classes  # the folders' names differ in bytes
    images, unmatched = match_classes(validation, sets.train.classes, sets.train.ids)
    assert unmatched == []
    assert images.labels.tolist() == sets.test.labels.tolist()
    assert not any(finding.kind == "class not in validation" for finding in check(folder).findings)


def image_folder(tmp_path: Path, train: list[str], val: list[str]) -> Path:
    source = next((FIELD / "images/accents/train/tea").iterdir())
    for part, names in (("train", train), ("val", val)):
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            shutil.copy(source, tmp_path / part / name / "0.png")
    return tmp_path


def test_case_alone_makes_no_other_class(tmp_path: Path) -> None:
    sets = open_folder(image_folder(tmp_path, ["Cat", "dog"], ["cat", "dog "]))
    assert sets.test.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("train", "val", "line"),
    [
        (["cat", "dog"], ["cta", "dog"], "'cta' is in .*did you mean 'cat'"),
        (["Cat", "cat", "dog"], ["CAT", "dog"], "'CAT' of .* matches several classes"),
        (["cat", "dog"], ["cat", "Cat"], "'Cat' of .* or the same class as another"),
    ],
)
def test_names_that_match_no_class_or_several(
    train: list[str], val: list[str], line: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=line):
        open_folder(image_folder(tmp_path, train, val))
