"""How much of a server is used: a rate, a budget, and how long to wait before asking again."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlm_rewards.errors import CriticError


class RequestFailed(CriticError):
    """One request that brought no answer; the rows that it stood for become invalid with this reason.

    Attributes:
        status: of HTTP, or 0 where there was none.
        said: the server's own words.
    """

    def __init__(self, reason: str, status: int = 0, said: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.said = said


class WrongAddress(CriticError):
    """There is nothing to ask at this address: every further request would fail too."""


class NoEntry(CriticError):
    """A server wants a key, or another one: every further request would fail too."""


@dataclass
class Limits:
    """Settings of how a server is asked."""

    timeout_s: float = 30.0
    """For one try, from connecting to the last byte."""
    retries: int = 3
    """Further tries after a time-out, a broken connection, or a status of 408, 425, 429 or 5xx."""
    backoff_s: float = 0.5
    """Before the first further try; doubles each time, and varies by half. A server's Retry-After is honoured."""
    longest_wait_s: float = 60.0
    """A server that asks to be left alone for longer is not asked again."""
    concurrency: int = 8
    """Requests at once."""
    requests_per_minute: float | None = None
    """Tries are spaced at least so that there are no more."""
    budget_requests: int | None = None
    """Most tries over the critic's life."""
    budget_tokens: int | None = None
    """Most tokens, as the server counts them; requests under way when it is reached still count on top."""
    budget_dollars: float | None = None
    """Most dollars, from the tokens and their prices."""
    dollars_per_million_in: float = 0.0
    """Price of a million tokens of prompts."""
    dollars_per_million_out: float = 0.0
    """Price of a million tokens of replies."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key. The key is sent as a bearer token and shown nowhere."""

    def __post_init__(self) -> None:
        """Raise on what cannot be.

        Raises:
            CriticError: naming the setting.
        """
        positive = ("timeout_s", "concurrency", "requests_per_minute")
        for name in (*positive, "retries", "backoff_s", "longest_wait_s"):
            value = getattr(self, name)
            if value is not None and (value < 0 or (name in positive and value == 0)):
                raise CriticError(f"{name} must be {'positive' if name in positive else '0 or more'}, got {value:g}")
        if self.budget_dollars is not None and not self.dollars_per_million_in + self.dollars_per_million_out > 0:
            raise CriticError("budget_dollars needs dollars_per_million_in and dollars_per_million_out")


class Meter:
    """Counts what was used, and holds requests back or refuses them. Safe to share between threads.

    Attributes:
        requests: tries so far.
        tokens: used so far.
        dollars: spent so far.

    Args:
        limits: what is allowed.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.requests = 0
        self.tokens = 0
        self.dollars = 0.0

    def admit(self) -> None:
        """Count a try, and wait for its turn.

        Raises:
            RequestFailed: a budget is used up.
        """
        limits = self._limits
        with self._lock:
            for used, most, what in (
                (self.requests, limits.budget_requests, "requests"),
                (self.tokens, limits.budget_tokens, "tokens"),
                (self.dollars, limits.budget_dollars, "dollars"),
            ):
                if most is not None and used >= most:
                    raise RequestFailed(f"the budget is used up: {used:g} of {most:g} {what}")
            self.requests += 1
            now = time.monotonic()
            turn = max(now, self._free_at)
            if limits.requests_per_minute is not None:
                self._free_at = turn + 60.0 / limits.requests_per_minute
        if turn > now:
            time.sleep(turn - now)

    def record(self, reply: Mapping[str, Any]) -> None:
        """Count the tokens that a reply says it took.

        Raises:
            CriticError: there is a budget of tokens or dollars, but the server does not count tokens.
        """
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        asked, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        limits = self._limits
        if not isinstance(asked, int) or not isinstance(written, int):
            if limits.budget_tokens is not None or limits.budget_dollars is not None:
                raise CriticError("the server does not count tokens: only budget_requests can be kept with it")
            return
        with self._lock:
            self.tokens += asked + written
            spent = asked * limits.dollars_per_million_in + written * limits.dollars_per_million_out
            self.dollars += spent / 1e6


def wait_before(attempt: int, limits: Limits, retry_after: str | None) -> float:
    """Seconds to wait before try ``attempt`` (1 for the first repetition).

    Raises:
        RequestFailed: the server asks to wait for longer than the limits allow.
    """
    wait = limits.backoff_s * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)
    asked = _seconds(retry_after)
    if asked is not None and asked > limits.longest_wait_s:
        raise RequestFailed(
            f"the server asks to wait {asked:.0f} s, longer than longest_wait_s={limits.longest_wait_s:g}"
        )
    return min(max(wait, asked or 0.0), limits.longest_wait_s)


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header, which holds seconds or a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
