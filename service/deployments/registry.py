"""What is served. A request takes a deployment once and keeps it until its end, whatever is served by then."""

from __future__ import annotations

from service.deployments.deployment import Deployment


class Deployments:
    """Holds the deployment that new requests take.

    Args:
        deployment: served from the start.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._current = deployment

    def take(self) -> Deployment:
        """The deployment that a request beginning now is answered from."""
        return self._current
