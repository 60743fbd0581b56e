"""What befalls a Redis, and that it stays with whom it befalls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import chain

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from models.errors import ConfigError
from service.stores.local import LocalServer
from service.stores.port import NOBODY, Bounds, Change, Event, StoreError, UserKey
from service.stores.redis.address import parse_address
from service.stores.redis.fitness import LOOK_SECONDS, Fitness
from service.stores.redis.keys import Keys
from service.stores.redis.migrate import migrate_users
from service.stores.redis.users import RedisConfig, RedisStore
from service.stores.redis.vectors import RedisVectors
from tests.service.stores.conftest import pid_of

pytestmark = pytest.mark.anyio

USER = UserKey("films", "u")
OTHER = UserKey("films", "v")


def met(item_id: str, moment: int = 1) -> list[Event]:
    return [Event(f"{item_id}@{moment}", item_id, moment)]


class Failures(Counter[str]):
    """What failed and how."""

    def __call__(self, operation: str, failure: str) -> None:
        self[f"{operation} {failure}"] += 1


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
async def store(server: LocalServer, failures: Failures) -> AsyncIterator[RedisStore]:
    """Quick to notice: it looks after its server every 50 ms, and takes 200 ms of silence for a hang."""
    config = RedisConfig(timeout_seconds=0.04, write_timeout_seconds=1.0, retry_seconds=0.05)
    store = RedisStore(parse_address(server.url), config, Bounds(), failures)
    await store.connect()
    yield store
    await store.close()


@pytest.fixture
async def redis(server: LocalServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as redis:
        yield redis


@contextlib.contextmanager
def hanging(server: LocalServer) -> Iterator[None]:
    """It does not say a word, and goes on afterwards."""
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_more_calls_than_connections_wait_their_turn(server: LocalServer, failures: Failures) -> None:
    """Six hundred new users at once, over three connections."""
    config = RedisConfig(connections=3, timeout_seconds=5, write_timeout_seconds=10)
    store = RedisStore(parse_address(server.url), config, Bounds(), failures)
    await store.connect()
    users = [UserKey("films", f"u{number}") for number in range(600)]
    await asyncio.gather(*(store.record({user: met("a")}) for user in users))
    states = await asyncio.gather(*(store.read(user) for user in users))
    assert all(len(state.met) == 1 for state in states)
    assert not failures
    await store.close()


async def test_feedback_costs_what_it_says_and_not_what_its_users_remember(
    server: LocalServer, redis: Redis, failures: Failures
) -> None:
    """Users in more than one call, with 150 items each: for an event more of each Redis sends a few words."""
    config = RedisConfig(timeout_seconds=5, write_timeout_seconds=30)
    store = RedisStore(parse_address(server.url), config, Bounds(), failures)
    users = [UserKey("films", f"u{number}") for number in range(60)]
    await store.record({user: [*chain.from_iterable(met(f"i{n}", n) for n in range(150))] for user in users})
    before = (await redis.info("stats"))["total_net_output_bytes"]
    changes = await store.record({user: met("new", 1000) for user in users})
    sent = (await redis.info("stats"))["total_net_output_bytes"] - before
    assert {(change.before, change.stored) for change in changes.values()} == {(150, (0,))}
    assert sent < 60 * 1000
    assert not failures
    await store.close()


async def test_a_key_of_another_type_concerns_one_user(store: RedisStore, redis: Redis, failures: Failures) -> None:
    await store.record({OTHER: met("a")})
    await redis.set(Keys("default").of_user(USER)[0], "not a hash")
    for _ in range(20):
        with pytest.raises(StoreError, match="refuses"):
            await store.read(USER)
        assert len((await store.read(OTHER)).met) == 1
    await store.record({OTHER: met("b", 2)})
    assert failures == {"read refused": 20}
    changes = await store.record({OTHER: met("c", 3), USER: met("a"), UserKey("films", "w"): met("a")})
    assert [isinstance(change, StoreError) for change in changes.values()] == [False, True, False]
    assert "WRONGTYPE" in str(changes[USER])
    assert [len((await store.read(user)).met) for user in (OTHER, UserKey("films", "w"))] == [3, 1]
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.record({USER: met("a")})
    assert failures == {"read refused": 20, "record refused": 2}


async def test_a_server_that_lost_its_latest_writes_gives_their_numbers_to_no_other_state(
    store: RedisStore, redis: Redis
) -> None:
    """As a replica that takes over: who knows what is lost is told of what came since."""
    await store.record({USER: [*met("a"), *met("b", 2)]})
    kept = {key: await redis.dump(key) for key in Keys("default").of_user(USER) if await redis.exists(key)}
    await store.record({USER: met("c", 3)})
    known = await store.read(USER)
    for key, value in kept.items():
        await redis.restore(key, 0, value, replace=True)
    change = (await store.record({USER: met("d", 4)}))[USER]
    assert isinstance(change, Change)
    assert (change.born, change.arrivals) == (known.born, known.arrivals)
    assert [each.item_id for each in (await store.read(USER, known)).met] == ["a", "b", "d"]
    after = known.after(change)
    assert "d" in after.met.item_ids
    assert await store.read(USER, after) == await store.read(USER)


async def test_users_of_an_earlier_version_have_no_mark_yet(store: RedisStore, redis: Redis) -> None:
    """They are read, known again, and marked by their next event."""
    log = Keys("default").of_user(USER)[0]
    await store.record({USER: met("a")})
    head = (await redis.hget(log, "")).decode()
    await redis.hset(log, "", head.rpartition("|")[0])
    known = await store.read(USER)
    assert (known.mark, known.met.item_ids) == ("", ("a",))
    assert await store.read(USER, known) is known
    change = (await store.record({USER: met("b", 2)}))[USER]
    assert isinstance(change, Change)
    assert known.after(change) == await store.read(USER)
    assert known.after(change).mark


async def test_an_event_that_is_kept_already_needs_no_memory(store: RedisStore, redis: Redis) -> None:
    """Who was only late to hear of it is told, however full the server is."""
    await store.record({USER: met("a")})
    await redis.config_set("maxmemory", 1)
    again = (await store.record({USER: met("a")}))[USER]
    assert isinstance(again, Change)
    assert again.stored == ()
    with pytest.raises(StoreError):
        await store.record({USER: met("b", 2)})


async def test_a_log_that_begins_otherwise_concerns_one_user(store: RedisStore, redis: Redis) -> None:
    await redis.hset(Keys("default").of_user(USER)[0], "", "nonsense")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.read(USER)
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.record({USER: met("a")})
    await store.record({OTHER: met("a")})


@pytest.mark.parametrize("place", range(4))
async def test_events_that_any_one_key_refuses_leave_nothing_behind(
    store: RedisStore, redis: Redis, place: int
) -> None:
    """So that they are stored when they are sent again, once the key is gone."""
    keys = Keys("default").of_user(USER)
    await redis.set(keys[place], "neither a hash nor a sorted set")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.record({USER: met("a")})
    assert await redis.exists(*keys) == 1
    await redis.delete(keys[place])
    changes = await store.record({USER: met("a")})
    assert changes[USER].stored == (0,)
    assert [each.item_id for each in (await store.read(USER)).met] == ["a"]


async def test_a_full_memory_refuses_events_and_nothing_else(
    store: RedisStore, redis: Redis, failures: Failures
) -> None:
    """Nothing is evicted for them either, and none of a batch is kept."""
    await store.record({USER: met("a")})
    before = await store.read(USER)
    await redis.config_set("maxmemory", 1)
    with pytest.raises(StoreError, match="maxmemory"):
        await store.record({USER: [*met("b", 2), *met("c", 3)], OTHER: met("a")})
    assert await store.read(USER) == before
    assert await store.read(OTHER) == NOBODY
    assert failures == {"record refused": 1}
    await redis.config_set("maxmemory", 0)
    await store.record({USER: met("b", 2)})
    assert len((await store.read(USER)).met) == 2


async def test_a_busy_process_does_not_take_its_redis_for_dead(store: RedisStore, failures: Failures) -> None:
    """Its event loop stands still for five times the patience, again and again."""
    await store.record({USER: met("a")})
    for _ in range(5):
        reads = [asyncio.ensure_future(store.read(USER)) for _ in range(10)]
        await asyncio.sleep(0)
        time.sleep(0.2)
        assert [len((await read).met) for read in reads] == [1] * 10
    assert not failures


async def test_a_hang_is_noticed_however_little_patience_requests_have(
    server: LocalServer, store: RedisStore, failures: Failures
) -> None:
    """Nobody waits for more than a millisecond; still the server is soon left alone, and soon found again."""
    await store.record({USER: met("a")})
    with hanging(server):
        while not failures["read unreachable"]:
            with pytest.raises(StoreError):
                await store.read(USER, patience=0.001)
            await asyncio.sleep(0.01)
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.record({USER: met("b", 2)})
    await until_reached(store)
    assert len((await store.read(USER)).met) == 1


async def until_reached(store: RedisStore) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreError):
                await store.read(USER)
                return
            await asyncio.sleep(0.02)


async def test_a_hang_that_nobody_asks_about_is_noticed_too(server: LocalServer, store: RedisStore) -> None:
    with hanging(server):
        await asyncio.sleep(0.5)
        started = time.perf_counter()
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.read(USER)
        assert time.perf_counter() - started < 0.04
    await until_reached(store)


async def test_an_event_that_was_stored_after_all_is_not_stored_twice(server: LocalServer, failures: Failures) -> None:
    """The server hangs while it has the event; the client is told to come back, and comes back with it."""
    config = RedisConfig(timeout_seconds=5, write_timeout_seconds=0.5, retry_seconds=60)
    store = RedisStore(parse_address(server.url), config, Bounds(), failures)
    await store.record({USER: met("before")})
    events = [Event("1", "a", 10, timed=False, repeats_after=300), Event("2", "b", 11, timed=False, repeats_after=300)]
    with hanging(server), pytest.raises(StoreError, match="late"):
        await store.record({USER: events})
    async with asyncio.timeout(5):
        while len(await store.events(USER)) < 3:
            await asyncio.sleep(0.01)
    for _ in range(10):
        with contextlib.suppress(StoreError):
            await store.record({USER: events})
            break
    user = await store.read(USER)
    assert [each.item_id for each in user.met] == ["before", "a", "b"]
    assert user.arrivals == 3
    await store.close()


async def test_calls_that_were_given_up_leave_their_connections_to_others(
    server: LocalServer, failures: Failures
) -> None:
    """By clients that left, and by a server that was found away, before they had begun."""
    config = RedisConfig(connections=2, timeout_seconds=5)
    store = RedisStore(parse_address(server.url), config, Bounds(), failures)
    await store.connect()
    for _ in range(20):
        reads = [asyncio.ensure_future(store.read(USER)) for _ in range(5)]
        await asyncio.sleep(0)
        for read in reads[:3]:
            read.cancel()
        await asyncio.sleep(0)
        store._reads._drop()
        await asyncio.gather(*reads, return_exceptions=True)
    assert await store.read(USER) == NOBODY
    await store.close()


async def test_a_server_that_forgot_its_scripts_is_told_them_again(store: RedisStore, redis: Redis) -> None:
    await store.record({USER: met("a")})
    await redis.script_flush()
    assert len((await store.read(USER)).met) == 1
    await redis.script_flush()
    await store.record({USER: met("b", 2), OTHER: met("a")})
    assert len((await store.read(USER)).met) == 2


async def test_a_broken_connection_is_nobodys_loss(store: RedisStore, redis: Redis, failures: Failures) -> None:
    await store.record({USER: met("a")})
    for _ in range(5):
        await redis.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
        assert len((await store.read(USER)).met) == 1
        await store.record({USER: met("a")})
    assert not failures


async def test_writes_that_are_paused_do_not_stop_reads(store: RedisStore, redis: Redis) -> None:
    await store.record({USER: met("a")})
    await redis.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    writes = [asyncio.ensure_future(store.record({USER: met("b")})) for _ in range(100)]
    for _ in range(50):
        with contextlib.suppress(StoreError):
            assert len((await store.read(USER)).met) == 1
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    await redis.execute_command("CLIENT", "UNPAUSE")
    await store.record({USER: met("b")})


async def test_killed_while_writing_it_has_all_that_it_acknowledged(server: LocalServer, store: RedisStore) -> None:
    """Five times. Every event that was acknowledged is there when it is back."""
    acknowledged: set[str] = set()
    for number in range(100):
        if number % 20 == 10:
            os.kill(pid_of(server), signal.SIGKILL)
        with contextlib.suppress(StoreError):
            await store.record({USER: met(f"i{number}", number)})
            acknowledged.add(f"i{number}")
        if number % 20 == 15:
            await until_reached(store)
    there = {each.item_id for each in (await store.read(USER)).met}
    assert len(acknowledged) >= 50
    assert acknowledged <= there


async def test_everything_expires_and_says_whose_it_is(server: LocalServer, redis: Redis) -> None:
    """Layout, tenant and a hash tag are in the names; a user's keys lie on one node of a cluster."""
    config = RedisConfig(tenant="shop", timeout_seconds=5)
    store = RedisStore(parse_address(server.url), config, Bounds(life_seconds=90))
    cache = RedisVectors(parse_address(server.url), config, places=1, life_seconds=80)
    await store.record({USER: [*met("a"), Event("x", "x", 1, known=False)]})
    await cache.put(bytes(32), b"vector")
    names = {key.decode() async for key in redis.scan_iter()}
    users = {f"allmrec:2:shop:films:{{u}}:{part}" for part in ("log", "known", "unknown", "ids")}
    assert names == users | {"allmrec:2:shop:x:0"}
    for name in users:
        assert 0 < await redis.ttl(name) <= 90
    assert 0 < await redis.ttl("allmrec:2:shop:x:0") <= 80
    elsewhere = RedisStore(parse_address(server.url), RedisConfig(tenant="other", timeout_seconds=5), Bounds())
    assert await elsewhere.read(USER) == NOBODY
    for part in (store, cache, elsewhere):
        await part.close()


async def test_the_cache_has_its_places_and_no_more(server: LocalServer, redis: Redis) -> None:
    cache = RedisVectors(parse_address(server.url), RedisConfig(timeout_seconds=5), places=5, life_seconds=80)
    digests = [bytes([number]) * 32 for number in range(50)]
    for digest in digests:
        await cache.put(digest, digest[:4])
    assert await redis.dbsize() <= 5
    found = {digest: await cache.get(digest) for digest in digests}
    assert all(value in (None, digest[:4]) for digest, value in found.items())
    assert found[digests[-1]] == digests[-1][:4]
    await cache.close()


async def test_users_of_the_first_release_are_refused_and_then_moved(server: LocalServer, redis: Redis) -> None:
    """Order and times are kept; moving twice, or after an interruption, changes nothing."""
    for number in range(25):
        await redis.zadd(f"allmrec:films:live:u{number}", {"b": 1.5, "a": 2.5})
    config, address = RedisConfig(timeout_seconds=5), parse_address(server.url)
    store = RedisStore(address, config, Bounds())
    with pytest.raises(ConfigError, match="allmrec-serve migrate-users"):
        await store.connect()
    await store.close()
    assert await migrate_users(address, config, Bounds()) == 25
    await redis.zadd("allmrec:films:live:u7", {"b": 1.5, "a": 2.5})
    assert await migrate_users(address, config, Bounds()) == 1
    again = RedisStore(address, config, Bounds())
    await again.connect()
    user = await again.read(UserKey("films", "u7"))
    assert [(each.item_id, each.moment) for each in user.met] == [("b", 1_500_000), ("a", 2_500_000)]
    assert [key async for key in redis.scan_iter("*:live:*")] == []
    await again.close()


async def test_events_of_the_future_are_moved_to_now(server: LocalServer, redis: Redis) -> None:
    """In their order, and moved again they are the same; what comes after stands after them."""
    config, address = RedisConfig(timeout_seconds=5), parse_address(server.url)
    store = RedisStore(address, config, Bounds())
    for now in (1000.0, 1001.0):
        await redis.zadd("allmrec:films:live:u", {"a": 32_472_144_001, "b": 32_472_144_000, "c": 999})
        assert await migrate_users(address, config, Bounds(), clock=lambda now=now: now) == 1
        user = await store.read(USER)
        assert [(each.item_id, each.moment // 1_000_000) for each in user.met] == [("c", 999), ("b", 1000), ("a", 1000)]
    await store.record({USER: met("d", 1_002_000_000)})
    assert [each.item_id for each in (await store.read(USER)).met] == ["c", "b", "a", "d"]
    await store.close()


async def test_users_of_the_first_release_are_refused_however_late_they_are_found(
    server: LocalServer, redis: Redis
) -> None:
    """Redis comes up after the service: nothing is written beside them, and once they are moved it is used."""
    await redis.zadd("allmrec:films:live:u", {"b": 1.5})
    address = parse_address(server.url)
    states: list[bool] = []
    store = RedisStore(address, RedisConfig(timeout_seconds=0.04, retry_seconds=0.05), Bounds(), on_state=states.append)
    with hanging(server), pytest.raises(StoreError, match="cannot be reached"):
        await store.connect()
    with capture_logs() as logs:
        async with asyncio.timeout(10):
            while not logs:
                await asyncio.sleep(0.02)
    assert [entry["event"] for entry in logs] == ["redis_does_not_fit"]
    assert "allmrec-serve migrate-users" in logs[0]["remedy"]
    with pytest.raises(StoreError):
        await store.record({USER: met("a", 2_000_000)})
    assert not any(states)
    assert await migrate_users(address, RedisConfig(timeout_seconds=5), Bounds()) == 1
    await until_reached(store)
    await store.record({USER: met("a", 2_000_000)})
    assert [each.item_id for each in (await store.read(USER)).met] == ["b", "a"]
    await store.close()


async def test_users_of_the_first_release_are_not_looked_for_every_time(redis: Redis) -> None:
    """Their mark is; they themselves, which asks for every key, half a minute later."""
    await redis.zadd("allmrec:films:live:u", {"b": 1.5})
    clock = [1000.0]
    fitness = Fitness(False, 5.0, lambda: clock[0])
    for _ in range(10):
        with pytest.raises(ConfigError, match="migrate-users"):
            await fitness.check(redis)
    stats = await redis.info("commandstats")
    assert (stats["cmdstat_exists"]["calls"], stats["cmdstat_scan"]["calls"]) == (10, 1)
    clock[0] += LOOK_SECONDS
    with pytest.raises(ConfigError, match="migrate-users"):
        await fitness.check(redis)
    await redis.delete("allmrec:films:live:u")
    clock[0] += LOOK_SECONDS
    await fitness.check(redis)
    assert (await redis.info("commandstats"))["cmdstat_scan"]["calls"] == 3
    assert await redis.exists("allmrec:layout")


async def test_a_redis_that_comes_up_late_is_marked_and_warned_of(server: LocalServer, redis: Redis) -> None:
    await redis.config_set("appendonly", "no")
    config = RedisConfig(timeout_seconds=0.04, retry_seconds=0.05)
    store = RedisStore(parse_address(server.url), config, Bounds())
    with hanging(server), pytest.raises(StoreError, match="cannot be reached"):
        await store.connect()
    with capture_logs() as logs:
        await until_reached(store)
    assert [entry["event"] for entry in logs if entry["event"] != "redis_up"] == ["redis_forgets_on_restart"]
    assert await redis.exists("allmrec:layout")
    await store.close()


async def test_a_server_that_vanishes_while_it_is_looked_at_is_found_again(server: LocalServer) -> None:
    """Behind a proxy that lets PING through and swallows the question after it."""
    connections = asyncio.TaskGroup()
    vanished: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not vanished and b"EXISTS" in data:
                vanished.append(data)
            else:
                writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(server.url.removeprefix("unix://"))
        connections.create_task(carry(reader, back))
        connections.create_task(carry(there, writer))

    async with connections, await asyncio.start_server(connected, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        config = RedisConfig(timeout_seconds=0.04, retry_seconds=0.05)
        store = RedisStore(parse_address(f"redis://127.0.0.1:{port}"), config, Bounds())
        async with asyncio.timeout(10):
            with contextlib.suppress(StoreError):
                await store.connect()
            await until_reached(store)
        assert vanished
        await store.record({USER: met("a")})
        await store.close()


async def test_users_of_a_tenant_or_a_catalogue_named_live_are_none_of_the_first_release(
    server: LocalServer, redis: Redis
) -> None:
    address, user = parse_address(server.url), UserKey("live", "u:live:v")
    config = RedisConfig(tenant="live", timeout_seconds=5)
    for _ in range(2):
        store = RedisStore(address, config, Bounds())
        await store.connect()
        await store.record({user: met("a"), USER: met("a")})
        await store.close()
        await redis.delete("allmrec:layout")
    assert await migrate_users(address, config, Bounds()) == 0
    store = RedisStore(address, config, Bounds())
    await store.connect()
    assert [len((await store.read(each)).met) for each in (user, USER)] == [1, 1]
    await store.close()


@pytest.mark.parametrize(
    ("setting", "value", "warning"),
    [
        ("maxmemory-policy", "volatile-ttl", "redis_may_evict_events"),
        ("maxmemory-policy", "allkeys-lru", "redis_may_evict_events"),
        ("appendonly", "no", "redis_forgets_on_restart"),
    ],
)
async def test_a_redis_that_can_lose_events_is_warned_of(
    server: LocalServer, redis: Redis, setting: str, value: str, warning: str
) -> None:
    store = RedisStore(parse_address(server.url), RedisConfig(timeout_seconds=5), Bounds())
    with capture_logs() as logs:
        await store.connect()
    assert logs == []
    await store.close()
    await redis.config_set(setting, value)
    store = RedisStore(parse_address(server.url), RedisConfig(timeout_seconds=5), Bounds())
    with capture_logs() as logs:
        await store.connect()
    assert [entry["event"] for entry in logs] == [warning]
    assert logs[0]["remedy"]
    await store.close()


async def test_events_can_wait_for_the_disk(server: LocalServer, redis: Redis) -> None:
    """With a fsync a second, acknowledging waits for the next one. A Redis without a file is refused."""
    await redis.config_set("appendfsync", "everysec")
    config = RedisConfig(timeout_seconds=5, write_timeout_seconds=5, waitaof=True)
    store = RedisStore(parse_address(server.url), config, Bounds())
    await store.connect()
    users = await store.record({USER: met("a"), OTHER: met("b")})
    assert [each.item_id for each in users[OTHER].met] == ["b"]
    await redis.config_set("appendonly", "no")
    with pytest.raises(StoreError, match="WAITAOF"):
        await store.record({USER: met("b")})
    await store.close()
    store = RedisStore(parse_address(server.url), config, Bounds())
    with pytest.raises(ConfigError, match="appendonly"):
        await store.connect()
    await store.close()


async def test_a_cluster_is_not_said_to_wait_for_its_disks(failures: Failures) -> None:
    """Reachable or not: it would acknowledge without."""
    address = parse_address("redis+cluster://127.0.0.1:1")
    store = RedisStore(address, RedisConfig(waitaof=True), Bounds(), failures)
    with pytest.raises(ConfigError, match=r"ALLMREC_REDIS_WAITAOF.*appendfsync always"):
        await store.connect()
    await store.close()


async def test_a_store_that_cannot_be_reached_says_so(failures: Failures) -> None:
    """Nobody listens there."""
    store = RedisStore(parse_address("redis://127.0.0.1:1"), RedisConfig(), Bounds(), failures)
    with pytest.raises(StoreError, match="cannot be reached"):
        await store.connect()
    with pytest.raises(StoreError, match="cannot be reached"):
        await store.record({USER: met("a")})
    assert failures == {"record unreachable": 1}
    await store.close()


async def test_moved_events_of_the_future_happen_at_the_next_write(shared_server: LocalServer) -> None:
    """A version that took such times as they were put them, and all without a time, before what came with one."""
    now = round(time.time() * 1e6)
    later, user = now + 10**15, UserKey("films", "u")
    address, config = parse_address(shared_server.url), RedisConfig(tenant="settled", timeout_seconds=5)
    version = RedisStore(address, config, Bounds(), clock=lambda: 2 * later / 1e6)
    moved = [Event(f"moved:{at}:{item}", item, at) for item, at in (("a", 7), ("b", later), ("c", later + 1))]
    await version.record({user: moved})
    await version.record({user: [Event("1", "d", now - 10, known=False), Event("2", "e", now, timed=False)]})
    await version.close()
    store = RedisStore(address, config, Bounds())
    before = await store.read(user)
    assert [met.item_id for met in before.met] == ["a", "d", "b", "c", "e"]
    change = (await store.record({user: [Event("3", "f", now - 5), Event("4", "g", now, timed=False)]}))[user]
    assert isinstance(change, Change)
    after = await store.read(user)
    assert before.after(change) == after
    assert [met.item_id for met in after.met] == ["a", "d", "f", "b", "c", "e", "g"]
    await store.record({user: [Event("5", "h", round(time.time() * 1e6))]})
    assert (await store.read(user)).met[-1].item_id == "h"
    assert [event.item_id for event in await store.events(user)] == ["a", "b", "c", "d", "e", "f", "g", "h"]
    await store.record({user: moved})
    assert len(await store.events(user)) == 8
    await store.close()
