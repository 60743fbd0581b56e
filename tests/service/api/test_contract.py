"""The service does what its OpenAPI document says, on requests made up from it: good ones, bad ones and odd ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import unsupported_method

from service.app import create_app
from tests.service.world import World, fake_engine


@pytest.fixture(scope="module")
def address(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service on a socket, so that nothing between client and application is left out."""
    ready = threading.Event()
    engine = fake_engine(world)
    app = create_app(
        world.settings_for(tmp_path_factory.mktemp("contract")),
        engine_factory=lambda _settings, _llm: engine,
        on_ready=lambda _: ready.set(),
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(60)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def schema(address: str) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


# The document cannot say that times in the future are refused.
PAST = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2026, 1, 1))
schemathesis.openapi.format("date-time", PAST.map(lambda moment: f"{moment.isoformat()}Z"))

OPERATIONS = [
    ("POST", "/recommend"),
    ("GET", "/explain/genre"),
    ("POST", "/feedback"),
    ("GET", "/items/{item_id}"),
    ("GET", "/users/{user_id}"),
    ("GET", "/about"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
]


REFUSING = OPERATIONS[:3]  # the others take any text in their path, or nothing
CASES = [
    *((GenerationMode.POSITIVE, *operation) for operation in OPERATIONS),
    *((GenerationMode.NEGATIVE, *operation) for operation in REFUSING),
]


@pytest.mark.parametrize(("mode", "method", "path"), CASES)
def test_answers_fit_their_description(schema: BaseSchema, mode: GenerationMode, method: str, path: str) -> None:
    """Requests that fit the document succeed, others are refused, and every answer has the form it promises."""
    operation = schema[path][method]

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: Case) -> None:
        case.call_and_validate(excluded_checks=[unsupported_method])

    holds()


def test_every_operation_is_tested(schema: BaseSchema) -> None:
    described = {(result.ok().method.upper(), result.ok().path) for result in schema.get_all_operations()}
    assert described == set(OPERATIONS)
