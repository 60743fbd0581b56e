"""The one mapping from errors to HTTP: problem+json (RFC 9457), never a stack trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from models.errors import AllmrecError
from service.api.schemas import FieldProblem, Problem

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1


def problem(
    scope: Mapping[str, Any],
    status: int,
    title: str,
    detail: str,
    errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error response to the request of `scope`."""
    content = Problem(
        title=title,
        status=status,
        detail=detail,
        instance=scope.get("path", ""),
        request_id=scope.get("state", {}).get("request_id", ""),
        errors=errors or [],
    )
    extra = dict(headers or {})
    if status in (429, 503):
        extra.setdefault("Retry-After", str(RETRY_SECONDS))
    if status == HTTPStatus.UNAUTHORIZED:
        extra.setdefault("WWW-Authenticate", "Bearer")
    return Response(json.dumps(content.model_dump()), status, extra, media_type=MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the errors with these statuses."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: schema}} for status in statuses}


def install(app: FastAPI) -> None:
    """Answer every error of `app` by a problem."""

    @app.exception_handler(AllmrecError)
    async def _own(request: Request, error: AllmrecError) -> Response:
        return problem(request.scope, error.status, error.title, str(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [_field_problem(entry) for entry in error.errors()]
        detail = "; ".join(f"{entry.field}: {entry.message}" for entry in errors[:3])
        return problem(request.scope, 422, "Invalid request", detail, errors)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.BAD_REQUEST:
            return problem(request.scope, 422, "Invalid request", "body: it cannot be read as JSON")
        title = getattr(error, "title", HTTPStatus(error.status_code).phrase)
        detail = error.detail if error.detail != title else f"{request.method} {request.url.path}: {title}"
        return problem(request.scope, error.status_code, title, detail, headers=error.headers)


def _field_problem(entry: Mapping[str, Any]) -> FieldProblem:
    location = [str(part) for part in entry["loc"]]
    if entry["type"] == "json_invalid":
        where = f"body, character {location[-1]}"
        return FieldProblem(field=where, message=f"broken JSON: {entry['ctx']['error']}")
    message = str(entry["msg"])
    if location == ["body"] and entry["type"] in ("model_attributes_type", "missing"):
        message = "a JSON object is needed, sent as Content-Type: application/json"
    return FieldProblem(field=".".join(location[1:]) or location[0], message=message)
