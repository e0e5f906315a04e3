"""JSON over HTTP to a server that may be slow, busy, broken or gone."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NoReturn

from robolearn.files import json_line
from vlm_rewards.errors import CriticError
from vlm_rewards.limits import Limits, Meter, NoEntry, RequestFailed, WrongAddress, wait_before

_LONGEST_REPLY = 64 << 20
_SHOWN = 500
_AGAIN = (408, 425, 429)


class _TryAgain(Exception):
    """A failure that may pass; ``retry_after`` is what the server said about when."""

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are refused: they would carry the key and the pictures to another address."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Client:
    """Asks one server.

    Attributes:
        url: without a slash at its end.
        limits: settings.
        meter: what was used.

    Args:
        url: ``http://host[:port][/path]`` or https.
        limits: settings.

    Raises:
        CriticError: no such address can be, or the key is missing.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        host = _host(url)
        self.url = url.rstrip("/")
        self.limits = limits
        self.meter = Meter(limits)
        self._key = _key(limits.api_key_env)
        proxies = [urllib.request.ProxyHandler({})] if _loopback(host) else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def at(self, url: str) -> Client:
        """A client of another address with the same limits and meter."""
        other = Client(url, self.limits)
        other.meter = self.meter
        return other

    def probe(self, path: str) -> dict[str, Any] | None:
        """What GET tells, asked once; None where the server answers, but not with a JSON object.

        Raises:
            CriticError: nobody answers.
        """
        try:
            return self.get(path)
        except (RequestFailed, WrongAddress, NoEntry):
            return None

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at ``path``, asked once, outside of the budget.

        Raises:
            RequestFailed: the server answers something else.
            CriticError: nobody answers, or as `post`.
        """
        try:
            return self._once("GET", path, None)
        except _TryAgain as error:
            raise CriticError(f"no critic answers at {self.url}: {error}") from error

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that answers ``body``.

        Raises:
            RequestFailed: no answer after all tries, the budget is used up, or this one request was refused.
            CriticError: the address, the name of the model, or the key is wrong: every further request would fail too.
        """
        data = json_line(body).encode()
        for attempt in range(self.limits.retries + 1):
            self.meter.admit()
            try:
                reply = self._once("POST", path, data)
                self.meter.record(reply)
                return reply
            except _TryAgain as error:
                if attempt == self.limits.retries:
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    raise RequestFailed(f"{self.url} gave no answer: {error}{tries}") from error
                time.sleep(wait_before(attempt + 1, self.limits, error.retry_after))
        raise AssertionError

    def _once(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "robolearn"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        ends = time.monotonic() + self.limits.timeout_s
        try:
            with self._opener.open(request, timeout=self.limits.timeout_s) as response:
                text = self._read(response, ends)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(path, error, ends)
        except TimeoutError as error:
            raise self._late() from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._late() from error
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise CriticError(f"{self.url}: its certificate cannot be trusted: {error.reason}") from error
            raise _TryAgain(str(error.reason)) from error
        except (http.client.HTTPException, OSError) as error:
            raise _TryAgain(f"the connection broke ({type(error).__name__}: {error})") from error
        return _object(text)

    def _refused(self, path: str, error: urllib.error.HTTPError, ends: float) -> NoReturn:
        """Raise what a status other than 2xx means."""
        status = f"{error.code} {error.reason}".strip()
        try:
            said = self._clean(_message(self._read(error, ends)))
        except (http.client.HTTPException, OSError, _TryAgain):
            said = ""
        told = f"{status}: {said}" if said else status
        if error.code in _AGAIN or error.code >= 500:
            raise _TryAgain(told, error.headers.get("Retry-After"))
        if error.code in (401, 403):
            how = f"in ${self.limits.api_key_env}" if self.limits.api_key_env else "is needed: set api_key_env"
            raise NoEntry(f"{self.url} does not let us in ({status}): the key {how}")
        if error.code == 404:
            raise WrongAddress(f"{self.url}{path} is not there ({told}); check the address and the name of the model")
        if 300 <= error.code < 400:
            raise WrongAddress(f"{self.url} redirects to {error.headers.get('Location')}: give the final address")
        raise RequestFailed(f"the server refuses the request ({told})", error.code, said)

    def _read(self, response: Any, ends: float) -> bytes:
        """The body; a server that drips bytes is cut off in time, one that never ends in size."""
        parts, size = [], 0
        while part := response.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > _LONGEST_REPLY:
                raise RequestFailed(f"the server's reply is longer than {_LONGEST_REPLY >> 20} MB")
            if time.monotonic() > ends:
                raise self._late()
        expected = response.headers.get("Content-Length")
        if expected is not None and expected.isdigit() and size < int(expected):
            raise http.client.IncompleteRead(b"".join(parts), int(expected) - size)
        return b"".join(parts)

    def _late(self) -> _TryAgain:
        return _TryAgain(f"nothing within {self.limits.timeout_s:g} s")

    def _clean(self, text: str) -> str:
        """A server's words in one short line, without our key in them."""
        line = " ".join((text.replace(self._key, "***") if self._key else text).split())
        return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."


def _host(url: str) -> str:
    """The host of an address that can be asked.

    Raises:
        CriticError: saying what is wrong with it.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise CriticError(f"{url!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in url):
        raise CriticError(f"{url!r} is no address of a critic; one looks like http://127.0.0.1:8191 or https://host/v1")
    if parts.username or parts.password:
        raise CriticError(f"the address of {host} holds a password; name the key's environment variable in api_key_env")
    return host


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise CriticError(f"environment variable {variable} (api_key_env) is not set; it must hold the server's key")
    return key


def _loopback(host: str) -> bool:
    """Whether a host is this machine, for which a proxy is of no use."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host == socket.gethostname()


def _object(text: bytes) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestFailed(f"the server's reply is no JSON: {text[:60]!r}") from error
    if not isinstance(read, dict):
        raise RequestFailed(f"the server's reply is a JSON {type(read).__name__}, not an object")
    return read


def _message(text: bytes) -> str:
    """What a server says about an error, in the forms that are in use."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return text.decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        if isinstance(read, dict) and name in read:
            found = read[name]
            return str(found["message"]) if isinstance(found, dict) and "message" in found else str(found)
    return text.decode("utf-8", "replace")
