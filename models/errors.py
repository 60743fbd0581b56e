"""Every error that allmrec raises on purpose.

To add one: subclass `ClientError` when the caller can fix it, `ServerError` when only the operator can,
and say in its docstring who raises it. What it is to HTTP stands in `service.api.problems`.
The message says what is wrong, where, and what to do; it is shown to users as it stands.
"""

from __future__ import annotations


class AllmrecError(Exception):
    """Base of all errors of this project."""


class ClientError(AllmrecError):
    """The request or the input is at fault; the caller can fix it."""


class ServerError(AllmrecError):
    """The system is at fault; retrying or the operator can fix it."""


class NotFoundError(ClientError):
    """The named item or user does not exist. Raised by the service's look-ups."""


class DataError(ClientError):
    """Input data cannot be used. Raised by the importers; names file, line and remedy."""


class ConfigError(ClientError):
    """A recipe or a setting is wrong. Raised where configs are read."""


class PromptTooLongError(ClientError):
    """The candidates alone overflow the LLM's context. Raised by `models.prompts`."""


class BundleError(ServerError):
    """A bundle is missing, damaged or made for another LLM. Raised by `models.bundle`."""


class EngineError(ServerError):
    """The LLM engine failed or died. Raised by `models.engines`; the service falls back to the blend without it."""


class OverloadedError(ServerError):
    """More work is waiting than can be served. Raised by engines and by admission control."""
