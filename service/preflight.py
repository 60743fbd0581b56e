"""What can be known to be wrong before anything is loaded."""

from __future__ import annotations

from models.devices import check_devices
from models.errors import ConfigError
from service.settings import Settings
from service.stores.create import IN_MEMORY
from service.stores.redis.address import Kind, parse_address
from service.stores.redis.options import check_options

MOST_PORT = 65_535


def check_device(settings: Settings) -> None:
    """Try the device.

    Raises:
        ConfigError: torch cannot run on it.
    """
    try:
        check_devices([settings.device], for_another=settings.engine_process)
    except ConfigError as error:
        raise ConfigError(f"wrong settings: ALLMREC_DEVICE: {error}") from error


def check_urls(settings: Settings) -> None:
    """Read the Redis URLs as the stores will. Nothing is connected.

    Raises:
        ConfigError: one cannot be read, or has an option that Redis's client does not know. The message names the
            setting and does not repeat the URL, for its password.
    """
    given = {"ALLMREC_REDIS_URL": settings.redis_url, "ALLMREC_CACHE_URL": settings.cache_url}
    for name, url in given.items():
        if url is not None and url.get_secret_value() != IN_MEMORY:
            try:
                _read(url.get_secret_value())
            except ConfigError as error:
                raise ConfigError(f"wrong settings: {name}: {error}") from None
            except (TypeError, ValueError):  # their messages quote what may be the password
                raise ConfigError(
                    f"wrong settings: {name}: it cannot be read. A Redis URL is redis://[user:password@]host[:port][/db],"
                    " an IPv6 address in brackets, special characters of a password as %XX, and behind a ? only options"
                    " that redis-py knows"
                ) from None


def _read(url: str) -> None:
    address = parse_address(url)
    if address.kind is Kind.SERVER:
        check_options(address)
        return
    if any(not 0 < port <= MOST_PORT for _, port in address.nodes):
        raise ConfigError(f"ports are from 1 to {MOST_PORT}")
    if any("#" in host for host, _ in address.nodes):
        raise ConfigError("special characters of a Redis URL's password are written as %XX, such as %23 for #")
