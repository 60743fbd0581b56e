"""The ports to what replicas share: what users did since training, and cached user representations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from models.errors import ServerError
from service.stores.trail import EMPTY, Met, Trail


class StoreError(ServerError):
    """A store cannot do what it was asked right now. Raised by stores; answers go on without it."""


@dataclass(frozen=True)
class UserKey:
    """A user of a catalogue."""

    catalogue: str
    user_id: str


@dataclass(frozen=True)
class Event:
    """A user met an item.

    Attributes:
        event_id: an event whose id is remembered is not recorded again.
        item_id: what was met.
        moment: when, in microseconds since 1970.
        type: `view`, `click`, `purchase` or `like`.
        recommendation_id: the answer that led there, if one did.
        known: whether the catalogue had the item when the event came. Unknown items are kept apart, so that they never
            push out known ones.
        timed: whether `moment` is the client's. If not, the event is the latest of its user, whatever the clocks say.
        repeats_after: microseconds after which an event of the same id is another event; None for never.
    """

    event_id: str
    item_id: str
    moment: int
    type: str = "view"
    recommendation_id: str | None = None
    known: bool = True
    timed: bool = True
    repeats_after: int | None = None


@dataclass(frozen=True)
class LiveUser:
    """What a user did since training.

    Attributes:
        born: when the store first heard of the user, in microseconds; 0 if it never did.
        arrivals: how many events came since.
        mark: of the write that made this state; empty if none did. A store that lost its latest writes comes to the
            same number again with other events, and never to the same mark.
        met: every item once, oldest first.
        complete: whether `met` is all that the store remembers, and not only what was heard of it here.
    """

    born: int = 0
    arrivals: int = 0
    mark: str = ""
    met: Trail = field(default=EMPTY, repr=False)
    complete: bool = True

    def precedes(self, other: LiveUser) -> bool:
        """Whether `other` is a later state of the same user, or the same and more of it, unless the store lost some."""
        return self.born == other.born and (self.arrivals, self.complete) < (other.arrivals, other.complete)

    def after(self, change: Change) -> LiveUser:
        """The user as known once a change is known: complete if the state that it changed was known."""
        if self.complete and self.mark == change.mark:
            return self
        if self.born != change.born:
            return LiveUser(
                change.born, change.arrivals, change.mark, Trail.of(change.met), complete=not change.mark_before
            )
        if self.arrivals < change.arrivals:
            complete = self.complete and self.mark == change.mark_before
            met = self.met.after(change.met, change.forgotten)
            return LiveUser(self.born, change.arrivals, change.mark, met, complete)
        # Overtaken by a later one, or the store lost what is known here: nobody can say before it is read again.
        later = {each.item_id: each for each in self.met if each.item_id in {met.item_id for met in change.met}}
        added = [each for each in change.met if each.item_id not in later]
        return LiveUser(self.born, self.arrivals, self.mark, self.met.after(added, ()), complete=False)


NOBODY = LiveUser()


@dataclass(frozen=True)
class Change:
    """What became of events of one user.

    Attributes:
        born: when the store first heard of the user, in microseconds.
        before: how many events had come before these.
        arrivals: how many have come with them.
        mark_before: of the state that they changed; empty if there was none.
        mark: of the state that they made.
        stored: the places of those that were not known already.
        met: where the items of all of them stand now, and others that had to move.
        forgotten: items that had to go for them.
    """

    born: int
    before: int
    arrivals: int
    mark_before: str = ""
    mark: str = ""
    stored: tuple[int, ...] = ()
    met: tuple[Met, ...] = field(default=(), repr=False)
    forgotten: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Bounds:
    """What is remembered of one user; of items and events up to a tenth more.

    Attributes:
        items: known items.
        unknown_items: items that the catalogue did not have when they were met.
        events: events, with their ids, types and recommendations.
        ids: ids alone, of as many events as this,
        id_seconds: and for so long, so that an event sent again changes nothing.
        life_seconds: after so much silence, nothing.
        ahead_seconds: how far clocks may differ. What stands further ahead was written when one was, and happened now.
    """

    items: int = 10_000
    unknown_items: int = 100
    events: int = 200
    ids: int = 5_000
    id_seconds: int = 86_400
    life_seconds: int = 30 * 86_400
    ahead_seconds: float = 300

    def latest(self, now: int) -> int:
        """The latest moment that can be, in microseconds."""
        return now + round(self.ahead_seconds * 1_000_000)


class UserStore(Protocol):
    """What users did since training. Every call may raise `StoreError`."""

    async def connect(self) -> None:
        """Reach the store and look whether it fits.

        Raises:
            ConfigError: it holds users in a layout of before, or cannot do what was set.
            StoreError: it cannot be reached. It is looked for from now on.
        """

    async def read(self, user: UserKey, cached: LiveUser = NOBODY, patience: float | None = None) -> LiveUser:
        """What a user did.

        Args:
            user: who.
            cached: what is known already; returned as it is if nothing came since.
            patience: seconds to wait at most; the store's own patience if not given.
        """

    async def record(self, events: Mapping[UserKey, Sequence[Event]]) -> dict[UserKey, Change | StoreError]:
        """Keep events, and return what became of them: of every user all or none are kept.

        Where a user has an error instead of a change, that user's are not known to be kept, and so it is for all when
        this raises. Sent again, they are not kept twice.
        """

    async def events(self, user: UserKey) -> list[Event]:
        """The events remembered of a user, in order of arrival."""

    async def close(self) -> None:
        """Let go of connections."""


class VectorCache(Protocol):
    """Cached representations. Every call may raise `StoreError`."""

    async def get(self, key: bytes, patience: float | None = None) -> bytes | None:
        """A representation, by a digest of all that it depends on."""

    async def put(self, key: bytes, value: bytes) -> None:
        """Cache a representation."""

    async def close(self) -> None:
        """Let go of connections."""
