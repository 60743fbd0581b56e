from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import structlog
import torch

from tests.service.world import FakeEngine, World, fake_engine, make_world, serving


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def logs_can_be_captured() -> Iterator[None]:
    """A logger that was used under a service of another test would be kept, and pass `capture_logs` by."""
    configure = structlog.configure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            structlog, "configure", lambda **given: configure(**{**given, "cache_logger_on_first_use": False})
        )
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
async def client(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one service with the real engine. Tests that change users use users of their own."""
    async with serving(world.settings_for(tmp_path_factory.mktemp("service"))) as (client, _):
        yield client


@pytest.fixture
def engine(world: World) -> FakeEngine:
    return fake_engine(world)


@pytest.fixture
async def faked(world: World, engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service whose LLM is `engine`."""
    async with serving(world.settings_for(tmp_path), engine) as (client, _):
        yield client
