"""Pages of other origins that may ask, and read what they are answered (the Fetch standard's CORS protocol)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

EXPOSED = ("X-Request-ID", "Retry-After")
"""What pages may read of an answer's headers, beside what all may."""


def middleware_options(origins: Sequence[str]) -> dict[str, Any]:
    """What `CORSMiddleware` is told."""
    return {
        "allow_origins": origins,
        "allow_methods": ["GET", "HEAD", "POST"],
        "allow_headers": ["Authorization", "Content-Encoding", "Content-Type", "X-API-Key", "X-Request-ID"],
        "expose_headers": EXPOSED,
    }


def answer_headers(origin: str, origins: Sequence[str]) -> dict[str, str]:
    """What an answer that is given before that middleware needs, so that a page can read it; nothing for others.

    Args:
        origin: the request's.
        origins: those that may ask, `*` for all.
    """
    everybody = "*" in origins
    if not origin or not (everybody or origin in origins):
        return {}
    allowed = (
        {"access-control-allow-origin": "*"} if everybody else {"access-control-allow-origin": origin, "vary": "Origin"}
    )
    return {**allowed, "access-control-expose-headers": ", ".join(EXPOSED)}
