"""Tables of labels as people write them."""

from pathlib import Path

import pytest
from tests.data.labels.layouts import CATS, FOUR, images, labels_of, table, whole

from reslab.data.folder import open_folder, read_folder


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
        (["a.png,1,2,3,4,cat", "a.png,2,3,4,5,dog"], "it has boxes"),
        (["file,label,class", "a.png,cat,x", "b.png,cat,y", "c.png,dog,x"], "label, class may all"),
        (["file,label", "a.png,cat", "b.png,cat"], "have one class, 'cat'"),
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


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR, "e.png", "f.png")
    rows = ["a.png,cat", "b.png,cat", "b.png,cat", "c.png,dog", "d.png,", "x.png,dog"]
    table(tmp_path, "labels.csv", "file,label", *rows)
    notes = "\n".join(whole(tmp_path).notes)
    assert "1 row without a label" in notes
    assert "1 row left out, as the images are missing, such as 'x.png' on line 7" in notes
    assert "1 repeated row" in notes
    assert "3 images not listed in labels.csv left out: 3 in images/" in notes


def test_names_with_spaces(tmp_path: Path) -> None:
    images(tmp_path / "images", "my cat 1.png", "my cat 2.png", "a dog.png", "a second dog.png")
    rows = ["my cat 1.png cat", "my cat 2.png cat", "a dog.png dog", "a second dog.png dog"]
    table(tmp_path, "labels.txt", *rows)
    assert labels_of(whole(tmp_path))["images/a second dog.png"] == "dog"


def test_columns_of_numbers_in_a_text_are_not_a_label(tmp_path: Path) -> None:
    """As in the Oxford pets: which of the numbers is the class, the file does not say."""
    images(tmp_path / "images", *FOUR)
    table(tmp_path, "list.txt", "#Image CLASS SPECIES", "a 1 1", "b 1 1", "c 2 1", "d 2 2")
    with pytest.raises(ValueError, match="3 columns without names"):
        read_folder(tmp_path)


def test_other_spellings_of_a_name(tmp_path: Path) -> None:
    images(tmp_path / "images", "e\u0301.png", "B.PNG", "c.png", "d.png")
    rows = ["\u00e9.png,A\u0308pfel", "b.png,\u00c4pfel", "c.jpg,Birnen", "d,Birnen"]
    table(tmp_path, "labels.csv", "file,label", *rows)
    assert whole(tmp_path).ids == ("Birnen", "\u00c4pfel")


def test_classes_that_differ_in_case_are_said(tmp_path: Path) -> None:
    images(tmp_path, *FOUR)
    table(tmp_path, "labels.csv", "file,label", "a.png,Cat", "b.png,cat", "c.png,dog", "d.png,dog")
    assert any("'Cat' and 'cat' are two classes" in note for note in whole(tmp_path).notes)


def test_the_first_line_of_excel(tmp_path: Path) -> None:
    images(tmp_path, *FOUR)
    table(tmp_path, "labels.csv", "sep=;", "file;label", *(f"{f};{c}" for f, c in CATS.items()))
    assert labels_of(whole(tmp_path)) == CATS


@pytest.mark.parametrize("values", ["0010", "yyny", "abab"])
def test_a_split_that_cannot_be_used_is_refused(tmp_path: Path, values: str) -> None:
    """No other split is drawn where the author has one."""
    images(tmp_path, *FOUR)
    rows = [f"{f},{c},{value}" for (f, c), value in zip(CATS.items(), values, strict=True)]
    table(tmp_path, "labels.csv", "file,label,split", *rows)
    with pytest.raises(ValueError, match=r"column 'split' has ., .: write train, val or test"):
        read_folder(tmp_path)


def test_parts_with_further_words(tmp_path: Path) -> None:
    images(tmp_path, *FOUR)
    usage = ["Training", "Training", "PublicTest", "PrivateTest"]
    labels = ["x", "y", "x", "y"]
    rows = [",".join(row) for row in zip(FOUR, labels, usage, strict=True)]
    table(tmp_path, "labels.csv", "file,emotion,Usage", *rows)
    assert len(open_folder(tmp_path).test) == 2


def test_a_test_table_with_an_empty_column(tmp_path: Path) -> None:
    images(tmp_path, *FOUR)
    table(tmp_path, "train.csv", "file,label", "a.png,x", "b.png,y")
    table(tmp_path, "test.csv", "file,label", "c.png,", "d.png,")
    opened = whole(tmp_path)
    assert opened.files == ["a.png", "b.png"]
    assert any("test.csv: no row has a label" in note for note in opened.notes)


def test_a_table_called_sample(tmp_path: Path) -> None:
    images(tmp_path / "images", *FOUR)
    rows = [f"{file},{label}" for file, label in CATS.items()]
    table(tmp_path, "sample_labels.csv", "Image Index,Finding Labels", *rows)
    table(tmp_path, "sample_submission.csv", "Image Index,Finding Labels", *rows)
    assert len(whole(tmp_path)) == 4
