"""Redis URLs are read before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import ConfigError
from service.preflight import check_device, check_urls
from service.settings import Settings

GOOD = (
    "memory://",
    "redis://host",
    "redis://me:p%40ss@[::1]:7000/3?health_check_interval=5&protocol=3",
    "rediss://:secret@host?ssl_cert_reqs=none",
    "unix:///run/redis.sock?db=2",
    "redis+cluster://a,b:7000",
    "rediss+sentinel://s1,s2:26379/mymaster/2",
    "redis+sentinel://:p%40ss@s1/mymaster?sentinel_username=me&sentinel_password=p%26w",
)
BAD = (
    "http://host",
    "redis://:secret@h:abc",
    "redis://:secret@h:99999",
    "redis://[::1",
    "redis://:sec/ret@host",
    "redis://:secret@h?foo=1",
    "redis://:secret@h?socket_timeout=long",
    "redis://:secret@h?protocol=4",
    "redis+cluster://:secret@a:99999",
    "redis+cluster://:secret@a?foo=1",
    "redis+sentinel://:secret@a/mymaster?foo=1",
    "redis+sentinel://:sec?ret@a/mymaster",
    "redis://:secret@h/users",
    "redis://:secret@h/0x1",
    "redis://:secret@h/-1",
    "redis://:p@sec/ret@h",
    "redis://:1sec?ret@h",
    "redis://:1sec#ret@h",
)


def settings(**urls: str) -> Settings:
    return Settings(_env_file=None, **urls)  # type: ignore[call-arg, arg-type]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("url", GOOD)
def test_urls_that_can_be_read_are_let_pass(url: str) -> None:
    check_urls(settings(redis_url=url, cache_url=url))
    check_urls(settings())


@pytest.mark.parametrize("url", BAD)
@pytest.mark.parametrize("name", ["redis_url", "cache_url"])
def test_another_is_refused_by_its_setting_and_not_repeated(name: str, url: str) -> None:
    with pytest.raises(ConfigError, match=f"^wrong settings: ALLMREC_{name.upper()}: ") as refused:
        check_urls(settings(**{name: url}))
    assert "sec" not in str(refused.value)


@pytest.mark.parametrize("device", ["cudda", "cuda:99", "mps:7"])
def test_a_device_that_is_not_there_is_refused_by_its_setting(device: str) -> None:
    """In a line, before the bundle is read, which is not to blame."""
    check_device(settings())
    with pytest.raises(
        ConfigError, match=f"^wrong settings: ALLMREC_DEVICE: device '{device}' cannot be used: .* GPUs"
    ):
        check_device(settings(device=device))
