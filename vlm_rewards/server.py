"""A critic behind HTTP: ``GET /health`` describes it, ``POST /v1/judge`` asks it (JSON as in `vlm_rewards.wire`)."""

from __future__ import annotations

import hmac
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from robolearn.errors import unknown
from robolearn.files import json_line
from vlm_rewards.batching import Batcher, Closed
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.operating_point import OperatingPoint
from vlm_rewards.wire import (
    PROTOCOL,
    ROLES,
    UNFIT,
    VALUE_AND_DONE,
    answer_to_json,
    frames_from_json,
    instructions_from_json,
)

_log = logging.getLogger(__name__)

_BLOCK = 1 << 16
_GRACE_S = 2.0


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class CriticServer(ThreadingHTTPServer):
    """Serves a critic until `stop`.

    Args:
        critic: the critic; PLAN is not served.
        host, port: where to listen; port 0 takes a free one.
        max_batch: moments in one request, and in one batch.
        max_wait_s: how long a question waits for others to be judged with.
        max_waiting: requests at once; more are answered with 503.
        max_body_bytes: of one request.
        key: that requests must carry as a bearer token; empty: none.

    Raises:
        CriticError: it cannot listen there.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        critic: Critic,
        host: str = "127.0.0.1",
        port: int = 8191,
        max_batch: int = 64,
        max_wait_s: float = 0.005,
        max_waiting: int = 256,
        max_body_bytes: int = 64 << 20,
        key: str = "",
    ) -> None:
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise CriticError(f"cannot listen on {host}:{port}: {error}") from error
        self.critic = critic
        self.key = key
        self.max_batch = max_batch
        self.max_body_bytes = max_body_bytes
        self._max_waiting = max_waiting
        self.slots = threading.BoundedSemaphore(max_waiting)
        self.batcher = Batcher(critic, max_batch, max_wait_s)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    def stop(self) -> None:
        """Stop listening: the batch under way is answered, what still waits gets 503. After `serve_forever`."""
        self.server_close()
        self.batcher.close()
        ends = time.monotonic() + _GRACE_S
        for _ in range(self._max_waiting):  # until every reply has been sent
            if not self.slots.acquire(timeout=max(0.0, ends - time.monotonic())):
                break

    def about(self) -> dict[str, Any]:
        """What ``/health`` tells."""
        critic = self.critic
        size, window, point = critic.picture, critic.window, getattr(critic, "operating_point", None)
        return {
            "protocol": PROTOCOL,
            "name": critic.name,
            "revision": critic.revision,
            "capabilities": sorted(c.value for c in critic.capabilities if c is not Capability.PLAN),
            "cameras": list(critic.cameras),
            "picture": None if size is None else list(size),
            "window": {"frames": window.frames, "stride_s": window.stride_s, "causal": window.causal},
            "timed": critic.timed,
            "operating_point": asdict(point) if isinstance(point, OperatingPoint) else None,
            "max_batch": self.max_batch,
            "max_body_bytes": self.max_body_bytes,
            "batches": self.batcher.batches,
            "moments": self.batcher.moments,
        }

    def judge(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a question.

        Raises:
            CriticError: it cannot be asked so; the critic's own words, or what is wrong with its form.
        """
        what = asked.get("capability")
        if not isinstance(what, str) or what not in ROLES:
            raise CriticError(unknown("capability", str(what), ROLES))
        names = ["value", "done"] if what == VALUE_AND_DONE else [what]
        self.critic.require(*(Capability(name) for name in names))
        instructions = instructions_from_json(asked.get("instructions"))
        if not 0 < len(instructions) <= self.max_batch:
            raise CriticError(f"a request asks about 1 to {self.max_batch} moments, got {len(instructions)}")
        moments = asked.get("moments")
        given = moments if isinstance(moments, Mapping) else {}
        for role in given:
            if role not in ROLES[what]:
                raise CriticError(unknown("moment", str(role), ROLES[what]))
        missing = [role for role in ROLES[what] if role not in given]
        if missing:
            raise CriticError(f"{what} is about the moments {', '.join(ROLES[what])}; missing: {', '.join(missing)}")
        seen = tuple(frames_from_json(given[role], role) for role in ROLES[what])
        answers = self.batcher.ask(what, seen, instructions)
        return {"answers": {name: answer_to_json(answer) for name, answer in zip(names, answers, strict=True)}}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of our troubles; anything else is reported."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            _log.exception("request from %s failed", client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: CriticServer
    protocol_version = "HTTP/1.1"
    server_version = "robolearn"
    timeout = 60.0

    def do_GET(self) -> None:
        """Describe the critic."""
        if self.path.rstrip("/") == "/health":
            self._send(200, self.server.about())
        else:
            self.send_error(404, f"{self.path} is not there; GET /health and POST /v1/judge are")

    def do_POST(self) -> None:
        """Ask the critic."""
        admitted = self.server.slots.acquire(blocking=False)
        try:
            self._send(200, self._judged(admitted))
        except _Refused as error:
            self.send_error(error.status, str(error))
        except CriticError as error:
            self.send_error(UNFIT, str(error))
        except Closed as error:
            self.send_error(503, str(error))
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # the critic is at fault, not who asked; the server goes on
            _log.exception("the critic failed")
            self.send_error(500, f"the critic failed: {type(error).__name__}: {error}")
        finally:
            if admitted:
                self.server.slots.release()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """An error as JSON, after which the connection ends."""
        self.close_connection = True
        self._send(code, {"error": message or self.responses[HTTPStatus(code)][0]})

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""
        _log.debug(format, *args)

    def _judged(self, admitted: bool) -> dict[str, Any]:
        length = self._length()
        refused = self._refused(length)
        if refused is None and not admitted:
            refused = _Refused(503, "overloaded: too many requests are waiting")
        if refused is not None:
            self._drain(length)
            raise refused
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError("the body ended early")
        return self.server.judge(_object(body))

    def _length(self) -> int:
        told = self.headers.get("Content-Length", "")
        if not told.isdigit():
            raise _Refused(411, "a request must tell its Content-Length")
        return int(told)

    def _refused(self, length: int) -> _Refused | None:
        """Why a request is not read, or None."""
        if self.path.rstrip("/") != "/v1/judge":
            return _Refused(404, f"{self.path} is not there; GET /health and POST /v1/judge are")
        given = self.headers.get("Authorization", "").encode()
        if self.server.key and not hmac.compare_digest(given, f"Bearer {self.server.key}".encode()):
            return _Refused(401, "this critic wants a key")
        if length > self.server.max_body_bytes:
            return _Refused(413, f"{length} bytes are more than the {self.server.max_body_bytes} that are read at once")
        return None

    def _drain(self, length: int) -> None:
        """Read what a refused client is still sending, within reason: otherwise it would not see the answer."""
        left = min(length, 2 * self.server.max_body_bytes)
        while left > 0 and (read := self.rfile.read(min(left, _BLOCK))):
            left -= len(read)

    def _send(self, status: int, content: Mapping[str, Any]) -> None:
        data = json_line(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 503:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)


def _object(body: bytes) -> dict[str, Any]:
    try:
        read = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise _Refused(400, f"the body is a JSON {type(read).__name__}, not an object")
    return read
