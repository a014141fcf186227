"""Mutate files: by bytes whatever their format, and by structure where the format has one."""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

LARGEST = 2**21  # bytes of a mutant


def span(data: bytes, rng: random.Random, longest: int = 4096) -> tuple[int, int]:
    """Return the start and end of a random part of the data; short parts are more frequent."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(longest ** rng.random()))


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"\1"
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def flip_early_bit(data: bytes, rng: random.Random) -> bytes:
    """Flip a bit near the beginning, where most formats have their header."""
    return flip_bit(data[:512], rng) + data[512:]


def replace_bytes(data: bytes, rng: random.Random) -> bytes:
    start, end = span(data, rng, 64)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def extreme_bytes(data: bytes, rng: random.Random) -> bytes:
    """Replace a few bytes by the largest or smallest number, as in a length or an offset."""
    start, end = span(data[:1024], rng, 9)
    return data[:start] + rng.choice([b"\0", b"\xff"]) * (end - start) + data[end:]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def drop_beginning(data: bytes, rng: random.Random) -> bytes:
    return data[rng.randrange(len(data) + 1) :]


def delete_span(data: bytes, rng: random.Random) -> bytes:
    start, end = span(data, rng)
    return data[:start] + data[end:]


def repeat_span(data: bytes, rng: random.Random) -> bytes:
    start, end = span(data, rng)
    count = min(rng.choice([2, 3, 50]), LARGEST // max(end - start, 1))
    return data[:start] + data[start:end] * count + data[end:]


def insert_bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(int(256 ** rng.random())) + data[at:]


def zero_span(data: bytes, rng: random.Random) -> bytes:
    start, end = span(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def swap_halves(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[at:] + data[:at]


def other_content(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        [b"", b"\0" * 64, b"<!DOCTYPE html><html><body>404</body></html>", b"\x89HDF\r\n\x1a\n" * 9,
         b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
         b"PK\x03\x04" + bytes(64), b"\x1f\x8b\x08" + bytes(64), rng.randbytes(300)]
    )  # fmt: skip


BYTES: tuple[Mutation, ...] = (
    flip_bit, flip_bit, flip_early_bit, replace_bytes, extreme_bytes, cut, drop_beginning,
    delete_span, repeat_span, insert_bytes, zero_span, swap_halves, other_content,
)  # fmt: skip

NUMBERS = (
    "-1", "0", "nan", "NaN", "inf", "-Infinity", "1e999", "1e-320", "9" * 20, "9" * 5000,
    "0x10", "1_0", "1,5", "2147483648", "-9223372036854775809", "3.5", "", "٣", "½",
)  # fmt: skip
WORDS = (
    "", " ", "\0", "\x1b[31m", "é", "e\u0301", "\u202e", "[bold]", "$\\frac{1}{0}$", "../../etc",
    "/dev/zero", "a" * 5000, "null", "train", "-", "‮x", "\u2028",
)  # fmt: skip
CODECS = ("utf-16", "utf-32", "utf-8-sig", "gb18030", "latin-1", "shift_jis", "utf-7", "cp037")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
WORD = re.compile(r"\w+")


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass" if re.search("[\ud800-\udbff]", text) else
                       "surrogateescape")  # fmt: skip


def replace_match(pattern: re.Pattern[str], values: Sequence[str]) -> Mutation:
    """Return a mutation that replaces one match of a pattern by one of the values."""

    def mutation(data: bytes, rng: random.Random) -> bytes:
        text = as_text(data)
        matches = [*pattern.finditer(text)]
        if not matches:
            return flip_bit(data, rng)
        match = rng.choice(matches)
        return as_bytes(text[: match.start()] + rng.choice(values) + text[match.end() :])

    mutation.__name__ = "change_number" if pattern is NUMBER else "change_word"
    return mutation


def change_line(data: bytes, rng: random.Random) -> bytes:
    """Delete, repeat, move or join lines."""
    lines = data.splitlines(keepends=True) or [b""]
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(other, lines[at])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = lines[at].rstrip(b"\n")
        case 4:
            lines[at] = rng.choice([b"\n", b"\r", b'"', b",,,\n", b"\0\n", b"# a\n", b"\xff\xfe\n"])
    return b"".join(lines)


def recode(data: bytes, rng: random.Random) -> bytes:
    """Encode the text in another codec, or end its lines as on another system."""
    text = as_text(data)
    if rng.random() < 0.2:
        return as_bytes(text.replace("\n", rng.choice(["\r\n", "\r", "\v"])))
    return text.encode(rng.choice(CODECS), "replace")


def new_separator(data: bytes, rng: random.Random) -> bytes:
    old, new = rng.sample([b",", b";", b"\t", b" ", b":", b"|", b'"'], 2)
    return data.replace(old, new)


TEXT: tuple[Mutation, ...] = (
    replace_match(NUMBER, NUMBERS), replace_match(NUMBER, NUMBERS), replace_match(WORD, WORDS),
    change_line, change_line, recode, new_separator,
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, 1e308, -1e-320, 10**30, float("nan"), float("inf"), "", "0",
    "1", "nan", "text", "\ud800", "\x1b[2J", "a" * 3000, "../x", [], [[]], {}, [None], {"": None},
    [1, 2, 3], ["a", "b"], {"kind": "x"}, [0.5] * 4,
)  # fmt: skip
DEEP = {"[": 100_000 * "[", "closed": 100_000 * "[" + 100_000 * "]", "{": 50_000 * '{"a":'}


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return the container and the key of each value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        found.append((value, key))
        if isinstance(item, dict | list):
            places(item, found)
    return found


def change_document(value: Any, rng: random.Random) -> Any:
    """Change one value in a document of dicts and lists, in place, or replace the whole."""
    everywhere = places(value, []) if isinstance(value, dict | list) else []
    if not everywhere or rng.random() < 0.03:
        return rng.choice(VALUES)
    # a path of random steps, so that a long list does not receive all mutations
    container, key = rng.choice(everywhere)
    if rng.random() < 0.7:
        container = value
        while True:
            key = rng.choice(
                [*(container if isinstance(container, dict) else range(len(container)))]
            )
            inner = container[key]
            if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
                break
            container = inner
    other = rng.choice(everywhere)
    match rng.randrange(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[rng.choice(["", "x", str(key).upper(), f"{key} "])] = container.pop(key)
        case 2:
            container[key] = json.loads(json.dumps(other[0][other[1]]))
        case 3:
            container[key] = [container[key]]
        case _:
            container[key] = rng.choice(VALUES)
    return value


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Change a JSON document, or one line of a file with one document per line."""
    lines = data.splitlines() if data.count(b"\n{") > 1 and not data.startswith(b"[") else [data]
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except ValueError:
        return flip_bit(data, rng)
    if rng.random() < 0.1:
        text = json.dumps({"x": value} | (value if isinstance(value, dict) else {}))
        long = rng.choice(
            [*DEEP.values(), "1" * 5000, "-" + "9" * 5000, "1e99999", "NaN", '"\\u12']
        )
        changed = text.replace(rng.choice(NUMBER.findall(text) or ["{"]), long, 1)
    else:
        changed = json.dumps(change_document(value, rng))
    lines[at] = changed.encode("utf-8", "surrogatepass")
    return b"\n".join(lines) + b"\n"


ENTITIES = (
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>',
    '<!DOCTYPE a SYSTEM "file:///etc/hostname">',
    '<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///dev/zero"> %p;]>',
)
XML_CODECS = (
    "rot13", "gbk", "gb2312", "utf-16", "utf-32", "idna", "zip", "hex", "latin-1", "shift_jis",
    "unknown", "utf-7", "punycode", "unicode_escape", "cp1252", "ascii", "mbcs", "undefined",
)  # fmt: skip


def change_xml(data: bytes, rng: random.Random) -> bytes:
    text = as_text(data)
    tags = [*re.finditer(r"<(/?)([\w:]+)>", text)]
    match rng.randrange(5):
        case 0:
            return as_bytes(rng.choice(ENTITIES) + text)
        case 1:
            declared = f'<?xml version="1.0" encoding="{rng.choice(XML_CODECS)}"?>'
            return as_bytes(declared + re.sub(r"<\?xml.*?\?>", "", text))
        case 2 if tags:
            return as_bytes(text.replace(rng.choice(tags)[0], rng.choice(["", "<x>" * 50_000]), 1))
        case 3 if tags:
            tag = rng.choice(tags)[2]
            new = rng.choice([tag.upper(), "x", "object", "name", "bndbox", "annotation"])
            return as_bytes(re.sub(rf"(</?){tag}>", rf"\1{new}>", text))
        case _:
            return as_bytes(
                text.replace("</", rng.choice(["<![CDATA[", "<!--", "&amp;", "&x;"]), 1)
            )


YAML = (
    "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n"
    "c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n"
    "path: &e [*d, *d, *d, *d, *d, *d, *d, *d]\ntrain: [*e, *e, *e, *e]\n",
    "!!python/object/apply:os.system ['echo x']\n", "names: &n [*n]\n", "nc: !!int [1]\n",
    "train: " + "[" * 3000 + "\n", "names: {0: a, 0: b}\n", "? [a, b]\n: c\n", "%YAML 9.9\n---\n",
)  # fmt: skip


def change_yaml(data: bytes, rng: random.Random) -> bytes:
    """Put a construct of YAML before or after the text."""
    added = rng.choice(YAML).encode()
    return added + data if rng.random() < 0.5 else data + added
