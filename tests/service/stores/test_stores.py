"""What every store does, run on all of them, and that Redis and Python go by the same rules."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.stores.live_log import LiveLog
from service.stores.local import LocalServer
from service.stores.memory import MemoryCache, MemoryStore
from service.stores.port import NOBODY, Bounds, Event, LiveUser, UserKey, UserStore, VectorCache
from service.stores.redis.address import parse_address
from service.stores.redis.users import RedisConfig, RedisStore
from service.stores.redis.vectors import RedisVectors

pytestmark = pytest.mark.anyio

KEPT = Bounds(items=3, unknown_items=2, events=4, ids=30)
USER = UserKey("films", "u")
PATIENT = RedisConfig(timeout_seconds=5)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, shared_server: LocalServer) -> AsyncIterator[UserStore]:
    store: UserStore = MemoryStore(KEPT, 100)
    if request.param == "redis":
        config = PATIENT.model_copy(update={"tenant": request.node.name[:64]})
        store = RedisStore(parse_address(shared_server.url), config, KEPT)
    await store.connect()
    yield store
    await store.close()


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, shared_server: LocalServer) -> AsyncIterator[VectorCache]:
    cache: VectorCache = MemoryCache(100)
    if request.param == "redis":
        cache = RedisVectors(parse_address(shared_server.url), PATIENT, places=100, life_seconds=60)
    yield cache
    await cache.close()


def event(item_id: str, moment: int = 0, **more: object) -> Event:
    """An event whose id is made of item and time."""
    return replace(Event(f"{item_id}@{moment}", item_id, moment), **more)  # type: ignore[arg-type]


def untimed(item_id: str, now: int) -> Event:
    return Event(item_id, item_id, now, timed=False, repeats_after=300)


async def told(store: UserStore, events: Mapping[UserKey, Sequence[Event]]) -> dict[UserKey, LiveUser]:
    """What their users have done once events are kept."""
    await store.record(events)
    return {user: await store.read(user) for user in events}


def items(user: LiveUser) -> list[str]:
    return [met.item_id for met in user.met]


async def test_of_an_unknown_user_nothing_is_known(store: UserStore) -> None:
    assert await store.read(USER) == NOBODY
    assert await store.events(USER) == []


async def test_events_are_in_order_of_time_however_they_come(store: UserStore) -> None:
    other = UserKey("films", "v")
    await store.record({USER: [event("later", 25)], other: [event("other", 10)]})
    users = await told(store, {USER: [event("earlier", 15)]})
    assert items(users[USER]) == ["earlier", "later"]
    assert await store.read(USER) == users[USER]
    assert items(await store.read(other)) == ["other"]


async def test_among_equal_times_the_order_is_that_of_arrival(store: UserStore) -> None:
    """In one call and in several; not that of the ids."""
    await store.record({USER: [event("z", 1), event("a", 1)]})
    users = await told(store, {USER: [event("m", 1)]})
    assert items(users[USER]) == ["z", "a", "m"]


async def test_an_event_of_before_1970_has_its_place_too(store: UserStore) -> None:
    users = await told(store, {USER: [event("a", 5), event("old", -62_135_596_800_000_000), event("b", 6)]})
    assert items(users[USER]) == ["old", "a", "b"]


async def test_an_event_sent_again_changes_nothing(store: UserStore) -> None:
    once = await told(store, {USER: [event("a", 1), event("b", 2)]})
    again = await told(store, {USER: [event("a", 1), event("b", 2)]})
    assert again == once
    assert [each.item_id for each in await store.events(USER)] == ["a", "b"]


async def test_an_id_of_before_stands_for_the_event_of_before(store: UserStore) -> None:
    await store.record({USER: [event("a", 1, event_id="1"), event("b", 2, event_id="2")]})
    users = await told(store, {USER: [event("a", 3, event_id="1")]})
    assert items(users[USER]) == ["a", "b"]


async def test_a_call_of_more_events_than_are_kept_sent_again_changes_nothing(store: UserStore) -> None:
    """Nor does one before it, nor one about items in another order, all at one time."""
    first = {USER: [event(f"i{n}", n) for n in range(10)]}
    second = {USER: [event(f"j{n}", 10, event_id=f"j{n}") for n in range(10)]}
    await store.record(first)
    before = await told(store, second)
    for again in (second, first, {USER: second[USER][::-1]}):
        assert (await store.record(again))[USER].stored == ()
    assert await store.read(USER) == before[USER]


async def test_an_id_that_came_long_ago_is_forgotten_and_leaves_an_item_at_its_place(
    store: UserStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than `ids` others later, or a day later, if it is none of the latest events."""
    await store.record({USER: [event("a", 100), event("b", 100)]})
    await store.record({USER: [event(f"x{n}", 1, event_id=f"x{n}") for n in range(KEPT.ids)]})
    change = (await store.record({USER: [event("a", 100)]}))[USER]
    assert change.stored == (0,)
    assert items(await store.read(USER))[-2:] == ["a", "b"]
    await store.record({USER: [event(f"y{n}", 1, event_id=f"y{n}") for n in range(KEPT.events)]})
    assert (await store.record({USER: [event("a", 100)]}))[USER].stored == ()
    later = time.time() + KEPT.id_seconds + 1
    monkeypatch.setattr(store, "_clock", lambda: later)
    assert (await store.record({USER: [event("a", 100)]}))[USER].stored == (0,)


async def test_an_item_met_again_counts_at_its_latest_time(store: UserStore) -> None:
    users = await told(store, {USER: [event("a", 1), event("b", 2), event("a", 3)]})
    assert items(users[USER]) == ["b", "a"]
    users = await told(store, {USER: [event("a", 0)]})
    assert items(users[USER]) == ["b", "a"]


async def test_without_a_time_the_same_event_soon_after_is_a_retry_and_later_it_is_another(store: UserStore) -> None:
    """A, B, and A again: within the window nothing changes, after it A is the latest."""
    users = await told(store, {USER: [untimed("a", 1000), untimed("b", 1001)]})
    assert items(users[USER]) == ["a", "b"]
    users = await told(store, {USER: [untimed("a", 1300)]})
    assert items(users[USER]) == ["a", "b"]
    users = await told(store, {USER: [untimed("a", 1301)]})
    assert items(users[USER]) == ["b", "a"]


async def test_an_event_without_a_time_is_the_latest_whatever_the_clock_says(store: UserStore) -> None:
    """The clock was set back between the two."""
    await store.record({USER: [untimed("a", 5000)]})
    users = await told(store, {USER: [untimed("b", 1)]})
    assert items(users[USER]) == ["a", "b"]


async def test_what_stands_further_ahead_than_clocks_may_differ_happened_now(
    store: UserStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the clock is set back; it is no longer among the latest events, and one of these was before 1970."""
    now = round(time.time() * 1e6)
    monkeypatch.setattr(store, "_clock", lambda: now / 1e6 + 1e9)
    await store.record({USER: [event("b", now + 10**15), untimed("c", now), event("b", 1), event("b", 2)]})
    await store.record({USER: [event("b", 3), event("b", 4), event("b", -5)]})
    assert "c" not in [each.item_id for each in await store.events(USER)]
    before = await store.read(USER)
    monkeypatch.setattr(store, "_clock", lambda: now / 1e6)
    assert (await store.record({USER: [event("b", -5)]}))[USER].stored == ()
    assert await store.read(USER) == before
    change = (await store.record({USER: [event("d", now + 1)]}))[USER]
    after = await store.read(USER)
    assert before.after(change) == after
    assert items(after) == ["b", "c", "d"]
    soon = now + 299 * 10**6
    users = await told(store, {USER: [event("e", soon), event("f", now + 2)]})
    assert items(users[USER]) == ["d", "f", "e"]
    assert users[USER].met[-1].moment == soon


async def test_what_is_settled_stays_behind_what_stood_only_a_little_ahead(
    store: UserStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was ahead by less than clocks may differ, then by more, and is right again."""
    now = round(time.time() * 1e6)
    for ahead, item in ((200, "a"), (400, "b"), (0, "c")):
        moment = now + ahead * 10**6
        monkeypatch.setattr(store, "_clock", lambda moment=moment: moment / 1e6)
        users = await told(store, {USER: [untimed(item, moment)]})
    assert items(users[USER]) == items(await store.read(USER)) == ["a", "b", "c"]


async def test_the_latest_items_are_remembered(store: UserStore) -> None:
    users = await told(store, {USER: [event(f"i{moment}", moment) for moment in range(5)]})
    assert items(users[USER]) == ["i2", "i3", "i4"]
    assert items(await store.read(USER)) == ["i2", "i3", "i4"]


async def test_unknown_items_push_out_unknown_ones_only(store: UserStore) -> None:
    await store.record({USER: [event("known", 0)]})
    users = await told(store, {USER: [event(f"x{moment}", moment, known=False) for moment in range(1, 50)]})
    assert items(users[USER]) == ["known", "x48", "x49"]


async def test_an_item_that_became_known_is_known(store: UserStore) -> None:
    await store.record({USER: [event("new", 1, known=False)]})
    users = await told(store, {USER: [event("new", 2), event("a", 3, known=False), event("b", 4, known=False)]})
    assert items(users[USER]) == ["new", "a", "b"]


async def test_events_are_kept_with_type_and_recommendation(store: UserStore) -> None:
    """The latest four, in order of arrival."""
    sent = [event(f"i{n}", 9 - n, type="like", recommendation_id=f"r|{n}" if n % 2 else None) for n in range(6)]
    await store.record({USER: sent})
    kept = await store.events(USER)
    assert [(each.item_id, each.moment, each.type, each.recommendation_id) for each in kept] == [
        ("i2", 7, "like", None),
        ("i3", 6, "like", "r|3"),
        ("i4", 5, "like", None),
        ("i5", 4, "like", "r|5"),
    ]


async def test_what_the_caller_has_already_is_not_sent_again(store: UserStore) -> None:
    known = (await told(store, {USER: [event("a", 1)]}))[USER]
    read = await store.read(USER, known)
    assert read == known
    if isinstance(store, RedisStore):
        assert read is known
    later = (await told(store, {USER: [event("b", 2)]}))[USER]
    assert await store.read(USER, known) == later
    assert known.precedes(later)
    assert not later.precedes(known)


async def test_what_became_of_events_is_told_and_no_more(store: UserStore) -> None:
    """Where their items stand, those sent again too, and what had to go; not all that the user did."""
    first = (await store.record({USER: [event("a", 1), event("b", 2)]}))[USER]
    assert (first.before, first.arrivals, first.stored) == (0, 2, (0, 1))
    change = (await store.record({USER: [event("b", 2), event("c", 3)]}))[USER]
    assert (change.before, change.arrivals, change.stored, change.forgotten) == (2, 3, (1,), ())
    assert [met.item_id for met in change.met] == ["b", "c"]
    last = (await store.record({USER: [event("d", 4)]}))[USER]
    assert ([met.item_id for met in last.met], last.forgotten) == (["d"], ("a",))


async def test_changes_and_a_known_state_make_the_state(store: UserStore) -> None:
    """One that is missing is not passed over: the user is then known in part, until read again."""
    changes = [(await store.record({USER: [event(f"i{n}", n)]}))[USER] for n in range(5)]
    whole = await store.read(USER)
    state = NOBODY
    for change in changes:
        state = state.after(change)
    assert state == whole
    partial = NOBODY.after(changes[0]).after(changes[3]).after(changes[1])
    assert (partial.complete, items(partial), partial.arrivals) == (False, ["i1", "i3"], 4)
    assert await store.read(USER, partial) == whole
    assert NOBODY.after(changes[0]).precedes(partial)
    assert partial.precedes(whole)
    assert whole.after(changes[4]) is whole


async def test_a_change_that_was_overtaken_is_not_lost_and_asks_for_another_look(store: UserStore) -> None:
    """Nobody can tell it from one of a store that lost what is known here."""
    changes = [(await store.record({USER: [event(item, n)]}))[USER] for n, item in enumerate("abca")]
    whole = await store.read(USER)
    for change in changes[:3]:
        state = whole.after(change)
        assert (state.complete, state.met) == (False, whole.met)
        assert await store.read(USER, state) == whole
    older = NOBODY.after(changes[0]).after(changes[2])
    assert items(older.after(changes[1])) == ["a", "b", "c"]


async def test_ids_may_hold_any_text(store: UserStore) -> None:
    odd = UserKey("a:b{c}", "ü: }{\n*%")
    users = await told(store, {odd: [event("é\0 🎬|1|2", 1)]})
    assert items(users[odd]) == ["é\0 🎬|1|2"]
    assert [each.item_id for each in await store.events(odd)] == ["é\0 🎬|1|2"]


async def test_catalogues_do_not_share_users(store: UserStore) -> None:
    await store.record({UserKey("books", "u"): [event("a")]})
    assert await store.read(UserKey("films", "u")) == NOBODY
    assert await store.read(UserKey("books:live", "u")) == NOBODY


async def test_vectors_are_bytes_by_digest(cache: VectorCache) -> None:
    key = bytes(range(32))
    assert await cache.get(key) is None
    await cache.put(key, b"\0\1\xff")
    assert await cache.get(key) == b"\0\1\xff"
    assert await cache.get(key[:-1] + b"\0") is None


async def test_the_last_events_and_items_are_remembered_at_any_time(shared_server: LocalServer) -> None:
    """As many as the bounds say, and up to a tenth more; events sent again by their own ids, all others being gone."""
    bounds = Bounds(items=20, unknown_items=20, events=20, ids=1)
    config = PATIENT.model_copy(update={"tenant": "at-any-time"})
    for store in (MemoryStore(bounds, 100), RedisStore(parse_address(shared_server.url), config, bounds)):
        sent = []
        for number in range(50):
            sent.append(event(f"i{number}", number))
            await store.record({USER: [sent[-1]]})
            for kept in (items(await store.read(USER)), [each.item_id for each in await store.events(USER)]):
                assert kept[-20:] == [each.item_id for each in sent[-20:]]
                assert len(kept) <= 22
            assert (await store.record({USER: sent[-20:]}))[USER].stored == ()
        await store.close()


async def test_a_memory_bounds_ids_of_events_too() -> None:
    """A user with a thousand events on one item weighs more than ten users with a hundred items."""
    store, users = MemoryStore(Bounds(), 20), [UserKey("films", f"u{number}") for number in range(3)]
    for user in users:
        await store.record({user: [event("a", n) for n in range(1000)]})
    assert [(await store.read(user)).arrivals for user in users] == [0, 0, 1000]
    assert (await store.record({users[2]: [event("a", n) for n in range(1000)]}))[users[2]].stored == ()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


TENANTS = count()
UNMARKED = {"mark": "", "mark_before": ""}
EVENTS = st.builds(
    lambda item, moment, known, timed, named: Event(
        f"{item}{moment if timed else ''}{named}",
        item,
        moment,
        known=known,
        timed=timed,
        repeats_after=None if timed or named else 3,
    ),
    st.sampled_from("abcdefgh"),
    st.integers(-5, 30) | st.integers(11, 15).map(lambda tens: tens * 10**7),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "1"]),
)


@settings(deadline=None, derandomize=True)
@given(clocks=st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_events_without_a_time_stay_in_order_whatever_the_clock_does(clocks: list[int]) -> None:
    log = LiveLog(Bounds(ahead_seconds=8), 0)
    for number, clock in enumerate(clocks):
        log.add([untimed(f"i{number}", clock * 10**6)], clock * 10**6)
    assert items(log.user()) == [f"i{number}" for number in range(len(clocks))]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(batches=st.lists(st.tuples(st.integers(100, 130), st.lists(EVENTS, max_size=12)), min_size=1, max_size=6))
async def test_redis_and_python_go_by_the_same_rules(
    shared_server: LocalServer, batches: list[tuple[int, list[Event]]]
) -> None:
    bounds = Bounds(items=4, unknown_items=2, events=5, ids=9, id_seconds=12, ahead_seconds=8)
    clock = Clock()
    memory = MemoryStore(bounds, 10, clock)
    config = PATIENT.model_copy(update={"tenant": f"rules-{next(TENANTS)}"})
    redis = RedisStore(parse_address(shared_server.url), config, bounds, clock=clock)
    state = NOBODY
    for now, batch in batches:
        clock.now = now
        changes = await redis.record({USER: batch})
        (by_memory,) = (await memory.record({USER: batch})).values()
        assert replace(changes[USER], **UNMARKED) == replace(by_memory, **UNMARKED)
        state = state.after(changes[USER])
    assert await redis.read(USER) == state
    assert replace(await memory.read(USER), mark=state.mark) == state
    assert await redis.events(USER) == await memory.events(USER)
    await redis.close()
