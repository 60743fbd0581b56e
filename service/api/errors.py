"""Errors that only HTTP knows. Their statuses and titles stand in `service.api.problems`."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException

from models.errors import ClientError


class UnauthorizedError(ClientError):
    """The API key is missing or wrong. Raised by `RequireKey`."""


class ClientGoneError(ClientError):
    """The client closed the connection. Raised by `unless_gone`; nobody reads the answer."""


class BodyTooLargeError(HTTPException):
    """A request body went over the limit while it was read. An `HTTPException`, so that FastAPI lets it through."""

    def __init__(self, max_bytes: int) -> None:
        message = f"a request body may have {max_bytes} bytes: send less at a time"
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)

    def __str__(self) -> str:
        """The detail alone."""
        return self.detail
