"""Names as printable text, and URLs without their secrets."""

import pytest

from reslab.runtime.text import hide_secrets, printable, printable_lines, without_secrets


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nü\x1b[2J\udcff", r"a\nü\x1b[2J\udcff"),
        ("\x1b]0;owned\x07\x9b2J\r\x08\x7f\0", r"\x1b]0;owned\x07\x9b2J\r\x08\x7f\x00"),
        ("a\u202egpj.\u2066b\u200b\u200d\ufeff", r"a\u202egpj.\u2066b\u200b\u200d\ufeff"),
        ("\u2028\u2029\x85\U000e0041", r"\u2028\u2029\x85\U000e0041"),
        ("[/x] :smile: $\\frac$ 虎 é 🐅", "[/x] :smile: $\\frac$ 虎 é 🐅"),
    ],
)
def test_unprintable_characters_are_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert printable(shown) == shown
    assert shown.isprintable()
    assert shown.encode()  # no surrogates


def test_lines_keep_their_ends() -> None:
    assert printable_lines("a\n\x1bb\r\n") == "a\n\\x1bb\\r\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:HUNTER2@host.invalid:99999/x", "https://host.invalid:99999/x"),
        ("ftp://user:HUNTER2@host.invalid/x", "ftp://host.invalid/x"),
        ("htps://user:HUNTER2@h/x", "htps://h/x"),
        ("https:/user:HUNTER2@h/x", "https:/h/x"),
        ("https://user:HUNTER2@[bad/x", "https://[bad/x"),
        ("https://user:HUNT/ER2@h/x", "https://h/x"),
        ("https://user:HUN?TER2@h/x", "https://..."),
        ("https://user:HUN#TER2@h/x", "https://..."),
        ("https://user:HUNTER2@x@h/x", "https://h/x"),
        ("https://user:HUN@T/ER2@h/x", "https://h/x"),
        ("https://user:HUN TER\n2@h/x", "https://h/x"),
        ("https://HUNTER2@h.org", "https://h.org"),
        ("https://h/x?token=HUNTER2", "https://h/x"),
        ("https://h.org/x?token=HUNT@ER2", "https://h.org/x"),
        ("https://h/x?token=HUNT@ER2", "https://..."),
        ("https://h/x#HUNTER2", "https://h/x"),
        ("https://h?a=1&X-Amz-Signature=HUNTER2#b", "https://h"),
        ("HTTPS:///user:HUNTER2@h/x", "HTTPS:///h/x"),
        ("https://user:HUNTER2@[::1]:80/x", "https://[::1]:80/x"),
        ("s3://KEY:HUNTER2@bucket/x", "s3://bucket/x"),
        ("s3://KEY:HUNT/ER2@bucket/x", "s3://bucket/x"),
        ("--data=https://user:HUNTER2@h/x", "--data=https://h/x"),
        ("data=https://h/x?HUNTER2", "data=https://h/x"),
    ],
)
def test_secrets_of_a_url_are_left_out(url: str, shown: str) -> None:
    assert without_secrets(url) == shown == without_secrets(shown)
    if not {" ", "\n"} & set(url):
        assert hide_secrets(f"{url}: no host; see {url}, {url}.") == (
            f"{shown}: no host; see {shown}, {shown}."
        )


@pytest.mark.parametrize(
    "text",
    [
        "https://cdn.example.org/package@1.0/x", "http://localhost:8080/a@b", "http://[::1]/a@b",
        "s3://bucket/a@b", "file:///a@b/c?d#e", "C:/a@b?", "a@b:c?", "user@host:folder", "x?y#z",
        "https://h/x", "what? a:b@c",
    ],
)  # fmt: skip
def test_other_text_is_kept(text: str) -> None:
    assert without_secrets(text) == hide_secrets(text) == text
