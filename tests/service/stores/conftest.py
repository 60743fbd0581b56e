from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.stores.local import LocalServer


@pytest.fixture(scope="session")
async def shared_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalServer]:
    """A server for tests that keep to a tenant of their own."""
    server = LocalServer(tmp_path_factory.mktemp("shared"))
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalServer]:
    """An empty server, to do with as one likes."""
    server = LocalServer(tmp_path_factory.mktemp("server"))
    await server.start()
    yield server
    await server.close()
