"""A local HTTP server whose paths answer as servers and networks do on good and bad days."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

DRIPS = 20  # pieces in which a slow file arrives


@dataclass
class Server:
    """A running server: every file has the same content, and its folder decides how it comes."""

    address: str
    content: bytes
    requests: list[str] = field(default_factory=list)

    def url(self, behaviour: str, file: str = "net.th") -> str:
        return f"{self.address}/{behaviour}/{file}"


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """Serve `content` under /whole/, /slow/, /stalled/, /cut/, /moved/, /gone/ and /page/."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append(self.path)
            behaviour, file = self.path.split("/")[1:]
            if behaviour == "gone":
                return self.send_error(404)
            if behaviour == "moved":
                self.send_response(302)
                self.send_header("Location", server.url("whole", file))
                self.send_header("Content-Length", "0")
                return self.end_headers()
            body = b"<html>log in first</html>" if behaviour == "page" else content
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.send_body(behaviour, body)

        def send_body(self, behaviour: str, body: bytes) -> None:
            step = len(body) // DRIPS + 1
            for start in range(0, len(body), step):
                if start and behaviour == "cut":
                    return
                if start and behaviour == "stalled":
                    stopped.append(self.path)
                    while stopped:
                        time.sleep(0.02)
                    return
                if behaviour == "slow":
                    time.sleep(0.01)
                self.wfile.write(body[start : start + step])
                self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    stopped: list[str] = []  # requests that wait for the end of the test
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_port}", content)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        stopped.clear()
        http.shutdown()
        http.server_close()
        thread.join()
