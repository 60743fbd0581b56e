"""What counts as a user's history, in which order, and what of it is remembered where."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np
import pytest

from models.bundle.store import load_bundle
from models.errors import ClientError, NotFoundError
from models.histories import UserHistories
from service.deployments.deployment import Deployment
from service.stores.memory import MemoryStore
from service.stores.port import NOBODY, Bounds, Change, Event, LiveUser, StoreError, UserKey
from service.users.histories import RETRY_SECONDS, Feedback, Histories, Sent, append
from tests.service.world import FakeEngine, World

pytestmark = pytest.mark.anyio

NOW = 1_750_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


class Moody(MemoryStore):
    """A store that can be away.

    Attributes:
        away: raise instead of answering.
        meanwhile: what happens before an answer arrives.
    """

    away = False
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def read(self, user: UserKey, cached: LiveUser = NOBODY, patience: float | None = None) -> LiveUser:
        if self.away:
            raise StoreError("away")
        answer, meanwhile = await super().read(user, cached, patience), self.meanwhile
        if meanwhile is not None:
            self.meanwhile = None
            await meanwhile()
        return answer

    async def record(self, events: Mapping[UserKey, Sequence[Event]]) -> dict[UserKey, Change | StoreError]:
        if self.away:
            raise StoreError("away")
        return await super().record(events)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Moody:
    return Moody(Bounds(), 100, clock)


@pytest.fixture
def histories(store: Moody, clock: Clock) -> Histories:
    return Histories(store, 100, clock=clock)


@pytest.fixture(scope="module")
def deployment(world: World) -> Deployment:
    bundle = load_bundle(world.bundle)
    engine = FakeEngine(str(world.llm), bundle.manifest.llm.fingerprint)
    return Deployment.build(bundle, engine, "control")


def said(*items: str, at: float | None = None, user_id: str = "n") -> list[Feedback]:
    return [Feedback(user_id, item, timestamp=at) for item in items]


async def ids(histories: Histories, deployment: Deployment, user_id: str = "n") -> list[str]:
    history = await histories.of(deployment, user_id)
    return [deployment.catalogue.item_ids[item] for item in history.items]


@pytest.mark.parametrize(
    ("earlier", "later", "joined"),
    [
        ([1, 2, 3], [4, 2], [1, 3, 4, 2]),
        ([], [1], [1]),
        ([1], [], [1]),
        ([], [1, 2, 3, 1], [2, 3, 1]),
        ([1, 2, 1], [], [2, 1]),
    ],
)
def test_an_item_counts_at_its_latest_place(earlier: list[int], later: list[int], joined: list[int]) -> None:
    assert append(earlier, later) == joined


async def test_what_is_sent_twice_is_what_is_sent_once(histories: Histories, deployment: Deployment) -> None:
    """a, b, c, a is b, c, a."""
    twice = await histories.of(deployment, None, [Sent(item) for item in (1, 2, 3, 1)])
    assert twice.items.tolist() == [2, 3, 1]


async def test_the_order_within_one_call_is_kept(histories: Histories, deployment: Deployment) -> None:
    await histories.record(deployment, said("i9", "i10", "i2"))
    await histories.record(deployment, said("i7", "i1", at=NOW - 5, user_id="m"))
    assert await ids(histories, deployment) == ["i9", "i10", "i2"]
    assert await ids(histories, deployment, "m") == ["i7", "i1"]


async def test_a_retry_without_times_changes_nothing(
    histories: Histories, deployment: Deployment, clock: Clock
) -> None:
    """A, B, and A again soon is a retry; long after it is another visit, and so it is with an id of its own."""
    await histories.record(deployment, said("i1"))
    await histories.record(deployment, said("i2"))
    clock.now += 60
    await histories.record(deployment, said("i1"))
    assert await ids(histories, deployment) == ["i1", "i2"]
    clock.now += RETRY_SECONDS
    await histories.record(deployment, said("i1"))
    assert await ids(histories, deployment) == ["i2", "i1"]
    await histories.record(deployment, [Feedback("n", "i2", event_id="e")])
    assert await ids(histories, deployment) == ["i1", "i2"]
    await histories.record(deployment, said("i3"))
    await histories.record(deployment, [Feedback("n", "i2", event_id="e")])
    assert await ids(histories, deployment) == ["i1", "i2", "i3"]


async def test_events_are_the_same_only_if_all_is_the_same(
    store: Moody, histories: Histories, deployment: Deployment
) -> None:
    """Ids may have any characters."""
    one = Feedback("n", "i1", recommendation_id="view\0z")
    other = Feedback("n", "i1\0view", recommendation_id="z")
    await histories.record(deployment, [one, other])
    assert len(await store.events(UserKey("tiny", "n"))) == 2


async def test_a_click_after_a_view_is_another_event(
    store: Moody, histories: Histories, deployment: Deployment
) -> None:
    await histories.record(deployment, [Feedback("n", "i1", "view", NOW), Feedback("n", "i1", "view", NOW)])
    await histories.record(deployment, [Feedback("n", "i1", "click", NOW, recommendation_id="r")])
    events = await store.events(UserKey("tiny", "n"))
    assert [(event.type, event.recommendation_id) for event in events] == [("view", None), ("click", "r")]


async def test_events_of_the_future_are_refused_and_none_beside_them_is_kept(
    histories: Histories, deployment: Deployment
) -> None:
    """A clock may be five minutes ahead."""
    await histories.record(deployment, said("i1", at=NOW + 299))
    with pytest.raises(ClientError, match=r"events.1.timestamp: it lies \d+ s in the future"):
        await histories.record(deployment, [*said("i2"), *said("i3", at=32_472_144_000.0)])
    assert await ids(histories, deployment) == ["i1"]


async def test_unknown_items_push_out_nothing(histories: Histories, deployment: Deployment) -> None:
    await histories.record(deployment, said("i5", at=NOW - 1000))
    for number in range(200):
        await histories.record(deployment, said(f"x{number}", at=NOW - number))
    assert await ids(histories, deployment) == ["i5"]


async def test_a_late_event_stands_at_its_time_after_training(
    histories: Histories, deployment: Deployment, clock: Clock
) -> None:
    trained = await ids(histories, deployment, "u0")
    await histories.record(deployment, said("i29", user_id="u0"))
    clock.now += 1
    await histories.record(deployment, said("i30", at=31_536_000.0, user_id="u0"))
    assert await ids(histories, deployment, "u0") == [*trained, "i30", "i29"]


async def test_what_a_request_sends_stands_at_its_time_if_it_has_one(
    histories: Histories, deployment: Deployment
) -> None:
    await histories.record(deployment, said("i1", at=100.0))
    await histories.record(deployment, said("i2", at=200.0))
    timed = await histories.of(deployment, "n", [Sent(4, 250_000_000), Sent(3, 150_000_000), Sent(5, 100_000_000)])
    assert timed.items.tolist() == [1, 5, 3, 2, 4]
    untimed = await histories.of(deployment, "n", [Sent(4, 250_000_000), Sent(3)])
    assert untimed.items.tolist() == [1, 2, 4, 3]
    assert (timed.live, untimed.known) == (2, True)


async def test_a_history_shows_the_latest_and_remembers_all(store: Moody, deployment: Deployment, clock: Clock) -> None:
    """Two of feedback are shown; seen is whatever was met: in training, by feedback, by the request."""
    histories = Histories(store, 100, live_items=2, clock=clock)
    await histories.record(deployment, said("i26", "i27", "i28", "x", user_id="u0"))
    history = await histories.of(deployment, "u0", [Sent(30)])
    trained = deployment.model.histories.of("u0").tolist()
    assert history.items.tolist() == [*trained, 27, 28, 30]
    assert history.seen == {*trained, 26, 27, 28, 30}


async def test_what_was_met_before_the_kept_history_is_seen(histories: Histories, deployment: Deployment) -> None:
    model = deployment.model
    object.__setattr__(model, "earlier", UserHistories(["u0"], [np.array([29, 30])]))
    history = await histories.of(deployment, "u0")
    assert history.seen == {*model.histories.of("u0").tolist(), 29, 30}
    assert not {29, 30} & set(history.items.tolist())
    object.__setattr__(model, "earlier", UserHistories.nobody())


async def test_away_the_store_is_replaced_by_what_this_replica_acknowledged_or_saw(
    store: Moody, histories: Histories, deployment: Deployment
) -> None:
    """It never read the one; the other came by another replica and was read once."""
    await histories.record(deployment, said("i1", "i2"))
    await store.record({UserKey("tiny", "seen"): [Event("1", "i3", 1)]})
    await histories.of(deployment, "seen")
    store.away = True
    assert await ids(histories, deployment) == ["i1", "i2"]
    assert await ids(histories, deployment, "seen") == ["i3"]
    assert histories.last_known(deployment, "n").items.tolist() == [1, 2]
    with pytest.raises(StoreError):
        await histories.record(deployment, said("i4"))
    assert await ids(histories, deployment) == ["i1", "i2"]
    store.away = False
    assert await ids(histories, deployment) == ["i1", "i2"]


async def test_away_the_store_is_replaced_by_what_was_acknowledged_to_users_known_in_part(
    store: Moody, deployment: Deployment, clock: Clock
) -> None:
    """Another replica heard of them first, and this one forgot them in between; a retry counts as well."""
    histories, key = Histories(store, 1, clock=clock), UserKey("tiny", "n")
    await store.record({key: [Event("1", "i1", 1)]})
    await histories.record(deployment, said("i2"))
    store.away = True
    assert await ids(histories, deployment) == ["i2"]
    store.away = False
    await histories.record(deployment, said("i3", user_id="m"))
    await histories.record(deployment, said("i2"))
    store.away = True
    assert await ids(histories, deployment) == ["i2"]
    store.away = False
    assert await ids(histories, deployment) == ["i1", "i2"]


async def test_what_is_remembered_here_is_bounded_by_items_and_not_by_users_alone(
    store: Moody, deployment: Deployment, clock: Clock
) -> None:
    """Of ten users with 129 items each, where there is room for a thousand items: the latest seven."""
    histories = Histories(store, 10, clock=clock)
    for user in range(10):
        await histories.record(deployment, said(*(f"x{n}" for n in range(100)), "i1", user_id=f"n{user}"))
        await histories.record(deployment, said(*(f"i{n}" for n in range(1, 30)), user_id=f"n{user}"))
    keys = [UserKey("tiny", f"n{user}") for user in range(10)]
    known = [histories._last_known.get(key) for key in keys]
    assert [None if live is None else len(live.met) for live in known] == [None] * 3 + [129] * 7


async def test_only_the_store_can_say_that_a_user_is_unknown(
    store: Moody, histories: Histories, deployment: Deployment
) -> None:
    """Away, it may have kept what another replica, or this one before it was started again, acknowledged."""
    with pytest.raises(NotFoundError):
        await histories.of_known(deployment, "n")
    store.away = True
    with pytest.raises(StoreError):
        await histories.of_known(deployment, "n")
    assert (await histories.of_known(deployment, "u0")).known


async def test_an_answer_that_was_overtaken_does_not_replace_a_later_one(
    store: Moody, histories: Histories, deployment: Deployment
) -> None:
    await histories.record(deployment, said("i1"))
    store.meanwhile = lambda: histories.record(deployment, said("i2"))
    assert await ids(histories, deployment) == ["i1"]
    store.away = True
    assert await ids(histories, deployment) == ["i1", "i2"]


async def test_what_a_store_lost_hides_nothing_that_it_acknowledged_since(
    store: Moody, histories: Histories, deployment: Deployment
) -> None:
    """As a replica that takes over has lost what its primary had not told it; numbers are given again."""
    await histories.record(deployment, said("i1"))
    await histories.record(deployment, said("i2"))
    earlier = copy.deepcopy(store._logs)
    await histories.record(deployment, said("i3"))
    store._logs = copy.deepcopy(earlier)
    await histories.record(deployment, said("i4"))
    assert await ids(histories, deployment) == ["i1", "i2", "i4"]
    await histories.record(deployment, said("i5"))
    assert await ids(histories, deployment) == ["i1", "i2", "i4", "i5"]
    store._logs = earlier
    assert await ids(histories, deployment) == ["i1", "i2"]
    await histories.record(deployment, said("i6"))
    store.away = True
    assert await ids(histories, deployment) == ["i1", "i2", "i6"]
