"""Routes for operators and browsers: health, metrics and the page."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.problems import problem, responses
from service.api.schemas.operations import Health, Readiness
from service.runtime import Runtime

PAGE = Path(__file__).parent.parent / "web" / "index.html"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

router = APIRouter()


@router.get("/health/live", tags=["health"])
async def get_live() -> Health:
    """The process runs and its event loop turns."""
    return Health(status="live")


@router.get("/health/ready", response_model=Readiness, responses=responses(503), tags=["health"])
async def get_ready(request: Request) -> Readiness | Response:
    """Requests can be answered. While the LLM is down they are, by the blend's ranking: `llm` says so."""
    runtime: Runtime = request.app.state.runtime
    services = runtime.services
    if services is None:
        return problem(request.scope, 503, "Starting", "the bundle and the LLM are still being loaded")
    if runtime.leaving:
        return problem(request.scope, 503, "Leaving", "the service is about to end: send nothing new")
    return Readiness(status="ready", llm="up" if services.engine.healthy else "down")


@router.get("/metrics", include_in_schema=False)
async def get_metrics(request: Request) -> Response:
    """Prometheus metrics."""
    runtime: Runtime = request.app.state.runtime
    return Response(await runtime.metrics.render(), media_type=CONTENT_TYPE_LATEST)


@router.get("/", include_in_schema=False)
async def get_page() -> FileResponse:
    """A page to try the service with."""
    return FileResponse(PAGE, headers=_PAGE_HEADERS)
