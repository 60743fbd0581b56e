"""What routes are given: the runtime, the use cases, and the deployment that the request keeps until its end.

All are async: FastAPI sends others through a thread.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from service.deployments.deployment import Deployment
from service.runtime import Runtime, Services


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _services(runtime: Annotated[Runtime, Depends(_runtime)]) -> Services:
    return runtime.require()


async def _deployment(services: Annotated[Services, Depends(_services)]) -> Deployment:
    return services.deployments.take()


RuntimeOf = Annotated[Runtime, Depends(_runtime)]
ServicesOf = Annotated[Services, Depends(_services)]
DeploymentOf = Annotated[Deployment, Depends(_deployment)]
