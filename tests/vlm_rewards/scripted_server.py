"""A real HTTP server on localhost that answers as a test says: well, late, wrongly, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Notes what was asked and gives the next reply."""

    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do_GET(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        self._handle(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self, body: Any) -> None:
        self.close_connection = True
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers), body))
            reply = self.server.fixed.get(self.path)
            if reply is None:
                reply = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
        reply(self)


class ScriptedServer(ThreadingHTTPServer):
    """Gives each of ``replies`` once, the last one for ever; ``fixed`` answers certain paths."""

    daemon_threads = True

    def __init__(self, *replies: Reply, **fixed: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = list(replies)
        self.fixed = {f"/{path.replace('__', '/')}": reply for path, reply in fixed.items()}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.lock = threading.Lock()
        self.leave = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def posts(self) -> list[Any]:
        return [body for _, _, body in self.asked if body is not None]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(*replies: Reply, **fixed: Reply) -> Iterator[ScriptedServer]:
    server = ScriptedServer(*replies, **fixed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.leave.set()
        server.shutdown()
        thread.join()
        server.server_close()


def says(content: Any, status: int = 200, **headers: str) -> Reply:
    """JSON, or bytes as they are."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()

    def reply(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def late(handler: Handler) -> None:
    """Nothing, for longer than anybody waits."""
    handler.server.leave.wait(20.0)


def drips(handler: Handler) -> None:
    """A byte now and then: no single read is late."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not handler.server.leave.wait(0.05):
        handler.wfile.write(b" ")


def drops(handler: Handler) -> None:
    """The connection ends without a reply."""


def drops_midway(handler: Handler) -> None:
    """The connection ends in the middle of the body."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choices": ')


def noise(handler: Handler) -> None:
    """Bytes that are no HTTP."""
    handler.wfile.write(bytes(range(128, 256)) * 8)
