"""Packed images over HTTP: from a server that fails, through a shared cache."""

import gzip
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from tests.data.shards.faulty import Faults, FaultyServer, files_of, serving
from tests.data.shards.remote_sets import BLOCK, bytes_in, images, options, packed, set_of

from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage
from reslab.data.loader import Batch
from reslab.data.location import Url, parse_location
from reslab.data.shards.reader import ShardReader, open_remote_part, remote_parts
from reslab.data.shards.remote import RemoteShards, classify_failure, short_reason
from reslab.data.shards.retry import PermanentError, RetryPolicy, TransientError, retry
from reslab.data.shards.writer import Packing, pack_sets

pytest.importorskip("aiohttp", reason="the extra `remote`")
HALF = 32 * BLOCK  # bytes: about half of 40 images
FAULTS = {"refused": 0.1, "short": 0.05, "corrupt": 0.01}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return images(100)


@pytest.fixture(scope="module")
def folder(files: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(files, tmp_path_factory.mktemp("packed") / "set")


def read_all(opened: EncodedImages, threads: int = 4) -> dict[str, bytes]:
    """Read all images in a random order, as in training."""
    order = torch.randperm(len(opened), generator=torch.Generator().manual_seed(1)).tolist()
    names = [opened.files[row] for row in order]
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(names, pool.map(opened.read, names), strict=True))


def restarted(server: FaultyServer, opened: EncodedImages) -> dict[str, bytes]:
    """Read all images while the server is killed and restarted."""

    def restart() -> None:
        deadline = time.monotonic() + 20
        while server.faults.requests < 120 and time.monotonic() < deadline:
            time.sleep(0.002)
        server.stop()
        server.faults.saw("restart")
        time.sleep(0.3)
        server.start()

    meanwhile = threading.Thread(target=restart)
    meanwhile.start()
    read = read_all(opened)
    meanwhile.join()
    return read


def test_every_image_from_a_failing_server_equals_the_original(tmp_path: Path) -> None:
    lines: list[str] = []
    files = images(300)
    folder = packed(files, tmp_path / "set")
    with serving(files_of(folder), Faults(**FAULTS, seed=3)) as server:
        opened = open_remote_part(
            Url(server.url), options(tmp_path / "cache", on_trouble=lines.append)
        )
        assert (list(opened.files), opened.classes) == (list(files), ("cat", "dog"))
        assert torch.equal(opened.labels, set_of(files).labels)
        assert restarted(server, opened) == files
        seen = server.faults.seen
        assert seen.keys() == {"refused", "short", "corrupt", "restart"}
        assert server.faults.requests > 250
        requests = server.faults.requests
        assert read_all(opened) == files  # from the cache
        assert server.faults.requests == requests
    assert len(lines) <= 1, "one message per outage"


def test_cached_images_are_not_fetched_again(files: dict, folder: Path, tmp_path: Path) -> None:
    with serving(files_of(folder)) as server:
        read_all(open_remote_part(Url(server.url), options(tmp_path / "cache")))
        first = server.faults.requests
        opened = open_remote_part(Url(f"{server.url}/"[:-1]), options(tmp_path / "cache"))
        shards = len(list(folder.glob("shard-*")))
        assert shards > 1
        assert server.faults.requests == first + 2 + shards, (
            "the index's header and the end of each shard"
        )
        assert read_all(opened) == files
        assert server.faults.requests == first + 2 + shards


def test_damage_in_the_cache_is_detected_and_repaired(
    files: dict, folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with serving(files_of(folder)) as server:
        opened = open_remote_part(Url(server.url), options(cache))
        read_all(opened)
        blocks = sorted(path for path in cache.rglob("*") if path.is_file())
        before = {path: path.read_bytes() for path in blocks}
        for number, path in enumerate(blocks):
            data = bytearray(before[path])
            data[len(data) // 2] ^= 1
            path.write_bytes(data[: number % 3 * 1000] if number % 3 < 2 else data)
        blocks[0].unlink()
        read = read_all(open_remote_part(Url(server.url), options(cache)))
    assert read == files
    same = [path.read_bytes() == before[path] for path in blocks]
    assert sum(same) > 0.9 * len(same), "all but bytes between images"


def test_a_cache_stays_within_its_limit(files: dict, folder: Path, tmp_path: Path) -> None:
    limit, cache = 60 * BLOCK, tmp_path / "cache"
    most = 0
    with serving(files_of(folder)) as server:
        opened = open_remote_part(Url(server.url), options(cache, limit=limit))
        for name, data in files.items():
            assert opened.read(name) == data
            most = max(most, bytes_in(cache))
    assert 0.9 * limit < most <= limit
    assert sum(map(len, files.values())) > 2 * limit


def read_through(url: str, wide: Path, narrow: Path) -> None:
    """Read with a cache that has room for all, and twice with one that has room for half."""
    opened = open_remote_part(Url(url), options(wide, on_trouble=print))
    assert read_all(opened) == images(40)
    opened = open_remote_part(Url(url), options(narrow, limit=HALF, on_trouble=print))
    for _ in range(2):
        assert read_all(opened) == images(40)


OTHER = """
import sys
from pathlib import Path
from tests.data.shards.test_remote import read_through
print("ready", flush=True)
read_through(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
"""


def test_two_processes_share_a_cache(start_python, tmp_path: Path) -> None:
    """If there is no room for all blocks, each process evicts the other's."""
    folder = packed(images(40), tmp_path / "set")
    wide, narrow = tmp_path / "wide", tmp_path / "narrow"
    with serving(files_of(folder), Faults(refused=0.05, corrupt=0.01)) as server:
        other = start_python("-c", OTHER, server.url, wide, narrow)
        while not other.out.read_text():  # until its imports are done
            assert other.runs(), other.err.read_text()
            time.sleep(0.01)
        read_through(server.url, wide, narrow)
        done = other.end()
        assert done.returncode == 0, done.stderr
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert 0.98 * size < bytes_in(wide) <= size, "all but the ends of some shards"
    assert bytes_in(narrow) <= HALF < size
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("full", [True, False])
def test_a_cache_that_cannot_be_written_is_reported_once(
    files: dict, folder: Path, tmp_path: Path, full: bool
) -> None:
    lines: list[str] = []
    (tmp_path / "file").touch()
    cache = tmp_path / ("cache" if full else "file/cache")
    with serving(files_of(folder)) as server:
        limit = 100 if full else 10**9
        opened = open_remote_part(
            Url(server.url), options(cache, limit=limit, on_trouble=lines.append)
        )
        assert read_all(opened) == files
        assert opened.prefetch
        opened.prefetch(list(files))  # without effect: there is no room
    reason = "no space for a block" if full else "not a directory"
    assert lines == [f"cache {cache}: {reason}; continuing without a cache"]


# failures that retries do not resolve


def test_a_shard_with_wrong_bytes_is_named_and_other_images_are_read(
    files: dict, tmp_path: Path
) -> None:
    folder = packed(files, tmp_path / "set")
    shard = folder / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[500_000] ^= 1
    shard.write_bytes(data)
    pauses: list[float] = []
    policy = RetryPolicy(attempts=4, first=1.0, longest=3.0, sleep=pauses.append)
    with serving(files_of(folder)) as server:
        far = options(tmp_path / "cache", policy=policy, on_trouble=print)
        opened = open_remote_part(Url(server.url), far)
        bad = {}
        for name in files:
            try:
                assert opened.read(name) == files[name]
            except BadImage as error:
                bad[name] = str(error)
    ((name, line),) = bad.items()
    assert line == (
        f"{name}: its bytes in {server.url}/shard-000000.tar differ from those that were packed "
        "(4 attempts); copy the shard again"
    )
    assert len(pauses) == 3
    assert 0.5 <= pauses[0] <= 1 <= pauses[1] <= 2
    assert 1.5 <= pauses[2] <= 3


def test_an_unreachable_server_is_named_and_no_image_counts_as_bad(
    files: dict, folder: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    with serving(files_of(folder)) as server:
        policy = RetryPolicy(attempts=5, first=0.01, longest=0.1)
        far = options(tmp_path / "cache", policy=policy, on_trouble=lines.append)
        opened = open_remote_part(Url(server.url), far)
        server.faults.refused = 1
        with pytest.raises(RuntimeError) as raised:
            opened.read(opened.files[0])
        server.faults.refused = 0
        assert opened.read(opened.files[0]) == files[opened.files[0]], "after the server is back"
    assert str(raised.value).startswith(f"{server.url}/shard-00000")
    assert str(raised.value).endswith(" (5 attempts)")
    assert " cannot be read: " in str(raised.value)
    (line,) = lines
    assert line.endswith("; retrying")


def test_requests_to_a_slow_server_time_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = RetryPolicy(attempts=2, first=0.01, longest=0.1)
    with serving(files_of(folder)) as server:
        opened = open_remote_part(Url(server.url), options(tmp_path / "cache", policy=policy))
        monkeypatch.setattr("reslab.data.shards.remote.TIMEOUT", 0.1)
        server.faults.wait = 1.0
        with pytest.raises(RuntimeError, match="no complete response within"):
            opened.read(opened.files[0])
        server.faults.wait = 0.0


def refusal(url: str, tmp_path: Path, kind: type[Exception] = ValueError) -> str:
    policy = RetryPolicy(attempts=3, first=0.01, longest=0.02)
    far = options(tmp_path / "cache", policy=policy)
    with pytest.raises(kind) as raised:  # noqa: PT012
        remote_parts(Url(url), far)
        open_remote_part(Url(url), far)
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(url)
    return text.removeprefix(url)


def test_errors_when_opening(files: dict, folder: Path, tmp_path: Path) -> None:
    small = packed(images(4), tmp_path / "root" / "small")
    for name in ("gone", "cut", "html", "index", "forbidden"):
        (tmp_path / "root" / name).mkdir()
        for path in small.iterdir():
            (tmp_path / "root" / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "root/gone/shard-000000.tar").unlink()
    size = (tmp_path / "root/cut/shard-000000.tar").stat().st_size
    os.truncate(tmp_path / "root/cut/shard-000000.tar", size - 1500)
    (tmp_path / "root/html/index.safetensors").write_text("<!doctype html>" * 100)
    index = bytearray((small / "index.safetensors").read_bytes())
    index[-5] ^= 1
    (tmp_path / "root/index/index.safetensors").write_bytes(index)
    with serving(files_of(tmp_path / "root")) as server:
        none = refusal(f"{server.url}/nothing", tmp_path)
        assert "has no packed images" in none
        assert "(no such file)" in none
        assert "access denied" in refusal(f"{server.url}/forbidden", tmp_path)
        gone = refusal(f"{server.url}/gone", tmp_path)
        assert gone == "/shard-000000.tar: no such file"
        assert "the file is shorter than in the index" in refusal(f"{server.url}/cut", tmp_path)
        assert "not an index of packed images" in refusal(f"{server.url}/html", tmp_path)
        assert "is damaged (its checksum does not match)" in refusal(
            f"{server.url}/index", tmp_path / "no other's index"
        )
        server.faults.refused = 1
        assert "(3 attempts)" in refusal(f"{server.url}/small", tmp_path, RuntimeError)
    assert "Connect call failed" in refusal(f"{server.url}/small", tmp_path, RuntimeError)
    with serving(files_of(small, ranges=False)) as server:
        assert "it does not support byte ranges" in refusal(server.url, tmp_path)
    assert "no such host" in refusal("http://no-such-host.invalid/set", tmp_path)


def test_the_url_of_a_file_is_answered_with_its_folder(folder: Path, tmp_path: Path) -> None:
    with serving(files_of(folder.parent)) as server:
        for name in ("shard-000000.tar", "index.safetensors"):
            line = refusal(f"{server.url}/set/{name}", tmp_path)
            assert line.endswith(f"give the URL of the folder, {server.url}/set")


def test_answers_that_are_not_ranges_of_a_file(tmp_path: Path) -> None:
    def compressed(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        assert request.headers["Accept-Encoding"] == "identity"
        return 206, {"Content-Encoding": "gzip"}, gzip.compress(b"index")

    def login(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>" * 100

    with serving(compressed) as server:
        assert "compresses files (Content-Encoding: gzip)" in refusal(server.url, tmp_path)
    with serving(login) as server:
        assert "a web page (text/html)" in refusal(server.url, tmp_path)


def test_the_signature_of_a_url_is_sent_for_each_file_and_never_shown(
    files: dict, folder: Path, tmp_path: Path
) -> None:
    secret = "sv=2024&sig=ab%2Bc/d%3D"
    policy = RetryPolicy(attempts=3, first=0.01, longest=0.02)
    shutil.copytree(folder, tmp_path / "root" / "s é t")
    with serving(files_of(tmp_path / "root", signature=secret)) as server:
        url = parse_location(f"{server.url}/s é t?{secret}")
        assert isinstance(url, Url)
        far = options(tmp_path / "cache", policy=policy, on_trouble=print)
        assert remote_parts(url, far) == (None, None)
        assert read_all(open_remote_part(url, far)) == files
        unsigned = refusal(server.url, tmp_path)
        assert unsigned.startswith(": access denied; put the user name and password into ~/.netrc")
        assert "reslab pack" not in unsigned
        opened = open_remote_part(url, options(tmp_path / "other", policy=policy))
        server.faults.refused = 1
        with pytest.raises(RuntimeError) as raised:
            opened.read(opened.files[0])
        assert "sig" not in str(raised.value)
    error = ValueError(f"http://h/a?{secret}: too many redirects, url='http://h/b?{secret}'")
    assert short_reason(error) == "http://h/a too many redirects, url='http://h/b'"


# splits and prefetching


def test_an_unknown_host_is_permanent_unless_it_was_reached_before() -> None:
    class ClientConnectorDNSError(Exception):
        """Has the name of aiohttp's exception."""

    assert isinstance(classify_failure(ClientConnectorDNSError(), reached=False), PermanentError)
    assert isinstance(classify_failure(ClientConnectorDNSError(), reached=True), TransientError)


def test_splits_are_found(tmp_path: Path) -> None:
    parts = {"train": set_of(images(6), "train"), "validation": set_of(images(4), "v")}
    pack_sets(parts, tmp_path / "set", Packing(shard_size=1), lambda bad: None)
    with serving(files_of(tmp_path)) as server:
        url, far = Url(f"{server.url}/set"), options(tmp_path / "cache")
        assert remote_parts(url, far) == (url / "train", url / "validation")
        assert remote_parts(url / "train", far) == (None, None)
        assert len(open_remote_part(url / "validation", far)) == 4


def test_a_file_url_uses_the_cache_too(files: dict, folder: Path, tmp_path: Path) -> None:
    opened = open_remote_part(Url(f"file://{folder}"), options(tmp_path / "cache"))
    assert read_all(opened) == files
    assert bytes_in(tmp_path / "cache") > sum(map(len, files.values()))


def wait_until_cached(opened: EncodedImages, names: Sequence[str]) -> None:
    """Wait until the cache has all blocks of these images; fail after a minute."""
    reader = opened.read
    assert isinstance(reader, ShardReader)
    assert isinstance(reader.shards, RemoteShards)
    deadline = time.monotonic() + 60
    for name in names:
        shard, start, stop, _ = reader.index.locate(name)
        for number in range(start // BLOCK, (stop - 1) // BLOCK + 1):
            length = min(BLOCK, shard.size - number * BLOCK)
            while not reader.shards.cache.has(shard.sha256, number, length):
                assert time.monotonic() < deadline
                time.sleep(0.005)


def test_prefetched_images_are_cached_when_they_are_read(
    files: dict, folder: Path, tmp_path: Path
) -> None:
    with serving(files_of(folder)) as server:
        opened = open_remote_part(Url(server.url), options(tmp_path / "cache"))
        assert opened.prefetch
        opened.prefetch(opened.files[:20])
        wait_until_cached(opened, opened.files[:20])
        requests = server.faults.requests
        for name in opened.files[:20]:
            assert opened.read(name) == files[name]
        assert server.faults.requests == requests
        assert list(opened.prefetching(range(len(opened)))) == list(range(len(opened)))
        wait_until_cached(opened, opened.files)
        requests = server.faults.requests
        assert read_all(opened) == files
        assert server.faults.requests == requests


def test_batches_prefetch_the_images_of_later_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image is prefetched in order, before it is read, and none after the last batch."""
    from dataclasses import replace

    from reslab.data.augment import ScaleCrop
    from reslab.data.loader import EncodedLoader

    monkeypatch.setattr("reslab.data.loader.PREFETCHED", 8)
    reported: list[str] = []
    files = images(10)
    train = replace(set_of(files), prefetch=reported.extend)
    augmentation = ScaleCrop(shorter_side=(32, 40), size=32, colour=0.0)
    batches = EncodedLoader(
        train, lambda images: images, augmentation=augmentation, colour=None, size=4, seed=1,
        threads=2, balanced=False, bad_limit=0.0, log=print, last=7,
    )  # fmt: skip
    try:
        for iteration in range(7):
            assert isinstance(batches(iteration), Batch)
            rows = [row for k in range(iteration + 1) for row in batches.indices(k).tolist()]
            shown = [train.files[row] for row in rows]
            assert reported[: len(shown)] == shown
            assert len(reported) == 4 * min(iteration + 5, 7)
    finally:
        batches.close()


# retries


def test_pauses_double_up_to_a_limit_and_are_deterministic() -> None:
    policy = RetryPolicy(attempts=8, first=0.5, longest=6)
    pauses = [policy.pause("a", attempt) for attempt in range(7)]
    assert pauses == [policy.pause("a", attempt) for attempt in range(7)]
    for pause, most in zip(pauses, (0.5, 1, 2, 4, 6, 6, 6), strict=True):
        assert most / 2 < pause <= most
    others = [RetryPolicy(8, 1, 1).pause(str(number), 0) for number in range(1000)]
    assert min(others) < 0.51
    assert max(others) > 0.99
    assert abs(sum(others) / 1000 - 0.75) < 0.02


def test_retry_makes_as_many_attempts_as_the_policy_says() -> None:
    tried: list[int] = []
    slept: list[float] = []
    failures: list[tuple[int, str]] = []

    def act() -> str:
        tried.append(len(tried))
        if len(tried) < 4:
            raise TransientError(f"reason {len(tried)}")
        return "done"

    def on_failure(attempt: int, failure: TransientError) -> None:
        failures.append((attempt, str(failure)))

    policy = RetryPolicy(4, 1, 100, slept.append)
    assert retry(act, "url", policy, on_failure) == "done"
    assert slept == [policy.pause("url", attempt) for attempt in range(3)]
    assert failures == [(0, "reason 1"), (1, "reason 2"), (2, "reason 3")]
    tried.clear()
    with pytest.raises(TransientError, match="reason 3"):
        retry(act, "url", RetryPolicy(3, 1, 1, slept.append))
