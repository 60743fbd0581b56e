"""A cluster and a service under sentinels: real ones, of servers on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tomllib
from collections.abc import AsyncIterator, Awaitable, Iterable
from pathlib import Path
from typing import TypeVar

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from service.stores.local import find_server
from service.stores.port import NOBODY, Bounds, Change, Event, LiveUser, StoreError, UserKey
from service.stores.redis.address import parse_address
from service.stores.redis.cluster import LEARN_SECONDS
from service.stores.redis.users import RedisConfig, RedisStore
from service.stores.redis.vectors import RedisVectors

pytestmark = pytest.mark.anyio

Result = TypeVar("Result")

CONFIG = RedisConfig(timeout_seconds=5, write_timeout_seconds=10, retry_seconds=0.1)
IMPATIENT = CONFIG.model_copy(update={"timeout_seconds": 0.2, "write_timeout_seconds": 1.0, "connections": 40})
SLOTS = (range(5461), range(5461, 10923), range(10923, 16384))
CONNECTIONS = "total_connections_received"
USERS = [UserKey("films", f"u{number}") for number in range(50)]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextlib.asynccontextmanager
async def running(directory: Path, port: int, *options: str) -> AsyncIterator[Redis]:
    """A server on a port, and a client of it."""
    directory.mkdir()
    common = ("--port", str(port), "--bind", "127.0.0.1", "--logfile", str(directory / "log"), "--save", "")
    process = await asyncio.create_subprocess_exec(find_server(), *options, *common, cwd=directory)
    client = Redis(port=port)
    try:
        await until_up(client)
        yield client
    finally:
        await client.aclose()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until_up(client: Redis) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(RedisConnectionError):
                await client.ping()
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[Redis]]:
    """Three nodes with a third of the slots each."""
    ports = free_ports(6)
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for number in range(3):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(ports[3 + number]))
            nodes.append(await stack.enter_async_context(running(tmp_path / str(number), ports[number], *options)))
        for number, slots in enumerate(SLOTS):
            await nodes[number].execute_command("CLUSTER", "ADDSLOTSRANGE", slots.start, slots.stop - 1)
        for number in (1, 2):
            await nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", ports[number], ports[3 + number])
        for node in nodes:
            async with asyncio.timeout(20):
                while b"cluster_state:ok" not in await node.execute_command("CLUSTER", "INFO"):
                    await asyncio.sleep(0.05)
        yield nodes


def test_no_other_redis_py_is_allowed_than_was_tried() -> None:
    """The client of a cluster goes by how that works inside."""
    root = Path(__file__).parents[3]
    said = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["serve"]
    pins = dict(
        line.split("==") for line in (root / "requirements" / "constraints.txt").read_text().split() if "==" in line
    )
    major, minor, _ = map(int, pins["redis"].split("."))
    assert f"redis>={major}.{minor},<{major + 1}" in said


async def test_users_lie_anywhere_in_a_cluster_each_on_one_node(cluster: list[Redis]) -> None:
    port = cluster[0].connection_pool.connection_kwargs["port"]
    address = parse_address(f"redis+cluster://127.0.0.1:{port}")
    store = RedisStore(address, CONFIG, Bounds())
    cache = RedisVectors(address, CONFIG, places=100, life_seconds=60)
    with capture_logs() as logs:
        await store.connect()
    assert [entry["event"] for entry in logs] == ["redis_forgets_on_restart"]
    await cache.connect()
    events = {user: [Event("1", "a", 1), Event("2", "x", 2, known=False)] for user in USERS}
    changes = await store.record(events)
    assert {change.arrivals for change in changes.values()} == {2}
    again = await store.record(events)
    assert {change.stored for change in again.values()} == {()}
    for state in await asyncio.gather(*(store.read(user) for user in USERS)):
        assert [met.item_id for met in state.met] == ["a", "x"]
    for user in USERS:
        assert len(await store.events(user)) == 2
    assert all([await node.dbsize() for node in cluster])
    for number in range(20):
        digest = bytes([number * 13]) * 32
        await cache.put(digest, b"x")
        assert await cache.get(digest) == b"x"
    await cluster[1].script_flush()
    assert await store.record(events) == again
    await store.close()
    await cache.close()


async def test_slots_that_move_are_learnt_from_who_says_so(cluster: list[Redis]) -> None:
    """However many move, nobody's connections are closed and no node is asked for all of them again."""
    store = RedisStore(parse_address(url_of(cluster)), CONFIG, Bounds())
    await store.connect()
    for user in USERS:
        assert await store.read(user) == NOBODY
    counted = ("commandstats", "cmdstat_cluster|slots"), ("stats", CONNECTIONS)
    learnt, connections = [await count(cluster, *what) for what in counted]
    heir = await cluster[2].execute_command("CLUSTER", "MYID")
    moved = [slot for slot in {key_slot(user.user_id.encode()) for user in USERS} if slot in SLOTS[0]]
    for slot in moved:
        for node in (cluster[2], cluster[0], cluster[1]):
            await node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", heir)
    assert len(moved) > 10
    for user in USERS:
        assert await store.read(user) == NOBODY
    assert await count(cluster, *counted[0]) == learnt
    assert await count(cluster, *counted[1]) <= connections + 1
    await store.close()


async def test_one_node_is_looked_at_and_keeps_its_connections(cluster: list[Redis]) -> None:
    """Again and again: that any is there is enough, and none is asked in vain."""
    looks: list[bool] = []
    store = RedisStore(parse_address(url_of(cluster)), CONFIG, Bounds(), on_state=looks.append)
    await store.connect()
    while len(looks) < 3:
        await asyncio.sleep(0.05)
    looked = len(looks)
    pings, connections = (
        await count(cluster, "commandstats", "cmdstat_ping"),
        await count(cluster, "stats", CONNECTIONS),
    )
    while len(looks) < looked + 5:
        await asyncio.sleep(0.05)
    pings = await count(cluster, "commandstats", "cmdstat_ping") - pings
    assert all(looks)
    assert 4 <= pings <= len(looks) - looked + 1
    assert await count(cluster, "stats", CONNECTIONS) == connections
    await store.close()


@pytest.mark.parametrize(("number", "said"), [(1, ["redis_layout_not_marked"]), (2, [])])
async def test_a_node_that_is_away_concerns_the_users_on_it(cluster: list[Redis], number: int, said: list[str]) -> None:
    """For a replica that starts and has never read; on the first of the two the layout is marked."""
    address = parse_address(f"redis+cluster://127.0.0.1:{port_of(cluster[0])}")
    await send(cluster[number], signal.SIGKILL)
    store = RedisStore(address, CONFIG, Bounds())
    with capture_logs() as logs:
        await store.connect()
    expected = [*said, "redis_node_not_checked", "redis_forgets_on_restart"]
    assert [entry["event"] for entry in logs] == expected
    for user in USERS:
        if key_slot(user.user_id.encode()) in SLOTS[number]:
            with pytest.raises(StoreError, match="cannot be reached"):
                await store.read(user)
        else:
            assert await store.read(user) == NOBODY
    await store.close()


def url_of(cluster: list[Redis]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{port_of(node)}" for node in cluster)


def port_of(node: Redis) -> int:
    port: int = node.connection_pool.connection_kwargs["port"]
    return port


async def send(node: Redis, what: signal.Signals) -> None:
    os.kill((await node.info("server"))["process_id"], what)


async def check_who_is_served(store: RedisStore, away: range) -> None:
    """All but the users of these slots, however many ask at once and whoever asked before."""
    for _ in range(3):
        answers = await asyncio.gather(*(store.read(user) for user in USERS), return_exceptions=True)
        served = [isinstance(said, LiveUser) and len(said.met) == 1 for said in answers]
        assert served == [key_slot(user.user_id.encode()) not in away for user in USERS]


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_the_node_of_the_first_slots_the_others_serve(cluster: list[Redis], stop: signal.Signals) -> None:
    """Which redis-py asks for all: dead or frozen, after a replica started and before."""
    address, away = parse_address(url_of(cluster)), SLOTS[0]
    there = {user: [Event("1", "a", 1)] for user in USERS if key_slot(user.user_id.encode()) not in away}
    with_users = RedisStore(address, IMPATIENT, Bounds())
    await with_users.connect()
    await with_users.record({user: [Event("1", "a", 1)] for user in USERS})
    await send(cluster[0], stop)
    await check_who_is_served(with_users, away)
    await with_users.close()
    store, cache = RedisStore(address, IMPATIENT, Bounds()), RedisVectors(address, IMPATIENT, 100, 60)
    await store.connect()
    await cache.connect()
    await check_who_is_served(store, away)
    again = await store.record(there)
    assert {change.stored for change in again.values() if isinstance(change, Change)} == {()}
    found = []
    for place in range(20):
        with contextlib.suppress(StoreError):
            await cache.put(bytes([place * 13]) * 32, b"x")
            found.append(await cache.get(bytes([place * 13]) * 32))
    assert 0 < len(found) < 20
    await store.close()
    await cache.close()


async def at_a_rate(rate: float, calls: Iterable[Awaitable[Result]]) -> list[Result | BaseException]:
    """The answers to calls that begin so many a second, however late those before are."""
    loop, tasks = asyncio.get_running_loop(), []
    started = loop.time()
    for number, call in enumerate(calls):
        await asyncio.sleep(max(0.0, started + number / rate - loop.time()))
        tasks.append(asyncio.ensure_future(call))
    return await asyncio.gather(*tasks, return_exceptions=True)


async def count(nodes: list[Redis], section: str, name: str) -> int:
    """What servers have counted of something, all together."""
    total = 0
    for node in nodes:
        value = (await node.info(section)).get(name, 0)
        total += value["calls"] if isinstance(value, dict) else value
    return total


async def test_at_a_steady_rate_a_dead_node_makes_nobody_else_late(cluster: list[Redis]) -> None:
    """Each call to it fails, and for all of these together the slots are learnt anew once a second."""
    store = RedisStore(parse_address(url_of(cluster)), IMPATIENT, Bounds())
    await store.connect()
    await store.record({user: [Event("1", "a", 1)] for user in USERS})
    await send(cluster[0], signal.SIGKILL)
    asked, loop = 8 * USERS, asyncio.get_running_loop()
    learnt, started = await count(cluster[1:], "commandstats", "cmdstat_cluster|slots"), loop.time()
    answers = await at_a_rate(150, (store.read(user) for user in asked))
    for user, said in zip(asked, answers, strict=True):
        gone = key_slot(user.user_id.encode()) in SLOTS[0]
        assert isinstance(said, StoreError if gone else LiveUser)
    seconds = loop.time() - started
    clients = 3
    learnt = await count(cluster[1:], "commandstats", "cmdstat_cluster|slots") - learnt
    assert 0 < learnt <= clients * (seconds / LEARN_SECONDS + 1)
    await store.close()


async def test_a_frozen_node_takes_its_own_places_alone(cluster: list[Redis]) -> None:
    """Of a batch all are kept whose nodes answer, and so are events at a rate at which its places are long gone."""
    few = IMPATIENT.model_copy(update={"write_timeout_seconds": 0.5, "connections": 10})
    store, gone = RedisStore(parse_address(url_of(cluster)), few, Bounds()), SLOTS[0]
    await store.connect()
    await send(cluster[0], signal.SIGSTOP)
    batch = {user: [Event("1", "a", 1)] for user in USERS[:20]}
    for user, change in (await store.record(batch)).items():
        assert isinstance(change, StoreError if key_slot(user.user_id.encode()) in gone else Change)
    asked = 4 * USERS
    answers = await at_a_rate(100, (store.record({user: [Event("2", "b", 2)]}) for user in asked))
    for user, said in zip(asked, answers, strict=True):
        assert isinstance(said, StoreError if key_slot(user.user_id.encode()) in gone else dict)
    await store.close()


async def test_sentinels_know_where_the_service_is_and_where_it_went(tmp_path: Path) -> None:
    """Told by a sentinel to, the replica takes over; what was written is there, and writing goes on."""
    first, second, watcher = free_ports(3)
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"sentinel monitor mymaster 127.0.0.1 {first} 1\nsentinel down-after-milliseconds mymaster 500\n"
        "sentinel failover-timeout mymaster 2000\n"
    )
    async with (
        running(tmp_path / "first", first, "--repl-diskless-sync-delay", "0") as master,
        running(tmp_path / "second", second, "--replicaof", f"127.0.0.1 {first}") as replica,
        running(tmp_path / "sentinel", watcher, str(conf), "--sentinel") as sentinel,
    ):
        async with asyncio.timeout(20):
            while (await replica.info("replication"))["master_link_status"] != "up":
                await asyncio.sleep(0.05)
            while not await sentinel.execute_command("SENTINEL", "REPLICAS", "mymaster"):
                await asyncio.sleep(0.05)
        store = RedisStore(parse_address(f"redis+sentinel://127.0.0.1:{watcher}/mymaster"), CONFIG, Bounds())
        await store.connect()
        await store.record({USERS[0]: [Event("1", "a", 1)]})
        assert await master.dbsize() > 0
        async with asyncio.timeout(40):
            while True:
                with contextlib.suppress(Exception):
                    await sentinel.execute_command("SENTINEL", "FAILOVER", "mymaster")
                    break
                await asyncio.sleep(0.2)
            while (await replica.info("replication"))["role"] != "master":
                await asyncio.sleep(0.1)
            while True:
                with contextlib.suppress(StoreError):
                    await store.record({USERS[0]: [Event("2", "b", 2)]})
                    if await replica.hlen("allmrec:2:default:films:{u0}:known") == 2:
                        break
                await asyncio.sleep(0.1)
        assert [met.item_id for met in (await store.read(USERS[0])).met] == ["a", "b"]
        await store.close()
