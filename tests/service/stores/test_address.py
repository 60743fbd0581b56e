"""What Redis URLs mean."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, SentinelConnectionPool
from redis.exceptions import RedisError

from models.errors import ConfigError
from service.stores.redis.address import Address, Kind, parse_address
from service.stores.redis.connect import connect


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host:6379/1", Address(Kind.SERVER, url="redis://host:6379/1")),
        ("rediss://:secret@host", Address(Kind.SERVER, url="rediss://:secret@host", tls=True)),
        ("unix:///run/redis.sock", Address(Kind.SERVER, url="unix:///run/redis.sock")),
        ("redis+cluster://a,b:7000", Address(Kind.CLUSTER, nodes=(("a", 6379), ("b", 7000)))),
        (
            "rediss+cluster://me:p%40ss@[::1]:7000/0",
            Address(Kind.CLUSTER, nodes=(("::1", 7000),), username="me", password="p@ss", tls=True),
        ),
        (
            "redis+sentinel://:pw@s1:26379,s2,s3:1/mymaster/2",
            Address(
                Kind.SENTINEL,
                nodes=(("s1", 26379), ("s2", 26379), ("s3", 1)),
                service="mymaster",
                database=2,
                password="pw",
            ),
        ),
        (
            "rediss+sentinel://me:pw@s1/mymaster?sentinel_password=p%26w&sentinel_username=watch",
            Address(
                Kind.SENTINEL,
                nodes=(("s1", 26379),),
                service="mymaster",
                username="me",
                password="pw",
                sentinel_username="watch",
                sentinel_password="p&w",
                tls=True,
            ),
        ),
    ],
)
def test_a_url_is_understood(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:secret@host", "not http"),
        ("host:6379", "begins with"),
        ("redis+sentinel://:secret@host", "service's name"),
        ("redis+cluster://:secret@host/1", "no database"),
        ("redis+sentinel://host/name/x", "is a number"),
        ("redis+cluster://:secret@host:port", "host:port"),
        ("redis+ring://host", "begins with"),
    ],
)
def test_another_is_refused_and_not_repeated(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)


@pytest.mark.anyio
async def test_every_kind_has_its_client() -> None:
    server = connect(parse_address("redis://host"), 7)
    assert isinstance(server, Redis)
    assert isinstance(server.connection_pool, BlockingConnectionPool)
    assert server.connection_pool.max_connections == 7
    assert isinstance(connect(parse_address("redis+cluster://host"), 7), RedisCluster)
    master = connect(parse_address("redis+sentinel://:pw@host/mymaster/3"), 7)
    assert isinstance(master, Redis)
    assert isinstance(master.connection_pool, SentinelConnectionPool)
    assert master.connection_pool.service_name == "mymaster"
    assert master.connection_pool.connection_kwargs["db"] == 3
    assert master.connection_pool.connection_kwargs["password"] == "pw"
    secret = connect(parse_address("rediss+sentinel://host/mymaster"), 7)
    assert isinstance(secret, Redis)
    assert "SSL" in secret.connection_pool.connection_class.__name__


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_sentinels_are_asked_as_the_server_is(scheme: str) -> None:
    """By TLS or not, and with their own password, not the server's."""
    heard = list[bytes]()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(200))
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as sentinel:
        host, port = sentinel.sockets[0].getsockname()[:2]
        url = f"{scheme}+sentinel://:theirs@{host}:{port}/mymaster?sentinel_password=ours"
        client = connect(parse_address(url), 1)
        with pytest.raises(RedisError):
            await client.ping()
        await client.aclose()
    assert heard[0].startswith(b"\x16\x03" if scheme == "rediss" else b"*")
    assert (b"ours" in heard[0]) == (scheme == "redis")
    assert b"theirs" not in heard[0]
