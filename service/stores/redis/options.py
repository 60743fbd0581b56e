"""What redis-py says of a URL's options before anything is connected."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError

from service.stores.redis.address import Address
from service.stores.redis.connect import connect


def check_options(address: Address) -> None:
    """Make the connection that knows them, and do not connect it.

    Raises:
        TypeError: one does not exist.
        ValueError: one has a value that cannot be.
    """
    client: Any = connect(address, 1)
    try:
        client.connection_pool.make_connection()
    except RedisError as error:
        raise ValueError(str(error)) from error
