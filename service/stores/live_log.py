"""The rules of a live history, in Python: what `service/stores/redis/record.lua` does inside Redis."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from service.stores.port import Bounds, Change, Event, LiveUser
from service.stores.trail import Met, Trail, in_order


class LiveLog:
    """All that is remembered of one user.

    Args:
        bounds: of what is remembered.
        born: when it begins, in microseconds.
    """

    def __init__(self, bounds: Bounds, born: int) -> None:
        self._bounds = bounds
        self._born = born
        self._arrivals = 0
        self._mark = ""
        self._newest: int | None = None
        self._events: dict[str, Event] = {}
        self._ids: dict[str, int] = {}
        self._known: dict[str, Met] = {}
        self._unknown: dict[str, Met] = {}

    def __len__(self) -> int:
        """How many items it knows, how many events, and how many ids."""
        return len(self._known) + len(self._unknown) + len(self._events) + len(self._ids)

    def add(self, events: Sequence[Event], now: int) -> Change:
        """Remember events, but those that are remembered already. `now` in microseconds."""
        before, stored, forgotten = self._arrivals, [], list[str]()
        touched = {event.item_id for event in events}
        self._forget_ids(now)
        stamp = next(reversed(self._ids.values()), 0)
        for place, event in enumerate(events):
            if self._is_new(event):
                stamp = max(now, stamp + 1)
                self._ids.pop(event.event_id, None)
                self._ids[event.event_id] = stamp
                touched |= self._settle(now)
                self._add(event)
                stored.append(place)
        for oldest in list(self._ids)[: max(0, len(self._ids) - self._bounds.ids)]:
            del self._ids[oldest]
        for oldest in list(self._events)[: _surplus(len(self._events), self._bounds.events)]:
            del self._events[oldest]
        for items, bound in ((self._known, self._bounds.items), (self._unknown, self._bounds.unknown_items)):
            for met in in_order(items.values())[: _surplus(len(items), bound)]:
                del items[met.item_id]
                forgotten.append(met.item_id)
        found = (self._known.get(item) or self._unknown.get(item) for item in touched)
        places = in_order(each for each in found if each is not None)
        mark_before = self._mark
        if stored:
            self._mark = secrets.token_hex(8)
        marks = mark_before, self._mark
        return Change(self._born, before, self._arrivals, *marks, tuple(stored), places, tuple(forgotten))

    def user(self) -> LiveUser:
        """What the user did."""
        met = Trail.of([*self._known.values(), *self._unknown.values()])
        return LiveUser(self._born, self._arrivals, self._mark, met)

    def events(self) -> list[Event]:
        """What is remembered of it, in order of arrival."""
        return [replace(event, known=True, timed=True, repeats_after=None) for event in self._events.values()]

    def _forget_ids(self, now: int) -> None:
        oldest = now - self._bounds.id_seconds * 1_000_000
        self._ids = {event_id: stamp for event_id, stamp in self._ids.items() if stamp >= oldest}

    def _is_new(self, event: Event) -> bool:
        """Whether nothing is known of an event, or only of another one with the same id, long before."""
        before = self._events.get(event.event_id)
        moment = self._ids.get(event.event_id) if before is None else before.moment
        return moment is None or (event.repeats_after is not None and abs(event.moment - moment) > event.repeats_after)

    def _settle(self, now: int) -> set[str]:
        """If anything is later than can be, all that is later than now happened now; its items."""
        if self._newest is None or self._newest <= self._bounds.latest(now):
            return set()
        for event in self._events.values():
            if event.moment > now:
                self._events[event.event_id] = replace(event, moment=now)
        settled = set()
        for items in (self._known, self._unknown):
            for met in items.values():
                if met.moment > now:
                    items[met.item_id] = replace(met, moment=now)
                    settled.add(met.item_id)
        self._newest = now
        return settled

    def _add(self, event: Event) -> None:
        moment = event.moment
        if not event.timed and self._newest is not None:
            moment = max(moment, self._newest)
        self._newest = moment if self._newest is None else max(self._newest, moment)
        self._arrivals += 1
        self._events.pop(event.event_id, None)
        self._events[event.event_id] = event
        met = Met(event.item_id, moment, self._arrivals)
        earlier = self._known.pop(met.item_id, None) or self._unknown.pop(met.item_id, None)
        if earlier is not None and (earlier.moment > moment or (event.timed and earlier.moment == moment)):
            met = earlier
        (self._known if event.known else self._unknown)[met.item_id] = met


def _surplus(size: int, bound: int) -> int:
    """How many go: none up to a tenth above the bound, then all above it, so that not every event has to sort."""
    return 0 if size <= bound + bound // 10 else size - bound
