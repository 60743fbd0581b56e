from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

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


def pids_of(server: LocalServer) -> set[int]:
    """The processes that listen on its socket: none while it starts, and two where one ends as the next starts."""
    socket = server.url.removeprefix("unix://").encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if b"valkey-server" in line.split(b"\0")[0] and socket in line:
                found.add(int(entry.name))
    return found


def pid_of(server: LocalServer) -> int:
    """The process that listens on the socket of one that runs."""
    pids = pids_of(server)
    assert pids, "it does not run"
    return min(pids)
