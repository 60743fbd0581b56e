"""What a user did: the bundle's history, what came by feedback since, and what the request itself sends.

The order is that of time. The bundle knows no times, so its history comes first; then follow live events and the
entries of the request, each at its time, or, where entries of the request have none, in the order given, after all
else. Among equal times, what arrived later is later. An item counts at its latest place alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from models.errors import ClientError, NotFoundError
from service.deployments.deployment import Deployment
from service.stores.lru import LRU
from service.stores.port import NOBODY, Event, LiveUser, StoreError, UserKey, UserStore
from service.stores.trail import MEAN_ITEMS

MICROSECONDS = 1_000_000
RETRY_SECONDS = 300
"""A client that sends an event without a time and without an id again within this time means the same event."""


@dataclass(frozen=True)
class Sent:
    """An entry of a request's history: an item number, and when, in microseconds since 1970, or None."""

    item: int
    moment: int | None = None


@dataclass(frozen=True)
class Feedback:
    """What somebody says that a user did; `timestamp` in seconds since 1970."""

    user_id: str
    item_id: str
    type: str = "view"
    timestamp: float | None = None
    event_id: str | None = None
    recommendation_id: str | None = None


@dataclass(frozen=True)
class Recorded:
    """What became of feedback, by place in its call.

    Attributes:
        stored: what was not kept already.
        refused: what is not known to be kept, and why. The rest was kept, then or before.
    """

    stored: list[int] = field(default_factory=list)
    refused: dict[int, StoreError] = field(default_factory=dict)


@dataclass(frozen=True)
class UserHistory:
    """The history that an answer rests on.

    Attributes:
        items: (n,) item numbers, oldest first.
        live: how many of them came by feedback.
        known: whether the user was known in training or by feedback.
        certain: whether the store said what came by feedback, or else this process had nothing but its memory.
        trained: (m,) item numbers that the user met in training, those in `items` or not.
        met: item numbers that the user met since, by feedback or by the request, those in `items` or not.
    """

    items: np.ndarray
    live: int
    known: bool
    certain: bool
    trained: np.ndarray = field(repr=False)
    met: Sequence[int] = field(repr=False)

    @cached_property
    def seen(self) -> set[int]:
        """Everything that the user ever met."""
        return {*self.trained.tolist(), *self.met}


class Histories:
    """Reads histories and records feedback. While the store is away it goes on with what it last knew of each user.

    Args:
        store: what users did, for all replicas.
        size: users whose last known state is remembered here, if they met no more than `MEAN_ITEMS` each.
        live_items: how many items of feedback a history holds at most.
        clock_skew: seconds that a client's clock may be ahead.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        store: UserStore,
        size: int,
        live_items: int = 50,
        clock_skew: float = 300,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._live_items = live_items
        self._clock_skew = clock_skew
        self._clock = clock
        self._last_known: LRU[UserKey, LiveUser] = LRU(size, lambda live: len(live.met), size * MEAN_ITEMS)

    async def of(
        self,
        deployment: Deployment,
        user_id: str | None,
        sent: Sequence[Sent] = (),
        patience: float | None = None,
    ) -> UserHistory:
        """The history of `user_id` with `sent` in it; `sent` alone if there is no user.

        Args:
            deployment: whose catalogue and training.
            user_id: who.
            sent: what the request sends.
            patience: seconds to wait for the store at most.
        """
        if user_id is None:
            return self._join(deployment, None, NOBODY, sent)
        live, certain = await self._live(UserKey(deployment.catalogue_name, user_id), patience)
        return self._join(deployment, user_id, live, sent, certain)

    async def of_known(self, deployment: Deployment, user_id: str, patience: float | None = None) -> UserHistory:
        """The history of a user who must have one.

        Raises:
            NotFoundError: neither training nor live events know the user.
            StoreError: training does not, and the store cannot say.
        """
        history = await self.of(deployment, user_id, patience=patience)
        if not history.known and not history.certain:
            raise StoreError(f"nobody can say now whether user '{user_id}' is known: try again in a second")
        if not history.known:
            raise NotFoundError(f"user '{user_id}' is unknown: it has no history here")
        return history

    def last_known(self, deployment: Deployment, user_id: str | None, sent: Sequence[Sent] = ()) -> UserHistory:
        """The history of `user_id` as far as it is known here, without asking the store."""
        live = NOBODY
        if user_id is not None:
            live = self._last_known.get(UserKey(deployment.catalogue_name, user_id)) or NOBODY
        return self._join(deployment, user_id, live, sent, certain=False)

    def moment(self, timestamp: float, where: str) -> int:
        """A client's time in microseconds.

        Args:
            timestamp: seconds since 1970.
            where: the field it came in.

        Raises:
            ClientError: it lies in the future.
        """
        ahead = timestamp - self._clock()
        if ahead > self._clock_skew:
            raise ClientError(
                f"{where}: it lies {ahead:.0f} s in the future, and clocks may differ by {self._clock_skew:.0f} s: send"
                " when it happened, or no time at all if it happened just now"
            )
        return round(timestamp * MICROSECONDS)

    async def record(self, deployment: Deployment, feedback: Sequence[Feedback]) -> Recorded:
        """Keep what users did. Sent again, nothing is kept twice.

        Raises:
            ClientError: something lies in the future; nothing is kept.
            StoreError: nothing is known to be kept.
        """
        now = round(self._clock() * MICROSECONDS)
        events: dict[UserKey, list[Event]] = {}
        places: dict[UserKey, list[int]] = {}
        for place, each in enumerate(feedback):
            moment = now if each.timestamp is None else self.moment(each.timestamp, f"events.{place}.timestamp")
            event = _event(each, moment, deployment.catalogue.index_of(each.item_id) is not None)
            user = UserKey(deployment.catalogue_name, each.user_id)
            events.setdefault(user, []).append(event)
            places.setdefault(user, []).append(place)
        recorded = Recorded()
        for user, change in (await self._store.record(events)).items():
            if isinstance(change, StoreError):
                recorded.refused.update(dict.fromkeys(places[user], change))
                continue
            self._put(user, (self._last_known.get(user) or NOBODY).after(change))
            recorded.stored.extend(places[user][place] for place in change.stored)
        return recorded

    async def _live(self, user: UserKey, patience: float | None) -> tuple[LiveUser, bool]:
        """What the store says, or else what was last known; and whether it said so."""
        cached = self._last_known.get(user) or NOBODY
        try:
            live = await self._store.read(user, cached, patience)
        except StoreError:
            return cached, False
        # Answers of the store may overtake each other: a later state that came meanwhile stays. One that was known
        # before goes, whatever its number: the store may have lost its latest writes.
        now = self._last_known.get(user) or NOBODY
        if now is cached or not live.precedes(now):
            self._put(user, live)
        return live, True

    def _put(self, user: UserKey, live: LiveUser) -> None:
        """Remember a state; of nobody only where somebody was known."""
        if live.met or self._last_known.get(user) is not None:
            self._last_known.put(user, live)

    def _join(
        self,
        deployment: Deployment,
        user_id: str | None,
        live: LiveUser,
        sent: Sequence[Sent],
        certain: bool = True,
    ) -> UserHistory:
        model = deployment.model
        index_of = deployment.catalogue.index_of
        places = zip(map(index_of, live.met.item_ids), live.met.moments.tolist(), strict=True)
        met = [(item, moment) for item, moment in places if item is not None]
        recent = met[-self._live_items :]
        trained = np.zeros(0, dtype=np.int64) if user_id is None else model.histories.of(user_id)
        items = append(trained.tolist(), _merge(recent, sent))
        live_items = {item for item, _ in recent}
        return UserHistory(
            items=np.asarray(items, dtype=np.int64),
            live=len(live_items),
            known=user_id is not None and (user_id in model.histories or bool(live.met)),
            certain=certain,
            trained=np.zeros(0, dtype=np.int64) if user_id is None else model.seen(user_id),
            met=[*(item for item, _ in met), *(entry.item for entry in sent)],
        )


def append(earlier: Sequence[int], later: Iterable[int]) -> list[int]:
    """`earlier`, then `later`, every item once, at its latest place."""
    latest = dict.fromkeys(reversed([*earlier, *later]))
    return list(reversed(latest))


def _merge(live: Sequence[tuple[int, int]], sent: Sequence[Sent]) -> list[int]:
    """Live items and the request's, by time where the request knows it, else one after the other."""
    timed = [(entry.item, entry.moment) for entry in sent if entry.moment is not None]
    if len(timed) < len(sent):
        return [*(item for item, _ in live), *(entry.item for entry in sent)]
    return [item for item, _ in sorted([*live, *timed], key=lambda pair: pair[1])]


def _event(feedback: Feedback, moment: int, known: bool) -> Event:
    """With the client's id, or one of what makes an event what it is."""
    timed = feedback.timestamp is not None
    if feedback.event_id is not None:
        event_id, repeats_after = f"client:{feedback.event_id}", None
    else:
        essence = (feedback.item_id, feedback.type, feedback.recommendation_id or "", str(moment) if timed else "")
        digest = hashlib.sha256(json.dumps(essence).encode()).hexdigest()
        event_id, repeats_after = digest[:24], None if timed else RETRY_SECONDS * MICROSECONDS
    return Event(
        event_id, feedback.item_id, moment, feedback.type, feedback.recommendation_id, known, timed, repeats_after
    )
