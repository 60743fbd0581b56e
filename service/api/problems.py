"""The one mapping from errors to HTTP: problem+json (RFC 9457), never a stack trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from models.engines.base import InvalidPromptError
from models.errors import (
    AllmrecError,
    BundleError,
    ClientError,
    ConfigError,
    DataError,
    EngineError,
    NotFoundError,
    OverloadedError,
    PromptTooLongError,
    ServerError,
)
from service.api.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    ClientGoneError,
    EncodingError,
    TooManyFailuresError,
    UnauthorizedError,
)
from service.api.routes import methods_of
from service.api.schemas.problem import FieldProblem, Problem
from service.runtime import NotReadyError
from service.stores.local import LocalServerError
from service.stores.port import StoreError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = {429: 60, 503: 1}

PROBLEMS: dict[type[Exception], tuple[int, str]] = {
    AllmrecError: (500, "Internal error"),
    ClientError: (422, "Invalid request"),
    UnauthorizedError: (401, "Unauthorized"),
    NotFoundError: (404, "Not found"),
    BodyTooSlowError: (408, "Request timeout"),
    BodyTooLargeError: (413, "Content too large"),
    EncodingError: (415, "Unsupported encoding"),
    TooManyFailuresError: (429, "Too many wrong keys"),
    ClientGoneError: (499, "Client closed request"),
    ConfigError: (422, "Invalid configuration"),
    DataError: (422, "Unusable data"),
    InvalidPromptError: (422, "Invalid prompt"),
    PromptTooLongError: (422, "Prompt too long"),
    ServerError: (503, "Service unavailable"),
    NotReadyError: (503, "Starting"),
    OverloadedError: (503, "Overloaded"),
    BundleError: (503, "Unusable bundle"),
    EngineError: (503, "LLM engine failed"),
    StoreError: (503, "User store unavailable"),
    LocalServerError: (503, "Local server failed"),
}
"""HTTP status and RFC 9457 title of an error class, and of those of its subclasses that are not listed."""


ANYWHERE = (400, 408, 413, 415, 431)
"""What any request may be answered by, whatever it asks for: it is no HTTP, slow, large or packed in another way."""


def status_and_title(error: type[Exception]) -> tuple[int, str]:
    """What an error is to HTTP."""
    return next(PROBLEMS[base] for base in (*error.__mro__, AllmrecError) if base in PROBLEMS)


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
    if status in RETRY_SECONDS:
        extra.setdefault("Retry-After", str(RETRY_SECONDS[status]))
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS):
        extra.setdefault("WWW-Authenticate", 'Bearer, Basic realm="allmrec"')
    if status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        extra.setdefault("Accept-Encoding", "gzip")
    return Response(json.dumps(content.model_dump()), status, extra, media_type=MEDIA_TYPE)


def problem_of(scope: Mapping[str, Any], error: Exception) -> Response:
    """The response that `error` becomes, if it is one of ours."""
    status, title = status_and_title(type(error))
    return problem(scope, status, title, str(error))


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the errors with these statuses."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: schema}} for status in statuses}


def install(app: FastAPI) -> None:
    """Answer every error of `app` by a problem."""

    @app.exception_handler(AllmrecError)
    async def _own(request: Request, error: Exception) -> Response:
        return problem_of(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [_field_problem(entry) for entry in error.errors()]
        detail = "; ".join(f"{entry.field}: {entry.message}" for entry in errors[:3])
        return problem(request.scope, 422, "Invalid request", detail, errors)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.BAD_REQUEST:
            return problem(request.scope, 422, "Invalid request", "body: it cannot be read as JSON")
        title, headers = HTTPStatus(error.status_code).phrase, error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {**(headers or {}), "Allow": ", ".join(methods_of(request.scope))}
        detail = error.detail if error.detail != title else f"{request.method} {request.url.path}: {title}"
        return problem(request.scope, error.status_code, title, detail, headers=headers)


def _field_problem(entry: Mapping[str, Any]) -> FieldProblem:
    location = [str(part) for part in entry["loc"]]
    if entry["type"] == "json_invalid":
        where = f"body, character {location[-1]}"
        return FieldProblem(field=where, message=f"broken JSON: {entry['ctx']['error']}")
    message = str(entry["msg"])
    if location == ["body"] and entry["type"] in ("model_attributes_type", "missing"):
        message = "a JSON object is needed, sent as Content-Type: application/json"
    return FieldProblem(field=".".join(location[1:]) or location[0], message=message)
