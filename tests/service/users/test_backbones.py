"""A bundle is served whatever its backbone, and who asks matters where the backbone says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.backbones import BACKBONES
from models.bundle.store import load_bundle
from tests.service.world import FakeEngine, World, make_world, serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", sorted(BACKBONES))
async def test_every_backbone_is_served(kind: str, world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """u0 and a stranger of the same history get the same scores, unless the backbone reads users.

    Asked again, from the cache, neither gets the other's.
    """
    served = make_world(tmp_path / "world", kind, world.llm)
    model = load_bundle(served.bundle).model
    history = model.histories.of("u0")
    alike = {"history": [{"item_id": model.catalogue.item_ids[item]} for item in history]}
    settings = served.settings_for(tmp_path, ranker="blend")
    async with serving(settings, engine) as (client, _):
        answers = [
            (await client.post("/recommend", json=body | {"num_results": 20})).json()["items"]
            for body in ({"user_id": "u0"}, alike, {"user_id": "u0"}, alike | {"user_id": "newcomer"})
        ]
        assert (await client.get("/explain/genre", params={"user_id": "u0"})).status_code == 200
    assert answers[0] == answers[2]
    assert answers[1] == answers[3]
    assert (answers[0] != answers[1]) is model.backbone.reads_users
    assert len(answers[0]) == 20
