"""`robolearn critic serve`: a critic behind HTTP, batched, for training runs and robots on other machines."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robolearn import settings
from robolearn.errors import RobolearnError
from robolearn.files import json_line
from robolearn.settings import MISSING

if TYPE_CHECKING:
    from vlm_rewards.server import CriticServer

SUMMARY = "put a critic behind HTTP, batched"


class ServeError(RobolearnError):
    """A server that cannot be started as asked."""


@dataclass
class Options:
    """Settings of `robolearn critic serve`."""

    critic: str = MISSING
    """A critic's folder, a folder or id of a transformers model, an address, or a baseline."""
    port: int = 8191
    """Where to listen; 0 takes a free port."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    max_batch: int = 64
    """Moments judged at once."""
    max_wait_ms: float = 5.0
    """How long a request waits for others to be judged with."""
    max_waiting: int = 256
    """Requests at once; more are told to come back."""
    max_body_mb: int = 64
    """Size of a request."""
    api_key_env: str | None = None
    """Name of the environment variable with the key that clients must send."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the critic, such as settings.device=cuda."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: one line with the address, or JSON, once requests are answered; ends with Ctrl-C."""
    options = settings.parse(Options, args.settings)
    with stopped_by_signals():
        server = open_server(options)
        try:
            print(json_line({"url": server.url, **server.about()}) if args.json else _line(server), flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.stop()
    print(f"stopped after {server.batcher.moments} moments in {server.batcher.batches} batches", file=sys.stderr)
    return 0


def open_server(options: Options) -> CriticServer:
    """A server that listens, but does not answer yet.

    Raises:
        RobolearnError: no such critic, a setting that cannot be, a port that is taken, or a missing key.
    """
    from vlm_rewards.registry import load_critic
    from vlm_rewards.server import CriticServer

    for name in ("max_batch", "max_waiting", "max_body_mb"):
        if getattr(options, name) < 1:
            raise ServeError(f"{name} is at least 1, got {getattr(options, name)}")
    if options.max_wait_ms < 0:
        raise ServeError(f"max_wait_ms is 0 or more, got {options.max_wait_ms:g}")
    key = _key(options.api_key_env)
    if not key and options.host not in ("127.0.0.1", "localhost"):
        print(f"everybody who can reach {options.host} may ask; api_key_env=... asks for a key", file=sys.stderr)
    return CriticServer(
        load_critic(options.critic, **options.settings),
        options.host,
        options.port,
        options.max_batch,
        options.max_wait_ms / 1000.0,
        options.max_waiting,
        options.max_body_mb << 20,
        key,
    )


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM, with which services are stopped, ends a server like Ctrl-C."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _key(variable: str | None) -> str:
    key = "" if variable is None else os.environ.get(variable, "").strip()
    if variable is not None and not key:
        raise ServeError(f"environment variable {variable} (api_key_env) is not set; it must hold the key")
    return key


def _line(server: CriticServer) -> str:
    about = server.about()
    can = ", ".join(about["capabilities"])
    seen = ", ".join(about["cameras"]) or "any cameras"
    return f"critic {about['name']} ({about['revision']}) at {server.url} answers {can} about {seen}"
