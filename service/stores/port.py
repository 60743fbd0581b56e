"""The port to what is shared between replicas: live histories and cached user representations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from models.errors import ServerError


class StoreError(ServerError):
    """The store cannot be reached right now. Raised by `UserStore`; answers go on without it."""


@dataclass(frozen=True)
class Event:
    """A user met an item at `timestamp`, in seconds since 1970."""

    user_id: str
    item_id: str
    timestamp: float


class UserStore(Protocol):
    """Live histories and cached representations. Every call may raise `StoreError`.

    A live history holds each item once, at its latest time, so recording an event twice changes nothing.
    """

    async def connect(self) -> None:
        """Reach the store."""

    async def live_history(self, catalogue: str, user_id: str) -> list[str]:
        """The latest item ids of a user of a catalogue, oldest first; empty for an unknown user."""

    async def record(self, catalogue: str, events: Sequence[Event]) -> None:
        """Add events to the live histories of a catalogue's users."""

    async def vector(self, key: str) -> bytes | None:
        """A cached representation."""

    async def put_vector(self, key: str, value: bytes) -> None:
        """Cache a representation."""

    async def close(self) -> None:
        """Let go of connections."""
