"""Folders as people have them, whose labels are in a file."""

from pathlib import Path

import pytest
from tests.data.labels.layouts import CATS, FOUR, images, labels_of, table, whole

from reslab.data.datasets import notes_of
from reslab.data.folder import open_folder, open_whole_folder, read_folder


def test_kaggle_cifar10(tmp_path: Path) -> None:
    images(tmp_path / "train", *(f"{number}.png" for number in range(1, 11)))
    images(tmp_path / "test", *(f"{number}.png" for number in range(1, 6)))
    rows = [f"{number},{'frog' if number % 2 else 'truck'}" for number in range(1, 11)]
    table(tmp_path, "trainLabels.csv", "id,label", *rows)
    table(tmp_path, "sampleSubmission.csv", "id,label", *(f"{n},cat" for n in range(1, 6)))
    opened = whole(tmp_path)
    assert labels_of(opened)["train/3.png"] == "frog"
    assert len(opened) == 10
    assert any("5 images" in note and "test/" in note for note in opened.notes)


def test_dog_breeds(tmp_path: Path) -> None:
    images(tmp_path / "train", *(f"00{n}f.jpg" for n in range(4)))
    images(tmp_path / "test", "111a.jpg", "111b.jpg")
    table(tmp_path, "labels.csv", "id,breed", "000f,pug", "001f,pug", "002f,boxer", "003f,boxer")
    table(tmp_path, "sample_submission.csv", "id,boxer,pug", "111a,0.5,0.5", "111b,0.5,0.5")
    assert labels_of(whole(tmp_path)) == {
        "train/000f.jpg": "pug",
        "train/001f.jpg": "pug",
        "train/002f.jpg": "boxer",
        "train/003f.jpg": "boxer",
    }


def test_train_and_test_tables(tmp_path: Path) -> None:
    """The second part is the author's, and is not drawn."""
    images(tmp_path / "images", *FOUR, "e.png", "f.png")
    table(tmp_path, "train.csv", "image,label", "a,0", "b,0", "c,1", "d,1")
    table(tmp_path, "test.csv", "image,label", "e,1", "f,0")
    sets = open_folder(tmp_path)
    assert labels_of(sets.test) == {"images/f.png": "0", "images/e.png": "1"}
    assert len(sets.train) == 4
    assert labels_of(open_folder(tmp_path / "train.csv").test) == labels_of(sets.test)
    assert len(open_whole_folder(tmp_path)) == 2


def test_unlabelled_test_table(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR, "e.png", "f.png")
    table(tmp_path, "train.csv", "image,label", "a,0", "b,0", "c,1", "d,1")
    table(tmp_path, "test.csv", "image", "e", "f")
    opened = whole(tmp_path)
    assert len(opened) == 4
    assert any("2 images" in note for note in opened.notes)


@pytest.mark.parametrize(
    "column", [("split", "train", "valid", "test"), ("fold", "training", "val", "testing")]
)
def test_split_column(tmp_path: Path, column: tuple[str, ...]) -> None:
    images(tmp_path, *FOUR, "e.png", "f.png", "g.png")
    name, train, valid, test = column
    table(
        tmp_path,
        "labels.csv",
        f"file,label,{name}",
        *(f"{file},{label},{train}" for file, label in CATS.items()),
        f"e.png,cat,{valid}",
        f"f.png,dog,{valid}",
        f"g.png,dog,{test}",
    )
    sets = open_folder(tmp_path)
    assert sets.train.files == list(FOUR)
    assert sets.test.files == ["e.png", "f.png"]
    assert any("1 test image" in note for note in notes_of(sets.train, sets.test))


def test_flag_column(tmp_path: Path) -> None:
    images(tmp_path, *FOUR)
    rows = [f"{f},{label},{f in ('b.png', 'd.png')}" for f, label in CATS.items()]
    table(tmp_path, "labels.csv", "name,label,is_valid", *rows)
    assert open_folder(tmp_path).test.files == ["b.png", "d.png"]


def test_a_fold_number_is_not_a_part(tmp_path: Path) -> None:
    images(tmp_path, *FOUR)
    rows = [f"{file},{label},{row}" for row, (file, label) in enumerate(CATS.items())]
    table(tmp_path, "labels.csv", "file,label,fold", *rows)
    opened = whole(tmp_path)
    assert len(opened) == 4
    assert any("'fold' has numbers" in note for note in opened.notes)


def test_patients_stay_in_one_part(tmp_path: Path) -> None:
    rows = []
    for patient in range(10):
        for view in range(3):
            images(tmp_path / "scans", f"{patient}-{view}.png")
            label = ("healthy", "sick")[(patient + view) % 2]
            rows.append(f"{patient}-{view}.png,p{patient},{label}")
    table(tmp_path, "labels.csv", "image,patient_id,label", *rows)
    sets = open_folder(tmp_path, validation=0.3)
    patients = [{file.split("-")[0] for file in part.files} for part in (sets.train, sets.test)]
    assert not patients[0] & patients[1]
    assert len(sets.train) + len(sets.test) == 30
    assert 6 <= len(sets.test) <= 12
    assert set(sets.test.labels.tolist()) == {0, 1}
    other = open_folder(tmp_path, validation=0.3, seed=1)
    assert other.test.files != sets.test.files


def test_class_folders_that_agree(tmp_path: Path) -> None:
    images(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png", "dog/e.png")
    rows = ["cat/a.png,cat", "cat/b.png,cat", "dog/c.png,dog", "dog/d.png,dog"]
    table(tmp_path, "labels.csv", "file,label", *rows)
    assert len(whole(tmp_path)) == 5


def test_class_folders_with_a_split_in_tables(tmp_path: Path) -> None:
    images(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    table(tmp_path, "train.csv", "file,label", "cat/a.png,cat", "dog/c.png,dog")
    table(tmp_path, "val.csv", "file,label", "cat/b.png,cat", "dog/d.png,dog")
    assert open_folder(tmp_path).test.files == ["cat/b.png", "dog/d.png"]


def test_folders_of_patients(tmp_path: Path) -> None:
    images(tmp_path, "p1/a.png", "p1/b.png", "p2/c.png", "p2/d.png")
    rows = ["p1/a.png,sick", "p1/b.png,well", "p2/c.png,sick", "p2/d.png,well"]
    table(tmp_path, "labels.csv", "file,label", *rows)
    opened = whole(tmp_path)
    assert opened.ids == ("sick", "well")
    assert any("not the class folders" in note for note in opened.notes)


def test_numbered_folders(tmp_path: Path) -> None:
    images(tmp_path, "part_1/a.png", "part_1/b.png", "part_2/c.png", "part_2/d.png")
    table(tmp_path, "list.csv", "image_id,dx", "a,nv", "b,mel", "c,mel", "d,nv")
    assert whole(tmp_path).ids == ("mel", "nv")


def test_another_table_beside_class_folders(tmp_path: Path) -> None:
    images(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    rows = ["file,label", "cat/a.png,good", "cat/b.png,bad", "dog/c.png,good", "dog/d.png,bad"]
    path = table(tmp_path, "quality.csv", *rows)
    with pytest.raises(ValueError, match=r"quality.csv has other labels"):
        read_folder(tmp_path)
    assert whole(path).ids == ("bad", "good")
    table(tmp_path, "classes.csv", "index,id,name", "0,dog,Dog", "1,cat,Cat")
    assert whole(tmp_path).ids == ("dog", "cat")


def test_text_beside_class_folders_is_not_read(tmp_path: Path) -> None:
    images(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    table(tmp_path, "README.txt", "My images.", "", "Taken by me in 2020.", "Ask me first.")
    table(tmp_path, "prices.csv", "item,price", "lens,100", "tripod,50")
    assert whole(tmp_path).ids == ("cat", "dog")


def test_tables_in_the_folders_of_parts(tmp_path: Path) -> None:
    """As Roboflow exports classes."""
    for part, names in (("train", FOUR), ("valid", ("e.png", "f.png"))):
        images(tmp_path / part, *names)
        rows = [f"{name},{row % 2},{1 - row % 2}" for row, name in enumerate(names)]
        table(tmp_path / part, "_classes.csv", "filename, cat, dog", *rows)
    sets = open_folder(tmp_path)
    assert len(sets.train) == 4
    assert labels_of(sets.test) == {"valid/f.png": "cat", "valid/e.png": "dog"}


def test_two_tables(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR)
    for name in ("colours", "shapes"):
        table(tmp_path, f"{name}.csv", "file,label", *(f"{f},{c}" for f, c in CATS.items()))
    assert len(whole(tmp_path)) == 4
    table(tmp_path, "shapes.csv", "file,label", *(f"{f},{f[0] in 'ac'}" for f in CATS))
    with pytest.raises(ValueError, match=r"several files may have the labels.*colours.*shapes"):
        read_folder(tmp_path)
    assert len(whole(tmp_path / "shapes.csv")) == 4


def test_a_class_of_validation_alone(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR)
    table(tmp_path, "train.csv", "image,label", "a,cat", "b,dog")
    table(tmp_path, "val.csv", "image,label", "c,cat", "d,dgo")
    with pytest.raises(ValueError, match=r"'dgo' is in the rows of .*val.csv but .* mean 'dog'"):
        read_folder(tmp_path)


def test_names_of_the_sets(tmp_path: Path) -> None:
    images(tmp_path / "photos/images", *FOUR)
    rows = [f"{file},{label}" for file, label in CATS.items()]
    table(tmp_path / "photos", "labels.csv", "file,label", *rows)
    assert open_whole_folder(tmp_path / "photos").name == "photos"
    sets = open_folder(tmp_path / "photos")
    assert (sets.train.name, sets.test.name) == ("train", "validation")


def test_validation_alone(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR)
    table(tmp_path, "val.csv", "image,label", "a,cat", "b,cat", "c,dog", "d,dog")
    assert len(open_whole_folder(tmp_path)) == 4
    with pytest.raises(ValueError, match="no labels to train on"):
        read_folder(tmp_path)


def test_numbered_folders_that_happen_to_agree(tmp_path: Path) -> None:
    """As in HAM10000, whose images lie in two folders."""
    images(tmp_path, "images_part_1/a.jpg", "images_part_1/b.jpg", "images_part_2/c.jpg")
    rows = ["lesion_id,image_id,dx,dx_type,age", "L1,a,nv,histo,80.0", "L1,b,nv,histo,80.0"]
    table(tmp_path, "HAM10000_metadata.csv", *rows, "L2,c,mel,histo,50.0")
    opened = whole(tmp_path)
    assert opened.ids == ("mel", "nv")
    assert opened.groups is not None
    assert any("each group, such as a patient" in note for note in opened.notes)


def test_a_group_may_be_the_folder_of_the_file(tmp_path: Path) -> None:
    images(tmp_path, "p1/a.png", "p1/b.png", "p2/a.png", "p2/b.png", "p3/a.png")
    rows = ["p1,a.png,sick", "p1,b.png,well", "p2,a.png,well", "p2,b.png,well", "p3,a,sick"]
    table(tmp_path, "labels.csv", "patient,file,label", *rows)
    assert labels_of(whole(tmp_path)) == {
        "p1/a.png": "sick",
        "p1/b.png": "well",
        "p2/a.png": "well",
        "p2/b.png": "well",
        "p3/a.png": "sick",
    }


def test_ids_that_begin_again_in_each_part(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        images(tmp_path / part, *(f"{number}.png" for number in range(4)))
        rows = [f"{number},{'xy'[number % 2]}" for number in range(4)]
        table(tmp_path, f"{part}.csv", "id,label", *rows)
    sets = open_folder(tmp_path)
    assert {file.split("/")[0] for file in sets.train.files} == {"train"}
    assert {file.split("/")[0] for file in sets.test.files} == {"valid"}
    assert labels_of(sets.test)["valid/3.png"] == "y"
    assert any("test.csv are left out: 4 test images" in note for note in sets.train.notes)


def test_an_image_and_a_patient_in_both_parts_are_said(tmp_path: Path) -> None:
    images(tmp_path, *FOUR)
    header = "file,label,patient"
    table(tmp_path, "train.csv", header, "a.png,cat,1", "b.png,dog,2")
    table(tmp_path, "val.csv", header, "a.png,cat,1", "c.png,cat,2", "d.png,dog,3")
    notes = "\n".join(open_folder(tmp_path).train.notes)
    assert "1 image in training and in validation, such as a.png: a leak" in notes
    assert "2 groups of images with a part in training" in notes


def test_a_wrapped_folder(tmp_path: Path) -> None:
    images(tmp_path / "archive/images", *FOUR)
    table(tmp_path / "archive", "train.csv", "file,label", *(f"{f},{c}" for f, c in CATS.items()))
    assert len(whole(tmp_path)) == 4


def test_other_files_are_counted(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR)
    table(tmp_path, "train.csv", "file,label", *(f"{file},{label}" for file, label in CATS.items()))
    table(tmp_path, "classes.csv", "index,id,name", "0,cat,Cat", "1,dog,Dog")
    table(tmp_path, "test.csv", "file", "e.png")
    for name in ("sample_submission.csv", "README.md", "images/clip.mp4", ".hidden"):
        table(tmp_path, name, "")
    notes = whole(tmp_path).notes
    assert "3 files left out: 1 .md, 1 .mp4, 1 .csv" in notes
    assert any("test.csv: it has no labels" in note for note in notes)


def test_class_folders_beside_tables_of_something_else(tmp_path: Path) -> None:
    """Boxes, and a table with several rows for an image, do not stop class folders."""
    images(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    boxes = ["file,xmin,ymin,xmax,ymax,label", "cat/a.png,1,1,2,2,ear", "cat/a.png,3,3,4,4,tail"]
    table(tmp_path, "annotations.csv", *boxes)
    table(tmp_path, "visits.csv", "file,level", "cat/a.png,1", "cat/a.png,2", "dog/c.png,1")
    assert whole(tmp_path).ids == ("cat", "dog")
