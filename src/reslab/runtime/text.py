"""Text that is safe to show: names as printable text, URLs without their secrets."""

import re

URL = re.compile(r"(?<![\w+.-])([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)
URL_IN_TEXT = re.compile(r"(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]+:/+[^\s\"'<>`]+")
HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+|localhost|\[[\da-fA-F:.]+\])(?::\d*)?")
BUCKETS = ("s3", "gs")  # protocols with the name of a bucket, which has no dot, instead of a host


def printable(text: str) -> str:
    """Escape the characters of a name that are not printable, such as "\\n" and "\\x1b".

    A name may hold any bytes: sequences that control the terminal, letters that change the
    direction of the text, and bytes that are not UTF-8, which Python represents by surrogates.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_lines(text: str) -> str:
    """Escape unprintable characters in a text of several lines, except the ends of lines."""
    return "\n".join(map(printable, text.split("\n")))


def without_secrets(text: str) -> str:
    """Return a URL without user name, password, query and fragment; other text unchanged.

    The URL may be malformed, and may follow other text, as in `--data=URL`; it extends to the end.
    """
    match = URL.search(text)
    if match is None or match[1].lower() == "file":
        return text
    protocol, slashes, rest = match.groups()
    path = re.split(r"[?#]", rest, maxsplit=1)[0]
    host = path.partition("/")[0]
    is_host = HOST.fullmatch(host) or (protocol.lower() in BUCKETS and not re.search("[:@]", host))
    if not is_host and "@" in path:  # a password may contain slashes
        path = path.rpartition("@")[2]
    elif not is_host and "@" in rest:  # or the marks of a query, of which any part may be secret
        path = "..."
    return f"{text[: match.start()]}{protocol}:{slashes}{path}"


def hide_secrets(text: str) -> str:
    """Return a message with the URLs in it as `without_secrets` shows them."""

    def shown(match: re.Match[str]) -> str:
        url = match[0].rstrip(":,;.)")
        return without_secrets(url) + match[0][len(url) :]

    return URL_IN_TEXT.sub(shown, text)
