"""Whether what may not be is noticed: by a service that is made up."""

from __future__ import annotations

import math
from typing import Any, cast

import httpx
import pytest

from models.bundle.store import load_bundle
from tests.service.endurance.expected import Expected, Findings, Kept, appended, compare, in_order
from tests.service.endurance.program import Service
from tests.service.endurance.shopper import Shopper
from tests.service.world import World

pytestmark = pytest.mark.anyio

SCORES = {"a": 0.5, "b": 0.3, "c": 0.2}


class Somewhere:
    port, life = 1, 1


def ranked(*items: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"item_id": item, "score": score, "rank": rank} for rank, (item, score) in enumerate(items, start=1)]


def shopper(world: World, findings: Findings, answers: dict[str, httpx.Response]) -> Shopper:
    """Somebody new, and a service that gives an answer for each path."""
    expected = Expected(load_bundle(world.bundle).model, cast("Any", None), cast("Any", None))
    transport = httpx.MockTransport(lambda request: answers[request.url.path])
    return Shopper("n", cast("Service", Somewhere()), expected, findings, 0, transport=transport)


@pytest.mark.parametrize(
    ("items", "wrong"),
    [
        ([("a", 0.5), ("b", 0.3)], None),
        ([("b", 0.3), ("a", 0.5)], "order"),
        ([("a", 0.5), ("c", 0.2)], "left out"),
        ([("a", 0.5), ("b", 0.29)], "scores"),
        ([("a", 0.5), ("x", 0.3)], "may not be recommended"),
        ([("a", 0.5)], "1 items of 3"),
        ([("a", 0.5), ("a", 0.5)], "ranks"),
    ],
)
def test_a_ranking_is_compared_with_all_that_could_be_in_it(items: list[tuple[str, float]], wrong: str | None) -> None:
    said = compare(ranked(*items), SCORES, 2)
    assert (said is None) if wrong is None else (said is not None and wrong in said)


def test_events_stand_at_their_times_and_those_without_are_the_latest() -> None:
    kept = [Kept("a", math.inf, 1), Kept("b", 20.0, 2), Kept("c", 10.0, 3), Kept("b", 5.0, 4), Kept("c", math.inf, 5)]
    assert in_order(kept) == ("b", "a", "c")
    assert appended(("a", "x", "c"), ("y", "a")) == ("x", "c", "y", "a")


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (httpx.Response(500, json={"title": "Internal error"}), "500"),
        (httpx.Response(503, json={"title": "Overloaded"}), "503"),
        (httpx.Response(503, json={"title": "?"}, headers={"retry-after": "1"}), "503"),
        (httpx.Response(404, json={}), "was acknowledged"),
        (httpx.Response(200, json={"history": []}), "was acknowledged"),
        (httpx.Response(200, json={"history": [{"item_id": "i1"}, {"item_id": "i2"}]}), "was acknowledged"),
    ],
)
async def test_what_is_lost_made_up_or_no_stated_refusal_is_noticed(
    world: World, answer: httpx.Response, wrong: str
) -> None:
    findings = Findings()
    customer = shopper(world, findings, {"/users/n": answer})
    customer.kept = [Kept("i1", math.inf, 1)]
    await customer.look(strict=True)
    assert [wrong in violation.what for violation in findings.violations] == [True]
    await customer.close()


async def test_a_stated_refusal_and_the_truth_are_nothing_to_note(world: World) -> None:
    findings = Findings()
    refusal = httpx.Response(503, json={"title": "User store unavailable"}, headers={"retry-after": "1"})
    for answer in (refusal, httpx.Response(200, json={"history": [{"item_id": "i1"}]})):
        customer = shopper(world, findings, {"/users/n": answer})
        customer.kept = [Kept("i1", math.inf, 1)]
        await customer.look(strict=True)
        await customer.close()
    assert findings.violations == []


async def test_answers_without_what_was_acknowledged_are_counted_by_the_service(world: World) -> None:
    """One failure counted excuses one answer, and no second."""
    findings = Findings()
    metrics = httpx.Response(200, text='allmrec_store_failures_total{operation="read",reason="late"} 1.0')
    nothing = httpx.Response(200, json={"history": []})
    customer = shopper(world, findings, {"/users/u0": nothing, "/users/n": nothing, "/metrics": metrics})
    customer.kept = [Kept("i1", math.inf, 1)]
    await customer.look()
    assert findings.violations == []
    await customer.look()
    assert len(findings.violations) == 1
    await customer.close()
