"""A bundle is served whatever its backbone, and who asks matters where the backbone says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbones import BACKBONES
from models.backbones.gru4rec import GRU4Rec
from models.bundle.store import load_bundle
from models.rankers.of_model import SECOND
from models.recommending.person import persons
from models.recommending.retrieve import Pool
from models.recommending.shortlist import ListRanker
from service.stores.local import LocalServer
from service.users.representations import representation_key
from tests.service.world import FakeEngine, World, make_world, serving
from tests.tiny import tiny_blends

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


async def test_what_a_second_backbone_makes_of_a_user_is_kept_with_the_first(
    world: World, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads a history once; in Redis its numbers stand behind x_u, and are used from there."""
    served = make_world(tmp_path / "world", llm_path=world.llm, second="gru4rec")
    reads = []
    represent = GRU4Rec.represent
    monkeypatch.setattr(GRU4Rec, "represent", lambda *given: reads.append(given) or represent(*given))
    server = LocalServer(tmp_path / "given")
    await server.start()
    settings = served.settings_for(tmp_path, ranker="blend", redis_url=server.url)
    answers, seen = [], []
    for _ in range(2):
        async with serving(settings, engine) as (client, app):
            reads.clear()
            for _ in range(2):
                answers.append((await client.post("/recommend", json={"user_id": "u0"})).json()["items"])
            seen.append(len(reads))
            services = app.state.runtime.services
            model = load_bundle(served.bundle).model
            history = model.histories.of("u0")
            value = await services.cache.get(representation_key(history, services.deployments.take().version))
    await server.close()
    assert seen == [1, 0]
    assert all(answer == answers[0] for answer in answers)
    (person,) = persons(model, [history])
    np.testing.assert_allclose(np.frombuffer(value, "<f4"), torch.cat([person.vector, person.second]), atol=1e-6)
    best = ListRanker(model, tiny_blends(local=("cf", "words_best", SECOND))).find(
        Pool(None, None, set(history.tolist()), 100), person
    )
    assert [item["item_id"] for item in answers[0]] == [model.catalogue.item_ids[item] for item in best[:10]]
