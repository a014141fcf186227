"""Folders and URLs as people write them; the pauses between attempts."""

from pathlib import Path

import pytest

from reslab.data.location import Url, absolute, parse_location, to_folder
from reslab.data.shards.source import RetryPolicy, TransientError, retry


def test_what_is_a_url_and_what_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("http:/host/a", "a URL begins with http://"),
        (Path("s3://bucket/a"), "a URL begins with s3://"),
        ("http://", "names no host"),
        ("s3:///key", "names no bucket"),
        ("http://host:x/a", "Port could not be cast"),
        ("http://[::1/a", "Invalid IPv6 URL"),
        ("http://host/a?token=1", "name the one that the shards lie in"),
    ],
)
def test_a_url_that_can_be_none_is_refused(text: str | Path, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^\S+:? ") as raised:
        parse_location(text)
    assert reason in str(raised.value)
    assert str(raised.value).startswith(str(text))


def test_a_password_is_neither_kept_nor_repeated() -> None:
    with pytest.raises(ValueError, match=r"^https://host/a came with a password") as raised:
        parse_location("https://me:secret@host/a")
    assert "secret" not in str(raised.value)


def test_what_needs_a_folder_says_so() -> None:
    assert to_folder(Path("a"), "cifar10 needs") == Path("a")
    with pytest.raises(ValueError, match=r"^s3://b/a: .* cifar10 needs a folder here$"):
        to_folder(Url("s3://b/a"), "cifar10 needs")


def test_pauses_double_up_to_the_longest_and_are_the_same_every_time() -> None:
    patience = RetryPolicy(attempts=8, first=0.5, longest=6)
    pauses = [patience.pause("a", attempt) for attempt in range(7)]
    assert pauses == [patience.pause("a", attempt) for attempt in range(7)]
    for pause, most in zip(pauses, (0.5, 1, 2, 4, 6, 6, 6), strict=True):
        assert most / 2 < pause <= most
    others = [RetryPolicy(8, 1, 1).pause(str(number), 0) for number in range(1000)]
    assert min(others) < 0.51
    assert max(others) > 0.99
    assert abs(sum(others) / 1000 - 0.75) < 0.02


def test_as_many_attempts_as_patience_has() -> None:
    tried, slept, heard = [], [], []

    def act() -> str:
        tried.append(len(tried))
        if len(tried) < 4:
            raise TransientError(f"reason {len(tried)}")
        return "got"

    patience = RetryPolicy(4, 1, 100)
    failed = lambda attempt, failure: heard.append((attempt, str(failure)))  # noqa: E731
    assert retry(act, "it", patience, failed=failed, sleep=slept.append) == "got"
    assert slept == [patience.pause("it", attempt) for attempt in range(3)]
    assert heard == [(0, "reason 1"), (1, "reason 2"), (2, "reason 3")]
    tried.clear()
    with pytest.raises(TransientError, match="reason 3"):
        retry(act, "it", RetryPolicy(3, 1, 1), sleep=slept.append)
