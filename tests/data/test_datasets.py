from pathlib import Path

import pytest
import torch

from reslab.data.datasets import ImagesInMemory, hold_out, pixel_mean, read_class_list


def random_set(count: int) -> ImagesInMemory:
    images = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1).expand(count, 3, 2, 2)
    return ImagesInMemory("train", images.contiguous(), torch.arange(count), ("a", "b"))


def test_held_out_images_are_split_off_without_loss_and_always_the_same() -> None:
    remaining, held = hold_out(random_set(100), 30)
    assert (len(remaining), len(held)) == (70, 30)
    assert sorted(remaining.labels.tolist() + held.labels.tolist()) == list(range(100))
    assert torch.equal(hold_out(random_set(100), 30)[1].labels, held.labels)
    assert held.name == "held_out"


@pytest.mark.parametrize("count", [0, 100, 101])
def test_a_split_with_an_empty_side_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"held_out={count}"):
        hold_out(random_set(100), count)


def test_the_mean_is_exact_for_many_bright_images() -> None:
    images = torch.full((70_000, 3, 1, 1), 255, dtype=torch.uint8)
    images[0] = 254
    expected = (255 * 69_999 + 254) / 70_000
    assert torch.equal(pixel_mean(images), torch.full((3, 1, 1), expected))


# class lists


def read(folder: Path, text: str | bytes) -> list[tuple[str, str]]:
    path = folder / "classes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_class_list(path)


def test_both_headers_quotes_and_spreadsheet_encodings(tmp_path: Path) -> None:
    expected = [("b", "a beetle, red"), ("a", "Ähre")]
    rows = '0,b,"a beetle, red"\n1,a,Ähre\n'
    assert read(tmp_path, "index,wnid,name\n" + rows) == expected
    assert read(tmp_path, "Index, id, Name\n" + rows) == expected
    spreadsheet = ("index,id,name\n" + rows + "\n").replace("\n", "\r\n")
    assert read(tmp_path, b"\xef\xbb\xbf" + spreadsheet.encode()) == expected


def test_the_classes_of_imagenet(shared: Path) -> None:
    classes = read_class_list(shared / "imagenet" / "classes.csv")
    assert len(classes) == 1000
    assert classes[0] == ("n01440764", "tench")
    assert [key for key, _ in classes] == sorted(key for key, _ in classes)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ":1: the first line must be index,wnid,name or index,id,name"),
        ("0,a,A\n", ":1: the first line must be"),
        ("index;id;name\n0;a;A\n", ":1: the first line must be"),
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
