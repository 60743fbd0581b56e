"""Every error that allmrec raises on purpose.

To add one: subclass `ClientError` when the caller can fix it, `ServerError` when only the operator can,
give it an HTTP `status` and a one-line `title`, and say in its docstring who raises it.
The message says what is wrong, where, and what to do; it is shown to users as it stands.
"""

from __future__ import annotations


class AllmrecError(Exception):
    """Base of all errors of this project.

    `status` is the HTTP status and `title` the RFC 9457 title under which the service reports it.
    """

    status: int = 500
    title: str = "Internal error"


class ClientError(AllmrecError):
    """The request or the input is at fault; the caller can fix it."""

    status = 422
    title = "Invalid request"


class ServerError(AllmrecError):
    """The system is at fault; retrying or the operator can fix it."""

    status = 503
    title = "Service unavailable"


class NotFoundError(ClientError):
    """The named item or user does not exist. Raised by the service's look-ups."""

    status = 404
    title = "Not found"


class DataError(ClientError):
    """Input data cannot be used. Raised by the importers; names file, line and remedy."""

    title = "Unusable data"


class ConfigError(ClientError):
    """A recipe or a setting is wrong. Raised where configs are read."""

    title = "Invalid configuration"


class PromptTooLongError(ClientError):
    """The candidates alone overflow the LLM's context. Raised by `models.prompts`."""

    title = "Prompt too long"


class BundleError(ServerError):
    """A bundle is missing, damaged or made for another LLM. Raised by `models.bundle`."""

    title = "Unusable bundle"


class EngineError(ServerError):
    """The LLM engine failed or died. Raised by `models.engines`; the service falls back to the CF ranking."""

    title = "LLM engine failed"


class OverloadedError(ServerError):
    """More work is waiting than can be served. Raised by engines and by admission control."""

    title = "Overloaded"
