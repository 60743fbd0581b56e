"""Optional API keys."""

from __future__ import annotations

from hmac import compare_digest
from typing import Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from service.api.errors import UnauthorizedError

_bearer = HTTPBearer(auto_error=False, description="The API key as a bearer token.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The API key.")


class RequireKey:
    """A dependency that lets only holders of `key` pass."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key.get_secret_value().encode()

    async def __call__(
        self,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        header: Annotated[str | None, Security(_header)],
    ) -> None:
        """Check the key of a request.

        Raises:
            UnauthorizedError: it does not fit.
        """
        # Starlette decodes headers as latin-1; this gives back the bytes that were sent.
        given = bearer.credentials if bearer is not None else header or ""
        if not compare_digest(given.encode("latin-1"), self._key):
            raise UnauthorizedError("send the API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`")
