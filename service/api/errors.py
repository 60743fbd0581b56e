"""Errors that only HTTP knows. Their statuses and titles stand in `service.api.problems`."""

from __future__ import annotations

from models.errors import ClientError


class UnauthorizedError(ClientError):
    """The API key is missing or wrong. Raised by `Authenticate`."""


class ClientGoneError(ClientError):
    """The client closed the connection. Raised by `unless_gone`; nobody reads the answer."""


class TooManyFailuresError(ClientError):
    """Too many wrong API keys of late. Raised by `Authenticate`."""


class BodyTooLargeError(ClientError):
    """A request body is over the limit, packed or unpacked. Raised by `ReadBody`."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"a request body may have {max_bytes} bytes: send less at a time")


class BodyTooSlowError(ClientError):
    """A request body did not come in time. Raised by `ReadBody`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a request must be there within {seconds:g} seconds")


class EncodingError(ClientError):
    """A request body is packed in a way that is not known, or is broken. Raised by `ReadBody`."""

    def __init__(self, encoding: str, reason: str = "it is not known") -> None:
        super().__init__(f"Content-Encoding '{encoding[:40]}': {reason}: send gzip, or the body as it is")
