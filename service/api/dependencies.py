"""What routes are given: the runtime, the use cases, and the deployment that the request keeps until its end.

All are async: FastAPI sends others through a thread. None depends on another: that takes time.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from service.deployments.deployment import Deployment
from service.runtime import Runtime, Services


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _services(request: Request) -> Services:
    return (await _runtime(request)).require()


async def _deployment(request: Request) -> Deployment:
    return (await _services(request)).deployments.take()


RuntimeOf = Annotated[Runtime, Depends(_runtime)]
ServicesOf = Annotated[Services, Depends(_services)]
DeploymentOf = Annotated[Deployment, Depends(_deployment)]
