"""Checks requests, in front of the WSGI application that they are for.

A request passes if it is meant for this server (its Host), no page of another site has sent it
(its Origin and Sec-Fetch-Site), and it carries the password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import math
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tuner.errors import SpecError
from tuner.store.connection.urls import read_secret

Environment = dict[str, Any]
Application = Callable[[Environment, Any], Iterable[bytes]]

SHORTEST_PASSWORD = 12
"""The fewest characters of a password."""

LOCAL_ADDRESS = "tuner.local_address"
"""The key of a request's environment for the address it was sent to."""

_LOOPBACK_NAMES = ("127.0.0.1", "::1", "localhost")
_READS = ("GET", "HEAD")
_ATTEMPTS = 10
_WINDOW_S = 60.0
_ADDRESSES = 4096
_DRAINED_BYTES = 65536
_LONGEST_LENGTH = 20  # digits; Python turns thousands of them into an error
_ALWAYS = [("X-Frame-Options", "DENY"), ("X-Content-Type-Options", "nosniff")]


def read_password(value: str | None, path: Path | None) -> str | None:
    """Returns the password from the environment or a file.

    Args:
        value: The value of ``TUNER_DASHBOARD_PASSWORD``, None without that variable.
        path: The file, or None.

    Returns:
        The password, None if neither is given.

    Raises:
        SpecError: If both are given, or the password is missing, short, or not one line.
    """
    if value is not None and path is not None:
        raise SpecError(
            "There are two passwords, in TUNER_DASHBOARD_PASSWORD and in a file: give one of them."
        )
    if value is None and path is None:
        return None
    where = "TUNER_DASHBOARD_PASSWORD" if path is None else f"--password-file {path}"
    password = value if path is None else read_secret(path, "--password-file", "the password")
    if not password:
        raise SpecError(f"{where} is empty: give a password there, or leave it out.")
    if len(password) < SHORTEST_PASSWORD:
        raise SpecError(
            f"{where}: the password has {len(password)} characters, it needs at least "
            f"{SHORTEST_PASSWORD}. A good one: python -c 'import secrets; "
            "print(secrets.token_urlsafe())'"
        )
    return password


def is_readable_by_all(path: Path) -> bool:
    """Tells whether every user of this machine may read a file."""
    return bool(path.stat().st_mode & stat.S_IROTH)


class Limiter:
    """Counts wrong passwords by client address, over a minute.

    When it has no room for more addresses it forgets the one that failed longest ago, so that
    nobody can fill the memory. An IPv6 address counts as its network of 64 bits, since one client
    is given a whole network.

    Args:
        clock: Returns seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Returns how long an address has to wait, in seconds; 0 if it may try."""
        count, until = self._failures.get(_network(address), (0, 0.0))
        return max(0.0, until - self._clock()) if count >= _ATTEMPTS else 0.0

    def count(self, address: str) -> None:
        """Counts a wrong password."""
        now, network = self._clock(), _network(address)
        count, until = self._failures.pop(network, (0, 0.0))
        self._failures[network] = (count + 1, until) if now < until else (1, now + _WINDOW_S)
        if len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)

    def __len__(self) -> int:
        """Returns how many addresses it remembers."""
        return len(self._failures)


@dataclass(frozen=True)
class _Refusal:
    status: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


class Guard:
    """Passes permitted requests on to an application, and answers the others itself.

    Args:
        application: The application; it knows nobody and trusts everyone.
        password: The password that a request must carry, in HTTP Basic under any user name or as a
            Bearer token; None lets everyone in.
        hosts: Names under which it is reached, besides loopback's and its own address.
        limiter: Counts wrong passwords.
    """

    def __init__(
        self,
        application: Application,
        *,
        password: str | None = None,
        hosts: Collection[str] = (),
        limiter: Limiter | None = None,
    ) -> None:
        self._application = application
        self._digest = None if password is None else _digest(password.encode())
        self._hosts = {host.lower().rstrip(".") for host in (*_LOOPBACK_NAMES, *hosts)}
        self._limiter = limiter or Limiter()
        self._lock = threading.Lock()

    def __call__(self, environ: Environment, start_response: Any) -> Iterable[bytes]:
        """Answers a request by the application, or with a refusal."""
        refusal = (
            self._refuse_host(environ)
            or self._refuse_site(environ)
            or self._refuse_stranger(environ)
        )
        if refusal is None:
            return self._application(environ, _with_headers(start_response))
        _drain(environ)
        headers = [("Content-Type", "text/plain; charset=utf-8"), *refusal.headers, *_ALWAYS]
        start_response(refusal.status, headers)
        return [f"{refusal.message}\n".encode()]

    def _refuse_host(self, environ: Environment) -> _Refusal | None:
        """Refuses a request to another server's name, which somebody may have pointed here."""
        name = _host_name(str(environ.get("HTTP_HOST", "")))
        if name in self._hosts or name == environ.get(LOCAL_ADDRESS):
            return None
        return _Refusal(
            "403 Forbidden",
            "This server does not answer to this host name. "
            "If it is reached under it, start it with --allow-host NAME.",
        )

    def _refuse_site(self, environ: Environment) -> _Refusal | None:
        """Refuses a request that another site's page has a browser send; a link is let through."""
        host = str(environ.get("HTTP_HOST", "")).lower()
        origin = environ.get("HTTP_ORIGIN")
        site = environ.get("HTTP_SEC_FETCH_SITE", "none")
        follows_link = (
            environ["REQUEST_METHOD"] in _READS and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        )
        foreign = origin is not None and _network_location(str(origin)) != host
        if foreign or (site not in ("none", "same-origin") and not follows_link):
            return _Refusal("403 Forbidden", "This server does not answer other sites' pages.")
        return None

    def _refuse_stranger(self, environ: Environment) -> _Refusal | None:
        if self._digest is None:
            return None
        challenge = ("WWW-Authenticate", 'Basic realm="tuner", charset="UTF-8"')
        given = environ.get("HTTP_AUTHORIZATION")
        if given is None:
            return _Refusal("401 Unauthorized", "This server asks for a password.", (challenge,))
        address = str(environ.get("REMOTE_ADDR", ""))
        # One at a time, so that guesses sent at once are counted like any others.
        with self._lock:
            wait_s = math.ceil(self._limiter.wait_s(address))
            if wait_s:
                return _Refusal(
                    "429 Too Many Requests",
                    f"Too many wrong passwords from your address: wait {wait_s} seconds.",
                    (("Retry-After", str(wait_s)),),
                )
            if hmac.compare_digest(_digest(_password_in(str(given))), self._digest):
                return None
            self._limiter.count(address)
        return _Refusal("401 Unauthorized", "This is not the password.", (challenge,))


def _digest(secret: bytes) -> bytes:
    # Digests are of one length, so that comparing them takes the same time for any guess.
    return hashlib.sha256(secret).digest()


def _password_in(authorization: str) -> bytes:
    """Returns the password or token of an Authorization header, empty if it has none."""
    scheme, _, rest = authorization.partition(" ")
    given = rest.strip().encode("latin-1", errors="replace")  # as WSGI decoded it
    if scheme.lower() == "bearer":
        return given
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _host_name(host: str) -> str:
    """Returns the name in a Host header, without its port.

    >>> _host_name("Tuner.example:8080"), _host_name("[::1]:8080"), _host_name("a@b")
    ('tuner.example', '::1', '')
    """
    try:
        parts = urlsplit(f"//{host}")
        name = parts.hostname or ""
    except ValueError:
        return ""
    return name.rstrip(".") if parts.netloc == host and "@" not in host else ""


def _network_location(origin: str) -> str:
    """Returns the host and port of an origin, the empty text for an opaque one."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _network(address: str) -> str:
    """Returns the address, or network, under which a client's wrong passwords are counted.

    >>> _network("::ffff:10.0.0.7"), _network("2001:db8::1:2:3:4")
    ('10.0.0.7', '2001:db8::/64')
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _with_headers(start_response: Any) -> Any:
    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return start_response(status, [*headers, *_ALWAYS], *rest)

    return start


def _drain(environ: Environment) -> None:
    """Reads a small body, since a connection closed over unread bytes may lose the answer."""
    length = str(environ.get("CONTENT_LENGTH") or "")
    if length.isdecimal() and len(length) < _LONGEST_LENGTH and int(length) <= _DRAINED_BYTES:
        environ["wsgi.input"].read(int(length))
