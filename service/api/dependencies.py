"""What routes are given: what they answer from.

One dependency, which is async, and has none itself: FastAPI takes time for each, and sends others through a thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.deployments.deployment import Deployment
from service.runtime import Runtime, Services


@dataclass(frozen=True)
class Serving:
    """What a request is answered from.

    Attributes:
        runtime: settings and metrics.
        services: the use cases.
        deployment: kept by the request until its end.
    """

    runtime: Runtime
    services: Services
    deployment: Deployment


async def _serving(request: Request) -> Serving:
    runtime: Runtime = request.app.state.runtime
    services = runtime.require()
    return Serving(runtime, services, services.deployments.take())


ServingOf = Annotated[Serving, Depends(_serving)]
