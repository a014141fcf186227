"""A file server that fails on purpose, and a proxy that fails in front of another server."""

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Faults:
    """The fraction of requests with each fault, chosen by a seed, and the faults that occurred."""

    refused: float = 0.0
    short: float = 0.0
    corrupt: float = 0.0
    seed: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    wait: float = 0.0  # seconds before each response

    def __post_init__(self) -> None:
        self._rng, self._lock = random.Random(self.seed), threading.Lock()

    def draw(self) -> str:
        with self._lock:
            self.requests += 1
            drawn = self._rng.random()
            for kind in ("refused", "short", "corrupt"):
                drawn -= getattr(self, kind)
                if drawn < 0:
                    return self.saw(kind)
            return "none"

    def saw(self, kind: str) -> str:
        self.seen[kind] = self.seen.get(kind, 0) + 1
        return kind


Answer = Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]


class FaultyServer:
    """Listen on a loopback port, which stays the same when the server is restarted."""

    def __init__(self, answer: Answer, faults: Faults) -> None:
        self.answer, self.faults = answer, faults
        self.port = 0
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop like a killed process: open connections break too."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore broken connections."""


def _handler(server: FaultyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # otherwise each response waits for an acknowledgement

        def setup(self) -> None:
            super().setup()
            server._open.add(self.connection)

        def finish(self) -> None:
            server._open.discard(self.connection)
            super().finish()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            kind = server.faults.draw()
            time.sleep(server.faults.wait)
            if kind == "refused":
                self.close_connection = True
                if server.faults.seen[kind] % 2:
                    self.send_error(503)
                return  # no response at all
            status, headers, body = server.answer(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status >= 300:
                kind = "none"
            if kind == "short":
                body, self.close_connection = body[: len(body) // 2], True
            if kind == "corrupt" and body:
                at = len(body) // 2
                body = body[:at] + bytes([body[at] ^ 0x55]) + body[at + 1 :]
            self.wfile.write(body)

        do_HEAD = do_GET

    return Handler


def files_of(folder: Path, *, ranges: bool = True, signature: str = "") -> Answer:
    """Return a handler that serves the files of a folder, and byte ranges of them.

    Every request must have the query `signature`.
    """

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(request.path)
        path = folder / unquote(parts.path).lstrip("/")
        if "forbidden" in path.parts or parts.query != signature:
            return 403, {}, b"no"
        if not path.is_file():
            return 404, {}, b"no"
        data = path.read_bytes()
        wanted = request.headers.get("Range")
        if wanted is None or not ranges:
            return 200, {}, data
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if int(first) >= len(data):
            return 416, {}, b""
        part = data[int(first) : int(last) + 1]
        end = int(first) + len(part) - 1
        return 206, {"Content-Range": f"bytes {first}-{end}/{len(data)}"}, part

    return answer


def forward_to(host: str, port: int) -> Answer:
    """Return a handler that returns another server's responses."""

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request(request.command, request.path, headers=dict(request.headers))
            answered = connection.getresponse()
            headers = {
                name: value
                for name, value in answered.getheaders()
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date")
            }
            return answered.status, headers, answered.read()
        finally:
            connection.close()

    return answer


@contextmanager
def serving(answer: Answer, faults: Faults | None = None) -> Iterator[FaultyServer]:
    server = FaultyServer(answer, faults or Faults())
    server.start()
    try:
        yield server
    finally:
        server.stop()
