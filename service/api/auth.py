"""Optional API keys, asked for before a request's body is read."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from hmac import compare_digest
from ipaddress import IPv6Address, IPv6Network

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.errors import TooManyFailuresError, UnauthorizedError
from service.api.middleware import closing
from service.api.problems import problem_of
from service.api.routes import HEALTH

BUCKETS_BYTES = 2
"""Failures are counted by hash, so that counting has a bounded size whatever is tried."""


class Authenticate:
    """Lets only holders of `key` pass; health is open to all.

    A wrong key costs the same whatever it is like. Who sends too many, by address or always the same key from many,
    gets 429 for the rest of the minute. The right key always passes: behind a balancer all have one address. No key is
    no wrong key: a browser begins without one, and asks for it once it is told 401.
    """

    def __init__(
        self, app: ASGIApp, key: SecretStr, failures_per_minute: int, open_paths: tuple[str, ...] = ()
    ) -> None:
        self._app = app
        self._digest = sha256(key.get_secret_value().encode()).digest()
        self._most = RateLimitItemPerMinute(failures_per_minute)
        self._failures = FixedWindowRateLimiter(MemoryStorage())
        self._open = (*HEALTH, *open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        key = given_key(Headers(scope=scope))
        given = sha256(key).digest()
        if compare_digest(given, self._digest):
            await self._app(scope, receive, send)
            return
        error: Exception = UnauthorizedError("send the API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`")
        if key and self._too_many((scope.get("client") or ("", 0))[0], given):
            error = TooManyFailuresError("too many wrong keys: try again in a minute")
        await closing(problem_of(scope, error), scope, receive, send)

    def _too_many(self, address: str, given: bytes) -> bool:
        counters = ("address", sha256(_place(address).encode()).digest()), ("key", given)
        allowed = [self._failures.hit(self._most, kind, digest[:BUCKETS_BYTES].hex()) for kind, digest in counters]
        return not all(allowed)


def _place(address: str) -> str:
    """Whom an address belongs to: of IPv6 one customer has the whole /64."""
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or IPv6Network((parsed, 64), strict=False))


def given_key(headers: Headers) -> bytes:
    """The key as it was sent: `X-API-Key`, a bearer token, or the password that a browser asks for; or nothing."""
    if headers.get("x-api-key"):
        return headers["x-api-key"].encode("latin-1")  # starlette decodes headers so: these are the bytes that came
    scheme, _, value = headers.get("authorization", "").partition(" ")
    sent = value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(sent, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return sent if scheme.lower() == "bearer" else b""
