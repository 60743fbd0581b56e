"""What a user did: the bundle's history, live events after it, and what the request itself tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from service.deployments.deployment import Deployment
from service.stores.lru import LRU
from service.stores.port import Event, StoreError, UserStore


@dataclass(frozen=True)
class UserHistory:
    """The history that an answer rests on.

    Attributes:
        items: (n,) item numbers, oldest first.
        live: how many of them came by live events.
        known: whether the user was known in training or had live events.
    """

    items: np.ndarray
    live: int
    known: bool


class Histories:
    """Reads histories and records events. Without its store it goes on with the last it saw of each user.

    Args:
        store: live events of all replicas.
        size: users whose last seen live events are remembered here.
    """

    def __init__(self, store: UserStore, size: int) -> None:
        self._store = store
        self._last_seen: LRU[tuple[str, str], list[str]] = LRU(size)

    async def of(self, deployment: Deployment, user_id: str | None, sent: Sequence[int] = ()) -> UserHistory:
        """The history of `user_id` with the item numbers `sent` appended; `sent` alone if there is no user."""
        if user_id is None:
            return UserHistory(np.asarray(sent, dtype=np.int64), 0, False)
        histories = deployment.model.histories
        live_ids = await self._live(deployment.catalogue_name, user_id)
        live_items, _ = deployment.catalogue.indices_of(live_ids)
        items = append(append(histories.of(user_id).tolist(), live_items), sent)
        known = user_id in histories or bool(live_ids)
        return UserHistory(np.asarray(items, dtype=np.int64), len(live_items), known)

    async def record(self, deployment: Deployment, events: Sequence[Event]) -> None:
        """Add events to live histories.

        Raises:
            StoreError: nothing was recorded.
        """
        await self._store.record(deployment.catalogue_name, events)

    async def _live(self, catalogue: str, user_id: str) -> list[str]:
        try:
            live = await self._store.live_history(catalogue, user_id)
        except StoreError:
            return self._last_seen.get((catalogue, user_id)) or []
        if live:
            self._last_seen.put((catalogue, user_id), live)
        return live


def append(earlier: Sequence[int], later: Iterable[int]) -> list[int]:
    """`earlier`, then `later`. What happened again counts at its later place, so a repeated report adds nothing."""
    later = list(later)
    repeated = set(later)
    return [item for item in earlier if item not in repeated] + later
