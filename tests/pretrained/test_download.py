"""Files appear complete and verified, or not at all."""

import hashlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pretrained.server import Server, serving
from tests.waiting import wait_until

from reslab.pretrained.download import download

CONTENT = random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(CONTENT) as server:
        yield server


def accepts(digest: str) -> bool:
    return digest == DIGEST


@pytest.mark.parametrize("behaviour", ["whole", "slow", "moved"])
def test_the_file_arrives(server: Server, tmp_path: Path, behaviour: str) -> None:
    download(server.url(behaviour), tmp_path / "net.th", accepts)
    assert (tmp_path / "net.th").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["net.th"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("gone", "127.0.0.1 answered 404 Not Found"),
        ("cut", "connection to 127.0.0.1 failed|127.0.0.1 sent no complete file"),
        ("stalled", "connection to 127.0.0.1 failed|127.0.0.1 sent nothing for 0.3 seconds"),
        ("page", "25 bytes with the SHA-256 .*not the published one"),
    ],
)
def test_nothing_appears_if_it_does_not(
    server: Server, tmp_path: Path, behaviour: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        download(server.url(behaviour), tmp_path / "net.th", accepts, patience=0.3)
    assert not os.listdir(tmp_path)


def test_a_closed_port(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ValueError, match=r"connection to 127\.0\.0\.1 failed"):
        download(f"http://127.0.0.1:{port}/net.th", tmp_path / "net.th", accepts)
    assert not os.listdir(tmp_path)


def test_a_download_that_was_killed_starts_anew(server: Server, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from reslab.pretrained.download import download; "
        "download(sys.argv[1], Path(sys.argv[2]), lambda digest: True)"
    )
    url, file = server.url("stalled", "killed.th"), tmp_path / "net.th"
    process = subprocess.Popen([sys.executable, "-c", code, url, str(file)], text=True)
    wait_until(lambda: "/stalled/killed.th" in server.requests, process)
    process.kill()
    process.wait()
    assert not os.listdir(tmp_path)
    download(server.url("whole"), file, accepts)
    assert file.read_bytes() == CONTENT
