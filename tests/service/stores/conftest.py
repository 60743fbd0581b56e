from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.stores.local import LocalServer


@pytest.fixture
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """An empty server."""
    server = LocalServer(tmp_path_factory.mktemp("redis"))
    await server.start()
    yield server.url
    await server.close()
