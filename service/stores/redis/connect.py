"""From an address to a client of redis-py."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from service.stores.patience import answer
from service.stores.redis.address import Address, Kind
from service.stores.redis.cluster import Cluster

CONNECT_SECONDS = 2.0
SPARE = 2
"""Connections beyond those of calls, to each node of a cluster: for signs of life, and one that is being closed. For
calls there are twice as many as may begin there: as many may be on their way from a node whose slots move."""

Client = Redis | Cluster


async def get_to_know(patience: float, *clients: Client) -> None:
    """Have a cluster's nodes known before many calls at once ask for them: clients drop connections in use then.

    Any node will do, so that one that is away concerns nobody else.

    Args:
        patience: seconds that a client may take.
        clients: of one server or of a cluster.

    Raises:
        RedisError: the cluster cannot be reached.
        TimeoutError: it takes longer.
    """
    for client in clients:
        if isinstance(client, Cluster):
            await answer(client.initialize(), patience)


def connect(address: Address, connections: int, patience: float = CONNECT_SECONDS) -> Client:
    """A client for at most `connections` calls at once, to each node of a cluster.

    Nothing here waits for an answer: how long that may take is decided by who asks (see `Channel`), who can tell a late
    server from a late event loop. A broken connection is tried once more, since it may have been idle for too long.
    """
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": address.kind is not Kind.SERVER or not address.url.startswith("unix"),
        "retry": Retry(NoBackoff(), 1),
    }
    if address.kind is Kind.SERVER:
        if address.url.startswith("unix"):
            del options["socket_keepalive"], options["socket_connect_timeout"]
        pool = BlockingConnectionPool.from_url(address.url, max_connections=connections, timeout=None, **options)
        return Redis.from_pool(pool)
    options |= {"username": address.username, "password": address.password, "ssl": address.tls}
    if address.kind is Kind.CLUSTER:
        nodes = [ClusterNode(host, port) for host, port in address.nodes]
        return Cluster(nodes, patience, max_connections=2 * connections + SPARE, **options)
    of_sentinels = {
        "socket_timeout": CONNECT_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        "ssl": address.tls,
    }
    sentinels = Sentinel(list(address.nodes), sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
    master: Redis = sentinels.master_for(address.service, db=address.database, max_connections=connections, **options)
    return master
