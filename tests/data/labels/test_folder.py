"""Folders as people have them, whose labels are in a file."""

from pathlib import Path

import pytest
from PIL import Image

from reslab.data.datasets import EncodedImages, notes_of
from reslab.data.folder import open_folder, open_whole_folder, read_folder


def images(folder: Path, *names: str) -> Path:
    """Write small images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


def table(folder: Path, name: str, *lines: str) -> Path:
    """Write a text file."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def labels_of(images: EncodedImages) -> dict[str, str]:
    """Return the class of each file."""
    numbers = images.labels.tolist()
    return {file: images.ids[label] for file, label in zip(images.files, numbers, strict=True)}


def whole(folder: Path) -> EncodedImages:
    """Open images without a split."""
    opened = read_folder(folder)
    assert isinstance(opened, EncodedImages)
    return opened


FOUR = ("a.png", "b.png", "c.png", "d.png")
CATS = {"a.png": "cat", "b.png": "cat", "c.png": "dog", "d.png": "dog"}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("labels.csv", ["file,label", "a.png,cat", "b.png,cat", "c.png,dog", "d.png,dog"]),
        ("labels.csv", ["id,breed", "a,cat", "b,cat", "c,dog", "d,dog"]),
        ("Labels.CSV", ["image_id;Class Name", "a;cat", "b;cat", "c;dog", "d;dog"]),
        ("train.tsv", ["label\tpath", "cat\ta.png", "cat\tb.png", "dog\tc.png", "dog\td.png"]),
        ("labels.txt", ["a.png cat", "b.png cat", "c.png dog", "d.png dog"]),
        ("labels.txt", ["cat a.png", "cat b.png", "dog c.png", "dog d.png"]),
        ("labels.txt", ["a.png,cat", "b.png,cat", "c.png,dog", "d.png,dog"]),
        ("data.csv", ["a.png,cat", "b.png,cat", "c.png,dog", "d.png,dog"]),
        ("data.csv", ["pic_of,what", "a.png,cat", "b.png,cat", "c.png,dog", "d.png,dog"]),
        (
            "labels.csv",
            [",image,label_id,label", "0,a,7,cat", "1,b,7,cat", "2,c,9,dog", "3,d,9,dog"],
        ),
        ("x.csv", ["image,cat,dog", "a,1,0", "b,1,0", "c,0,1", "d,0.0,1.0"]),
        ("x.csv", ['"file","label"', '"a.png","cat"', "b.png,cat", "c.png, dog", "d.png,dog "]),
        (
            "labels.csv",
            ["file,label", "/in/x/a.png,cat", r"C:\data\b.png,cat", "./c.png,dog", "D.PNG,dog"],
        ),
        ("metadata.csv", ["file_name,label", "a.jpg,cat", "b.jpg,cat", "c.jpg,dog", "d.jpg,dog"]),
    ],
)
def test_tables(tmp_path: Path, name: str, lines: list[str]) -> None:
    images(tmp_path / "images", *FOUR)
    path = table(tmp_path, name, *lines)
    expected = {f"images/{file}": label for file, label in CATS.items()}
    assert labels_of(whole(tmp_path)) == expected
    assert labels_of(whole(path)) == expected
    sets = open_folder(tmp_path, validation=0.5)
    assert len(sets.train) == len(sets.test) == 2
    assert sets.train.image(0).shape == (8, 8, 3)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str) -> None:
    images(tmp_path, *FOUR)
    text = "file,label\r\na.png,Kätzchen\r\nb.png,Kätzchen\r\nc.png,Hund\r\nd.png,Hund\r\n"
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    assert whole(tmp_path).ids == ("Hund", "Kätzchen")


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


def test_numbers_are_in_numerical_order(tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(22)]
    images(tmp_path, *names)
    table(tmp_path, "labels.csv", "file,y", *(f"{n},{i // 2}.0" for i, n in enumerate(names)))
    opened = whole(tmp_path)
    assert opened.ids == tuple(map(str, range(11)))
    assert opened.labels.tolist() == [i // 2 for i in range(22)]


def test_numbers_are_positions_in_a_class_list(tmp_path: Path) -> None:
    images(tmp_path, *FOUR)
    table(tmp_path, "labels.csv", "file,label", "a.png,1", "b.png,1", "c.png,0", "d.png,0")
    table(tmp_path, "classes.csv", "index,id,name", "0,dog,Dog", "1,cat,Cat")
    opened = whole(tmp_path)
    assert opened.classes == ("Dog", "Cat")
    assert labels_of(opened) == CATS


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
    assert any("not the folders" in note for note in opened.notes)


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


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "x.png,cat", "y.png,dog"], "none of its files .*'x.png'.*images/a.png"),
        (["file,label", "a.png,cat", "a.png,dog", "b.png,dog"], r"csv:3: .*'dog', and 'cat' on l"),
        (["file,label", "a.png,cat", "b.png"], r"labels.csv:3: 1 column instead of 2"),
        (["file,width,height", "a.png,1,2", "b.png,1,3"], "none is called label or class"),
        (["file,label", "a.png,0.25", "b.png,0.5"], "numbers with fractions"),
        (["file,label", "a.png,cat|dog", "b.png,dog", "c.png,cat"], "several classes"),
        (["file,cat,dog", "a.png,1,1", "b.png,0,1", "c.png,1,0"], r"csv:2: .*several classes"),
        (["label,pixel0,pixel1", "1,0,0", "2,0,0"], "pixels"),
        (["file,label,split", "a.png,cat,train", "b.png,dog,extra"], "csv:3: the part 'extra'"),
        (
            ["file,xmin,ymin,xmax,ymax,class", "a.png,1,2,3,4,x", "a.png,2,3,4,5,x", "b,1,2,3,4,y"],
            "csv:3: 'a.png' is already on line 2: the table has several boxes per image",
        ),
        (["a.png,1,2,3,4,cat", "b.png,2,3,4,5,dog"], "it has boxes"),
        (["file,label,class", "a.png,cat,x", "b.png,cat,y", "c.png,dog,x"], "label, class may all"),
        (["file,label", "a.png,cat", "b.png,cat"], "has one class, 'cat'"),
        (["file,label", "a.png,", "b.png,"], "no row has a label"),
    ],
)
def test_refusals(tmp_path: Path, lines: list[str], message: str) -> None:
    images(tmp_path / "images", *FOUR)
    path = table(tmp_path, "labels.csv", *lines)
    for place in (tmp_path, path):
        with pytest.raises(ValueError, match=message):
            read_folder(place)


def test_one_name_in_two_folders(tmp_path: Path) -> None:
    images(tmp_path, "left/a.png", "right/a.png", "left/b.png")
    table(tmp_path, "labels.csv", "file,label", "a.png,cat", "b.png,dog")
    with pytest.raises(ValueError, match=r"csv:2: .* several images called 'a.png'"):
        read_folder(tmp_path)


def test_two_tables(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR)
    for name in ("colours", "shapes"):
        table(tmp_path, f"{name}.csv", "file,label", *(f"{f},{c}" for f, c in CATS.items()))
    with pytest.raises(ValueError, match=r"several files may have the labels.*colours.*shapes"):
        read_folder(tmp_path)
    assert len(whole(tmp_path / "shapes.csv")) == 4


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR, "e.png", "f.png")
    rows = ["a.png,cat", "b.png,cat", "b.png,cat", "c.png,dog", "d.png,", "x.png,dog"]
    table(tmp_path, "labels.csv", "file,label", *rows)
    notes = "\n".join(whole(tmp_path).notes)
    assert "1 row without a label" in notes
    assert "1 row left out, as the images are missing, such as 'x.png' on line 7" in notes
    assert "1 repeated row" in notes
    assert "3 images not listed in labels.csv left out: 3 in images/" in notes


def test_a_class_of_validation_alone(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR)
    table(tmp_path, "train.csv", "image,label", "a,cat", "b,dog")
    table(tmp_path, "val.csv", "image,label", "c,cat", "d,dgo")
    with pytest.raises(ValueError, match=r"'dgo' is in the validation rows.*did you mean 'dog'"):
        read_folder(tmp_path)


def test_validation_alone(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR)
    table(tmp_path, "val.csv", "image,label", "a,cat", "b,cat", "c,dog", "d,dog")
    assert len(open_whole_folder(tmp_path)) == 4
    with pytest.raises(ValueError, match="no labels to train on"):
        read_folder(tmp_path)
