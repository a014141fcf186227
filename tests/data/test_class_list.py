"""Class lists: the columns of this project, and those of other programs."""

from pathlib import Path

import pytest

from reslab.data.class_list import read_class_list


def read(folder: Path, text: str | bytes, folders: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    path = folder / "classes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_class_list(path, folders)


def test_both_headers_quotes_and_spreadsheet_encodings(tmp_path: Path) -> None:
    expected = [("b", "a beetle, red"), ("a", "Ähre")]
    rows = '0,b,"a beetle, red"\n1,a,Ähre\n'
    assert read(tmp_path, "index,wnid,name\n" + rows) == expected
    assert read(tmp_path, "Index, id, Name\n" + rows) == expected
    spreadsheet = ("index,id,name\n" + rows + "\n").replace("\n", "\r\n")
    assert read(tmp_path, b"\xef\xbb\xbf" + spreadsheet.encode()) == expected
    german = "index;id;name\n0;b;a beetle, red\n1;a;Ähre\n"
    assert read(tmp_path, german) == expected


@pytest.mark.parametrize(
    "text",
    [
        "bee,0\nant,1\n",
        "ant,1\nbee,0\n",
        "bee,1\nant,2\n",
        "0,bee\n1,ant\n",
        "name,index\nbee,0\nant,1\n",
        "ClassId,Name\n0,bee\n1,ant\n",
        "label\tid\nbee\t0\nant\t1\n",
        "class\nbee\nant\n",
        "bee\r\nant\r\n",
    ],
)
def test_lists_of_names_and_numbers_are_read(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == [("bee", "bee"), ("ant", "ant")]


def test_the_header_decides_which_of_two_columns_of_numbers_has_the_names(tmp_path: Path) -> None:
    assert read(tmp_path, "index,name\n0,7\n1,3\n") == [("7", "7"), ("3", "3")]
    assert read(tmp_path, "name,index\n0,1\n1,0\n") == [("1", "1"), ("0", "0")]
    assert read(tmp_path, "7,0\n3,1\n") == [("7", "7"), ("3", "3")]


def test_folders_may_be_named_by_the_numbers_of_a_list(tmp_path: Path) -> None:
    text = "ClassId,Name\n0,stop\n1,give way\n2,no\n"
    expected = [("00000", "stop"), ("00001", "give way"), ("2", "no")]
    assert read(tmp_path, text, ("00000", "00001")) == expected
    by_name = read(tmp_path, text, ("no", "stop"))
    assert [id_ for id_, _ in by_name] == ["stop", "give way", "no"]


def test_the_classes_of_imagenet(shared: Path) -> None:
    classes = read_class_list(shared / "imagenet" / "classes.csv")
    assert len(classes) == 1000
    assert classes[0] == ("n01440764", "tench")
    assert [key for key, _ in classes] == sorted(key for key, _ in classes)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "",
            ":1: the first line must be index,wnid,name or index,id,name, or each line name,number",
        ),
        ("0,a,A\n", ":1: the first line must be"),
        ("file,label\n0.png,ant\n", ":1: the first line must be"),
        ("ant,0\nbee,1,2\n", ":1: the first line must be"),
        ("ant,0\nbee\n", ":1: the first line must be"),
        ("ant,0\nbee,0\n", ":2: 'ant' has the number 0 already"),
        ("ant,0\nant,1\n", ":2: 'ant' is already on line 1"),
        ("ant,0\n,1\n", ":2: the class has no name"),
        ("ant,0\nbee,2\n", ": the numbers must run from 0 or 1 without gaps"),
        ("ant,2\nbee,3\n", ": the numbers must run from 0 or 1 without gaps"),
        ("name,index\n", " lists no classes"),
        ("index,id,name\n", " lists no classes"),
        ("index,id,name\n0,a\n", ":2: 2 columns instead of 3"),
        ("index,id,name\n0,a,A\n1,b,B,and more\n", ":3: 4 columns instead of 3"),
        ("index,id,name\n1,a,A\n", ":2: index '1' instead of 0"),
        ("index,id,name\n0,a,A\nx,b,B\n", ":3: index 'x' instead of 1"),
        ("index,wnid,name\n0,,A\n", ":2: the class has no wnid"),
        ("index,id,name\n0,a, \n", ":2: the class has no name"),
        ("index,id,name\n0,a,A\n1,a,B\n", ":3: 'a' is already on line 2"),
        ('index,id,name\n0,a,"A\n', ":2: unexpected end of data"),
        (b"index,id,name\n0,a,\xff\n", " is not UTF-8 text"),
    ],
)
def test_a_malformed_file_gives_a_one_line_error_with_its_place(
    tmp_path: Path, text: str | bytes, line: str
) -> None:
    with pytest.raises(ValueError, match=r"classes\.csv") as caught:
        read(tmp_path, text)
    assert str(caught.value).removeprefix(str(tmp_path / "classes.csv")).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"names\.csv: no such file"):
        read_class_list(tmp_path / "names.csv")
