"""What a Redis URL means: one server, a cluster, or a service that sentinels watch.

    redis://[user:password@]host[:port][/db]     rediss:// with TLS     unix://path
    redis+cluster://[user:password@]host[:port][,host[:port]...]
    redis+sentinel://[user:password@]host[:port][,host[:port]...]/service[/db][?sentinel_username=..&sentinel_password=..]

With TLS, the latter two begin with `rediss`: the sentinels, too, are then asked by TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlsplit

from models.errors import ConfigError

SERVER_PORT = 6379
SENTINEL_PORT = 26379


class Kind(StrEnum):
    """How many there are, and who knows where."""

    SERVER = "server"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True)
class Address:
    """A Redis URL, understood.

    Attributes:
        kind: what stands there.
        url: of one server, as redis-py reads it.
        nodes: host and port of cluster nodes or sentinels to ask first.
        service: what sentinels call the server.
        database: its number.
        username: of the server or the cluster.
        password: of the server or the cluster.
        sentinel_username: of the sentinels.
        sentinel_password: of the sentinels, which may have none though the server has one.
        tls: whether to encrypt.
    """

    kind: Kind
    url: str = ""
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: bool = False


def parse_address(url: str) -> Address:
    """Understand a URL.

    Raises:
        ConfigError: it is none of those above. The message does not repeat it, for its password.
    """
    scheme, separator, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix") and separator and rest:
        if scheme != "unix":
            _check_server(url)
        return Address(Kind.SERVER, url=url, tls=scheme == "rediss")
    protocol, _, kind = scheme.partition("+")
    if protocol not in ("redis", "rediss") or kind not in ("cluster", "sentinel"):
        raise ConfigError(
            f"a Redis URL begins with redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://, not {scheme}"
        )
    rest, asked, query = rest.partition("?")
    if asked and kind == "cluster":
        raise ConfigError("a redis+cluster:// URL has no options behind a ?")
    authority, _, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    default = SENTINEL_PORT if kind == "sentinel" else SERVER_PORT
    nodes = tuple(_node(host, default) for host in hosts.split(","))
    service, _, database = path.partition("/")
    if kind == "sentinel" and not service:
        raise ConfigError("a redis+sentinel:// URL ends in the service's name: redis+sentinel://host:26379/mymaster")
    if kind == "cluster" and path.strip("/") not in ("", "0"):
        raise ConfigError("a redis+cluster:// URL has no database: a cluster has only one")
    if database and not database.isdecimal():
        raise ConfigError("the database in a redis+sentinel:// URL is a number: redis+sentinel://host/service/0")
    return Address(
        Kind(kind),
        nodes=nodes,
        service=service if kind == "sentinel" else "",
        database=int(database or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        **_of_sentinels(query),
        tls=protocol == "rediss",
    )


def _check_server(url: str) -> None:
    """What redis-py would take for something else than was meant.

    Raises:
        ConfigError: the database is no number, or a character of the password ends it.
    """
    parts = urlsplit(url)
    if parts.fragment or "@" in parts.path + parts.query + parts.fragment:
        raise ConfigError("special characters of a Redis URL's password are written as %XX, such as %2F for a slash")
    if (database := unquote(parts.path).strip("/")) and not database.isdecimal():
        raise ConfigError("the database in a redis:// URL is a number: redis://host:6379/0")


def _of_sentinels(query: str) -> dict[str, str]:
    """The sentinels' own name and password.

    Raises:
        ConfigError: there is another option.
    """
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := options.keys() - {"sentinel_username", "sentinel_password"}:
        raise ConfigError(
            f"a redis+sentinel:// URL has the options sentinel_username and sentinel_password, not {min(unknown)}"
        )
    return {name: value for name, value in options.items() if value}


def _node(text: str, default: int) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if not host or (port and not port.isdecimal()):
        raise ConfigError("a Redis URL names hosts as host or host:port, with commas between them")
    return host, int(port or default)
