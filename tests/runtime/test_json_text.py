"""JSON that is damaged or hostile is refused with a reason."""

import json
from pathlib import Path

import pytest

from reslab.runtime.files import read_json
from reslab.runtime.json_text import parse_json

HOSTILE = {
    b"[" * 100_000: "nested too deeply",
    b'{"a":' * 100_000: "nested too deeply",
    b"[" + b"1" * 5000 + b"]": "a number has too many digits",
    b'{"a": "\xe9"}': "not UTF-8 text",
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_hostile_json_is_refused_with_its_file(tmp_path: Path, text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(ValueError, match=rf"a\.json: {reason}"):
        read_json(tmp_path / "a.json")


def test_malformed_json_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n"a": 1,,\n}')
    with pytest.raises(ValueError, match=r"a\.json:2: malformed JSON: .*, column 8"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"nothing\.json: no such file"):
        read_json(tmp_path / "nothing.json")


def test_json_is_parsed_as_by_the_standard_library() -> None:
    for text in ("3", '"é"', '{"a": [1.5, null, true]}', "\ufeff1"[1:]):
        assert parse_json(text) == json.loads(text)
        assert parse_json(text.encode("utf-16")) == json.loads(text)
