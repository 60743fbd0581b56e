"""The service does what its OpenAPI document says, on requests made up from it: good ones, bad ones and odd ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from schemathesis.schemas import BaseSchema

from service.app import create_app
from tests.service.api.fuzzing import CASES, OPERATIONS, fuzz
from tests.service.api.hosting import on_a_socket
from tests.service.world import World, fake_engine

EXAMPLES = 25


@pytest.fixture(scope="module")
def address(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service on a socket, so that nothing between client and application is left out."""
    settings = world.settings_for(tmp_path_factory.mktemp("contract"))
    with on_a_socket(settings, fake_engine(world)) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def schema(address: str) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.fixture(scope="module")
def document(address: str) -> dict[str, Any]:
    return httpx.get(f"{address}/openapi.json").json()


@pytest.mark.parametrize("key", [None, "s3cret"])
def test_the_document_is_valid(world: World, tmp_path_factory: pytest.TempPathFactory, key: str | None) -> None:
    document = create_app(world.settings_for(tmp_path_factory.mktemp("valid"), api_key=key)).openapi()
    validate(document)
    assert {"Problem", "FieldProblem"} <= set(document["components"]["schemas"])
    assert ("security" in document) is (key is not None)


@pytest.mark.parametrize(("mode", "method", "path"), CASES)
def test_answers_fit_their_description(schema: BaseSchema, mode: Any, method: str, path: str) -> None:
    """Requests that fit the document succeed, others are refused, and every answer has the form it promises."""
    checked = fuzz(schema, mode, method, path, EXAMPLES)
    assert checked > 0


def test_every_operation_is_tested(schema: BaseSchema) -> None:
    """One that the document describes in a way that cannot be read would be skipped silently: `ok` raises."""
    described = {(result.ok().method.upper(), result.ok().path) for result in schema.get_all_operations()}
    assert described == set(OPERATIONS)


def test_every_answer_that_is_described_can_be_checked(document: dict[str, Any]) -> None:
    """All references lead somewhere, and every answer with content has a schema."""
    references = [part.split('"')[0] for part in json.dumps(document).split('"$ref": "#/')[1:]]
    assert references
    for reference in references:
        found: Any = document
        for key in reference.split("/"):
            found = found[key]
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                assert all(content["schema"] for content in answer.get("content", {}).values())


def test_what_any_request_may_be_answered_by_is_described(document: dict[str, Any]) -> None:
    """Slow, large, packed or broken ones are refused before it is looked at what they ask for."""
    for path, operations in document["paths"].items():
        keyed = () if path.startswith("/health/") else (401, 429, 503)
        for operation in operations.values():
            assert {str(status) for status in (400, 408, 413, 415, 431, *keyed)} <= set(operation["responses"])


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_is_packed_otherwise_is_refused_as_described(
    address: str, document: dict[str, Any], method: str, path: str
) -> None:
    answer = httpx.request(method, f"{address}{path}", headers={"content-encoding": "br"}, content=b"x")
    assert str(answer.status_code) in document["paths"][path][method.lower()]["responses"]
    assert answer.status_code == 415


def test_examples_are_accepted(address: str, document: dict[str, Any]) -> None:
    for path, model in {"/recommend": "RecommendRequest", "/feedback": "FeedbackRequest"}.items():
        examples = document["components"]["schemas"][model]["examples"]
        assert examples
        for example in examples:
            assert httpx.post(f"{address}{path}", json=example).is_success


@pytest.mark.parametrize("model", ["GenreResponse", "ItemResponse"])
def test_examples_of_answers_are_what_they_show(document: dict[str, Any], model: str) -> None:
    schema = document["components"]["schemas"][model]
    assert schema["examples"]
    for example in schema["examples"]:
        Draft202012Validator({**schema, "components": document["components"]}).validate(example)


@pytest.mark.parametrize(("path", "first", "query"), [("genre", "genres", {}), ("item", "item", {"item_id": "i7"})])
def test_events_fit_their_schemas(
    address: str, document: dict[str, Any], path: str, first: str, query: dict[str, str]
) -> None:
    """Each kind of event is what the document says, and comes in the order that it says."""
    described = document["paths"][f"/explain/{path}"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    answer = httpx.get(f"{address}/explain/{path}", params={"user_id": "u0", "stream": "true", **query})
    assert answer.headers["content-type"].startswith("text/event-stream")
    Draft202012Validator(described["schema"]).validate(answer.text)
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block]
    names = [name.removeprefix("event: ") for name, _ in blocks]
    assert names == [first, *["token"] * (len(names) - 2), "done"]
    for name, (_, data) in zip(names, blocks, strict=True):
        reference = {**described["schema"]["x-events"][name], "components": document["components"]}
        Draft202012Validator(reference).validate(json.loads(data.removeprefix("data: ")))
