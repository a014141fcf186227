"""Folders and URLs as users write them."""

import re
from pathlib import Path

import pytest

from reslab.data.location import Url, absolute, parse_location, to_folder


def test_urls_and_folders_are_distinguished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("http://host:80/a/b", "s3://bucket/a", "gs://bucket", "file:///mnt/a"):
        assert parse_location(text) == parse_location(f"{text}/") == Url(text)
        assert absolute(Url(text)) == str(Url(text)) == text
    assert parse_location("HTTPS://host/A") == Url("https://host/A")
    assert parse_location(Url("s3://b/a") / "train") == Url("s3://b/a/train")
    assert (Url("s3://b/a") / "train").name == "train"
    for text in ("pictures", "/a/b", "a:b", "C:/pictures"):
        assert parse_location(text) == parse_location(Path(text)) == Path(text)
    monkeypatch.chdir(tmp_path)
    assert absolute(Path("a")) == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("htp://host/a", "no protocol 'htp'; did you mean 'http'?"),
        ("ftp://host/a", "no protocol 'ftp'"),
        ("http:/host/a", "a URL must begin with http://"),
        (Path("s3://bucket/a"), "a URL must begin with s3://"),
        ("http://", "has no host"),
        ("s3:///key", "has no bucket"),
        ("http://host:x/a", "the port is not a number"),
        ("http://[::1/a", "malformed IPv6"),
    ],
)
def test_an_invalid_url_is_refused(text: str | Path, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^\S+:? ") as raised:
        parse_location(text)
    assert reason in str(raised.value)
    assert str(raised.value).startswith(str(text))


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("https://me:SECRET@host/a", "https://host/a was given with a password"),
        ("https://me:SECRET@host:99999/a", "https://host:99999/a was given with a password"),
        ("https://me:SEC/RET@host/a", "https://host/a: the port is not a number"),
        ("https://me:SEC?RET@host/a", "https://...: the port is not a number"),
        ("https://me:SECRET@[host/a", "https://[host/a: not the name of a host"),
        ("https://me:SECRET\u2100@host/a", "https://host/a: not the name of a host"),
        ("https:/me:SECRET@host/a", "https:/host/a: a URL must begin with https://"),
        (Path("https://me:SECRET@host/a"), "https:/host/a: a URL must begin with https://"),
        ("htps:/me:SECRET@host/a", "htps:/host/a: a URL must begin with htps://"),
        ("ftp://me:SECRET@host/a?SECRET", "ftp://host/a: no protocol 'ftp'"),
        ("s3://KEY:SEC/RET@bucket/a", "s3://bucket/a: the port is not a number"),
        ("http://host.org/a#SECRET", "http://host.org/a has a fragment (#...): give the URL"),
        ("http://host:0/a?SECRET", "http://host:0/a has port 0: give the URL of the folder"),
        ("http:///a?SECRET", "http:///a has no host name"),
    ],
)
def test_a_password_is_refused_and_not_repeated(text: str | Path, refusal: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(refusal)}") as raised:
        parse_location(text)
    assert not re.search("KEY|SEC|RET", str(raised.value))


def test_the_query_of_a_url_is_kept_for_each_file_and_not_shown() -> None:
    url = parse_location("HTTPS://host/a b/?sv=1&sig=x%2By/z")
    assert url == Url("https://host/a b", "?sv=1&sig=x%2By/z")
    assert url / "train" == Url("https://host/a b/train", "?sv=1&sig=x%2By/z")
    assert "sig" not in f"{url} {url!r} {absolute(url)} {url / 'train'}"
    with pytest.raises(ValueError, match=r"^http://host:x/a: ") as raised:
        parse_location("http://host:x/a?sig=secret")
    assert "secret" not in str(raised.value)
    assert parse_location("s3://bucket/a?b") == Url("s3://bucket/a?b")  # part of a key


def test_a_url_is_refused_where_a_folder_is_needed() -> None:
    assert to_folder(Path("a"), "cifar10 needs") == Path("a")
    with pytest.raises(ValueError, match=r"^s3://b/a: .* cifar10 needs a local folder$"):
        to_folder(Url("s3://b/a"), "cifar10 needs")
