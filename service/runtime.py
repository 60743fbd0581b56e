"""What the HTTP adapter talks to."""

from __future__ import annotations

from dataclasses import dataclass

from models.engines.base import LLMEngine
from models.errors import ServerError
from service.deployments.registry import Deployments
from service.metrics import Metrics
from service.settings import Settings
from service.stores.port import UserStore, VectorCache
from service.usecases.explain import Explainer
from service.usecases.recommend import Recommender
from service.users.histories import Histories


class NotReadyError(ServerError):
    """The service is still starting. Raised for every request that needs a bundle."""


@dataclass(frozen=True)
class Services:
    """The use cases and what they answer from."""

    deployments: Deployments
    engine: LLMEngine
    store: UserStore
    cache: VectorCache
    histories: Histories
    recommender: Recommender
    explainer: Explainer


class Runtime:
    """The life of the service: starting until `services` are there.

    Attributes:
        settings: as started.
        metrics: of this service.
        services: None while starting.
        leaving: the service is about to end: still answering, but no longer ready.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.services: Services | None = None
        self.leaving = False

    def require(self) -> Services:
        """The use cases.

        Raises:
            NotReadyError: the service is still starting.
        """
        if self.services is None:
            raise NotReadyError("the bundle and the LLM are still being loaded: try again in a few seconds")
        return self.services
