"""What is served, and that a request keeps what it took."""

from __future__ import annotations

from models.bundle.store import load_bundle
from service.deployments.deployment import Deployment
from service.deployments.registry import Deployments
from tests.service.world import FakeEngine, World


def test_a_request_takes_what_is_served(world: World, engine: FakeEngine) -> None:
    deployment = Deployment.build(load_bundle(world.bundle), engine, "control")
    deployments = Deployments(deployment)
    assert deployments.take() is deployment
    assert (deployment.catalogue_name, deployment.variant) == ("tiny", "control")
